#!/usr/bin/env python3
"""Take the pictures of MLflow's user interface in docs/images: `scripts/screenshots.py WORKSPACE`.

The workspace needs a finished `setup` and `update`. Chromium and ChromeDriver must be installed
(Debian: apt-get install chromium chromium-driver fonts-noto-cjk).
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
_SETTLE_SECONDS = 1.5
TALL = 1500
"""Pixels: so much of a description is seen at once."""
# No tool bars over the charts, and no name of a folder of the machine that takes the pictures.
_CALM = """
const style = document.createElement('style');
style.textContent = '.modebar { display: none }';
document.head.append(style);
const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
while (texts.nextNode()) texts.currentNode.data = texts.currentNode.data.replaceAll(arguments[0], '…');
"""


def take(workspace: Path, images: Path) -> None:
    """Write the pictures of a workspace's last update into ``images``."""
    sys.path.insert(0, str(ROOT))
    from tests.support.browser import HEIGHT, WIDTH, browser
    from tests.support.mlflow_pages import Pages

    from adapterctl.api import Workspace
    from adapterctl.registry.client import Registry
    from adapterctl.registry.names import adapter_name, merged_name
    from adapterctl.registry.server import serve
    from adapterctl.workflows.predictions import FILE

    opened = Workspace.open(workspace)
    project, root = opened.files.config.project, opened.files.root
    update = next(past.release for past in opened.history() if past.release.reason.startswith("update "))
    lang, merged = update.reason.removeprefix("update "), merged_name(project)
    registry = Registry.connect(opened.files.config.registry.resolve(root), project)
    training = registry.version(adapter_name(project, lang), update.adapters[lang].version).run_id
    images.mkdir(parents=True, exist_ok=True)
    with serve(registry.resolved, port=0) as server, browser() as window:
        pages = Pages(window, server.url, registry.experiment_id)

        def shoot(name: str) -> None:
            window.js(_CALM, str(root))
            # What is asked for is there; charts and the side bar still move into place.
            time.sleep(_SETTLE_SECONDS)
            window.screenshot(images / f"mlflow-{name}.png")
            print(f"{images}/mlflow-{name}.png")

        pages.models(merged)
        shoot("models")
        pages.model(merged, "Begin here", f"Version {update.version}")
        shoot("merged")
        window.resize(WIDTH, TALL)
        pages.version(merged, update.version, "Adapters pinned")
        shoot("release")
        pages.run(update.run_id, "Show more")
        pages.show_more()
        shoot("run")
        window.resize(WIDTH, HEIGHT)
        pages.runs(["setup", update.reason], [f"train {lang}"])
        shoot("runs")
        for name in ("changes", "gate", "interference", "cumulative_cost"):
            window.resize(WIDTH, HEIGHT + (100 if name == "gate" else 0))
            pages.picture(update.run_id, f"{name}.png")
            shoot(name.replace("_", "-"))
        window.resize(WIDTH, HEIGHT)
        pages.table(update.run_id, FILE, "candidate", "change")
        shoot("predictions")
        pages.curves(training, "loss", "learning_rate")
        shoot("training")


def main() -> int:
    """Read the command line and take the pictures."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("workspace", type=Path, help="a workspace with a finished update")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "images", help="where to (default: docs/images)")
    options = parser.parse_args()
    take(options.workspace, options.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
