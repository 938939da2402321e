"""MLflow's user interface in a real browser, on the store of a workspace that was set up and updated."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.support.browser import browser, missing_browser
from tests.support.mlflow_pages import Pages

from adapterctl.api import Workspace
from adapterctl.registry.client import Registry
from adapterctl.registry.server import serve
from adapterctl.workflows.init import init_workspace

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(missing_browser()), reason=missing_browser() or "there is a browser"),
]
LANGUAGES = ("de", "ja")


@dataclass(frozen=True)
class Shown:
    """An open browser on a store.

    Attributes:
        pages: Opens MLflow's pages.
        registry: The store.
        workspace: Whose it is.
    """

    pages: Pages
    registry: Registry
    workspace: Workspace


def small_workspace(root: Path) -> Workspace:
    """Make a pocket workspace with few rows, in which every candidate passes the gate."""
    init_workspace(root, languages=LANGUAGES, project="shop")
    for file in root.glob("**/*.jsonl"):
        kept = 40 if file.name.endswith(".train.jsonl") else 12
        file.write_text("".join(file.read_text("utf-8").splitlines(keepends=True)[:kept]), encoding="utf-8")
    config = root / "adapterctl.yaml"
    text = config.read_text("utf-8").replace("epochs: 4", "epochs: 1").replace("margin: 0.1\n", "margin: 1.0\n")
    config.write_text(text.replace("lambda: auto", "lambda: 1.0"), encoding="utf-8")
    return Workspace.open(root)


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shown]:
    root = tmp_path_factory.mktemp("ui") / "workspace"
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        workspace = small_workspace(root)
        workspace.setup()
        shutil.copytree(root / "incoming" / "ja", root, dirs_exist_ok=True)
        workspace = Workspace.open(root)
        outcome = workspace.update("ja")
        assert outcome.candidate is not None
        assert outcome.candidate.promoted
        resolved = workspace.files.config.registry.resolve(root)
        registry = Registry.connect(resolved, "shop")
        log = tmp_path_factory.mktemp("log") / "log"
        with serve(resolved, port=0, log=log, timeout=120) as server, browser() as window:
            yield Shown(Pages(window, server.url, registry.experiment_id), registry, workspace)


def test_every_registered_model_is_listed_with_its_aliases(shown: Shown) -> None:
    text = shown.pages.models("shop-merged", "shop-de", "shop-ja", "champion")
    assert "Registered Models" in text


def test_the_versions_carry_champion_and_previous(shown: Shown) -> None:
    assert shown.registry.aliases("shop-merged") == {"champion": 2, "previous": 1}
    shown.pages.model("shop-merged", "Version 1", "Version 2", "champion", "previous")
    assert alias_rows(shown) == {"Version 2": "champion", "Version 1": "previous"}


def alias_rows(shown: Shown) -> dict[str, str]:
    """Return which alias stands in the row of each version."""
    rows = shown.pages.browser.js(
        "return [...document.querySelectorAll('[role=row], tr')].map(row => row.innerText.replace(/\\s+/g, ' '))"
    )
    return {
        version: alias
        for row in rows
        for version in ("Version 1", "Version 2")
        for alias in ("champion", "previous", "candidate")
        if version in row and alias in row
    }


def test_a_version_shows_its_description_as_markdown(shown: Shown) -> None:
    release = shown.workspace.history()[0].release
    text = shown.pages.version("shop-merged", 2, "update ja", "own adapter", "Gate passed")
    assert "Pinned adapters: de v1, ja v2" in text
    for raw in ("**update ja**", "|---|", "| de |"):
        assert raw not in text
    cells = shown.pages.browser.js("return [...document.querySelectorAll('td')].map(cell => cell.innerText.trim())")
    for lang in LANGUAGES:
        assert lang in cells
        assert f"{release.scores['languages'][lang]:.3f}" in cells
    assert shown.pages.browser.js("return [...document.querySelectorAll('strong')].map(e => e.innerText)")[0] == (
        "update ja"
    )


def test_the_runs_are_nested_below_their_command(shown: Shown) -> None:
    shown.pages.runs(["setup", "update ja"], ["train de", "train ja"])
    # In the order of the lines on the screen, which is not the order in the document.
    names = shown.pages.browser.js(
        "return [...document.querySelectorAll('a[href*=\"/runs/\"]')].filter(link => link.innerText.trim())"
        ".sort((a, b) => a.getBoundingClientRect().top - b.getBoundingClientRect().top)"
        ".map(link => [link.innerText.trim(), Math.round(link.getBoundingClientRect().left)])"
    )
    assert [name for name, _ in names][:3] == ["update ja", "train ja", "setup"]
    assert sorted(name for name, _ in names[3:]) == ["train de", "train ja"]
    left = dict(names)
    assert left["train ja"] == left["train de"] > left["update ja"] == left["setup"]


def test_a_run_shows_scores_and_pictures(shown: Shown) -> None:
    release = shown.workspace.history()[0].release
    text = shown.pages.run(release.run_id, "ja.mean", "de.sentiment", "average", "Finished")
    assert "update ja" in text
    for name in ("gate.png", "scorecard.png"):
        text = shown.pages.picture(release.run_id, name)
        assert {"gate.png", "release.json", "scorecard.json", "scorecard.png"} <= set(text.splitlines())


def test_the_training_has_a_loss_curve(shown: Shown) -> None:
    from mlflow import MlflowClient

    training = shown.registry.version("shop-ja", 2).run_id
    text = shown.pages.curves(training, "loss", "learning_rate", "final_loss")
    assert "train ja (loss)" in text
    # The curve itself, not an empty chart: the points that are drawn are those that were logged.
    client = MlflowClient(shown.registry.resolved.uri)
    logged = {point.step: point.value for point in client.get_metric_history(training, "loss")}
    assert len(logged) >= 3
    drawn = shown.pages.browser.js(
        "return [...document.querySelectorAll('.js-plotly-plot')].flatMap(plot => plot.data)"
        ".map(line => [Array.from(line.x || []), Array.from(line.y || [])])"
    )
    assert [[*logged], [*logged.values()]] in drawn
    shown.pages.picture(training, "loss.png")
