"""The last screen of the demo: what the update changed, what it cost, and where to look."""

from __future__ import annotations

import sys
from pathlib import Path

from adapterctl import Workspace
from adapterctl.accounting.comparison import format_money, format_seconds
from adapterctl.cli import render
from adapterctl.cli.output import console, say
from adapterctl.evaluation.verdict import Verdict


def main() -> None:
    """Print the screen for the workspace that is named on the command line."""
    workspace = Workspace.open(sys.argv[1])
    status, costs = workspace.status(), workspace.cost_report().comparison
    out, made = console(), status.candidate or status.champion
    if made is None or made.verdict is None:
        sys.exit("the update did not make a release; see: adapterctl history")
    if status.candidate is None:
        say(out, f"The champion is version {made.version} ({made.reason}). What changed, on the test rows:")
    else:
        say(out, f"The gate did not let version {made.version} ({made.reason}) pass; the champion stays. What it saw:")
    render.verdict(out, Verdict.from_dict(made.verdict))
    kept = render.kept_share(made)
    if kept is not None:
        say(out, f"The merge keeps {kept:.0%} of what the languages' own adapters gain over the base model.")
    update, retrain = costs.update, costs.retrain
    measured = "measured" if costs.measured else "partly projected"
    say(out, "")
    say(out, f"Time and money, {measured}, interpreter start included:")
    rows = [
        [side.name, format_seconds(side.seconds.value), format_money(side.money.value, side.currency)]
        for side in (update, retrain)
    ]
    if costs.time_ratio and costs.money_ratio:
        rows.append(["update / retrain-all", f"{costs.time_ratio.value:.0%}", f"{costs.money_ratio.value:.0%}"])
    render.table(out, ["", "time", "cost"], rows)
    pictures = Path(status.artifacts or "")
    say(out, "Pictures (gate, scores, costs, loss):")
    for picture in sorted(pictures.glob("*.png")):
        say(out, f"  {picture}")
    say(out, "Review it in MLflow:")
    say(out, f"  .venv/bin/adapterctl -C {sys.argv[1]} ui")


if __name__ == "__main__":
    main()
