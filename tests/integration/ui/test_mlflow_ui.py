"""MLflow's user interface in a real browser, on the store of a workspace that was set up and updated."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from tests.support.browser import browser, missing_browser
from tests.support.cli import invoke
from tests.support.mlflow_pages import Pages

from adapterctl.accounting.entries import Entry
from adapterctl.accounting.ledger import Ledger
from adapterctl.api import Workspace
from adapterctl.evaluation.verdict import CellVerdict, LanguageVerdict, Verdict
from adapterctl.registry.client import Registry
from adapterctl.registry.server import serve
from adapterctl.workflows.init import init_workspace
from adapterctl.workflows.release_note import OF_A_VERSION, ReleaseNote

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


def cells_of(shown: Shown) -> list[str]:
    """Return what stands in the cells of the tables that Markdown made."""
    cells = shown.pages.browser.js("return [...document.querySelectorAll('td')].map(cell => cell.innerText.trim())")
    return [str(cell) for cell in cells]


def test_a_version_shows_its_description_as_markdown(shown: Shown) -> None:
    release = shown.workspace.history()[0].release
    text = shown.pages.version("shop-merged", 2, "Gate passed. ja trained anew on", "Adapters pinned:", "Cost:")
    assert "Adapters pinned: ja v2 (was v1), de v1." in text
    assert "Version 2 becomes the champion at once" in text
    for raw in ("**", "|---|", "| de |", "&#", "```", "emsp"):
        assert raw not in text
    cells = cells_of(shown)
    verdict = release.verdict
    assert verdict is not None
    for lang in LANGUAGES:
        assert lang in cells
        assert f"{release.scores['languages'][lang]:.3f}" in cells
    # One arrow, or none, in front of every change.
    assert len([cell for cell in cells if cell[:2] in ("▲ ", "▼ ", "= ")]) == len(LANGUAGES)
    bold = shown.pages.browser.js("return [...document.querySelectorAll('td strong')].map(e => e.innerText)")
    assert bold == ["ja"]
    commands = shown.pages.browser.js("return [...document.querySelectorAll('pre code')].map(e => e.innerText.trim())")
    assert commands == ["# back to the release before it\nadapterctl rollback"]
    # Amounts in brackets are no links.
    links = shown.pages.browser.js(
        "return [...document.querySelectorAll('.mlflow-ui-container a, a')].map(a => a.href)"
    )
    assert not [link for link in links if "USD" in link or "%20" in link]


def test_the_registered_model_says_where_to_begin(shown: Shown) -> None:
    text = shown.pages.model("shop-merged", "Begin here")
    assert "one that passes the gate becomes champion at once" in text
    # In the list the beginning of a description is shown as it is written: no markup there.
    assert "Gate passed. ja tra" in text


HOSTILE = (
    '<img src=x onerror="document.body.dataset.hacked=1"><script>document.body.dataset.hacked=1</script>'
    "![i](http://evil.example/x.png)[click](http://evil.example) **bold** | a | `b` http://evil.example @someone"
)


def test_names_laden_with_markup_are_shown_as_they_are(shown: Shown) -> None:
    made = shown.workspace.history()[0].release
    judged = LanguageVerdict(HOSTILE, 0.5, 0.4, -0.1, -0.2, -0.05, "fail")
    lost = CellVerdict(HOSTILE, HOSTILE, "rouge_l", 9, 0.5, 0.4, -0.1, -0.2, -0.2, -0.05, 0.02, "fail", 0.1, 9)
    verdict = Verdict(HOSTILE, HOSTILE, (lost,), (judged,), 0.95)
    release = made.model_copy(update={"reason": HOSTILE, "recipe": {"method": HOSTILE}, "verdict": verdict.as_dict()})
    note = ReleaseNote(release, verdict, made, "review")
    before = shown.registry.version("shop-merged", 1).description
    version = shown.registry.version("shop-merged", 1)
    shown.registry.set_description(version, note.text(OF_A_VERSION))
    try:
        shown.pages.version("shop-merged", 1, "Gate FAILED", "Cell by cell")
        cells = cells_of(shown)
        assert HOSTILE[:60] in "".join(cells)
        harm = shown.pages.browser.js(
            "return [document.body.dataset.hacked || '', "
            "[...document.querySelectorAll('img, script')].filter(e => (e.src || '').includes('evil.example')).length, "
            "[...document.querySelectorAll('a')].filter(a => /evil.example|someone/.test(a.href)).length]"
        )
        assert harm == ["", 0, 0]
        rows = shown.pages.browser.js("return [...document.querySelectorAll('tr')].map(row => row.children.length)")
        assert set(rows) >= {6, 12}
    finally:
        shown.registry.set_description(version, before)


def test_the_runs_are_nested_below_their_command(shown: Shown) -> None:
    update, setup = "update ja: v2 passed", "setup: v1 first release"
    shown.pages.runs([setup, update], ["train de", "train ja"])
    # In the order of the lines on the screen, which is not the order in the document.
    names = shown.pages.browser.js(
        "return [...document.querySelectorAll('a[href*=\"/runs/\"]')].filter(link => link.innerText.trim())"
        ".sort((a, b) => a.getBoundingClientRect().top - b.getBoundingClientRect().top)"
        ".map(link => [link.innerText.trim(), Math.round(link.getBoundingClientRect().left)])"
    )
    assert [name for name, _ in names][:3] == [update, "train ja", setup]
    assert sorted(name for name, _ in names[3:]) == ["train de", "train ja"]
    left = dict(names)
    assert left["train ja"] == left["train de"] > left[update] == left[setup]


def test_a_run_shows_scores_datasets_and_pictures(shown: Shown) -> None:
    release = shown.workspace.history()[0].release
    text = shown.pages.run(release.run_id, "ja.mean", "de.sentiment", "average", "Finished", "de test")
    assert "update ja: v2 passed" in text
    assert "Gate passed. ja trained anew on" in text
    files = {"release.json", "scorecard.json", "champion_scorecard.json", "verdict.md", "scale.json", "cost.md"}
    for name in ("changes.png", "gate.png", "interference.png", "loss.png", "cumulative_cost.png", "scorecard.png"):
        text = shown.pages.picture(release.run_id, name)
        assert files | {name} <= set(text.splitlines())


def test_the_rows_are_a_table_the_worst_on_top(shown: Shown) -> None:
    release = shown.workspace.history()[0].release
    stored = shown.registry.read_json(release.run_id, "predictions.json")
    changes = [row[3] for row in stored["data"]]
    assert changes == sorted(change for change in changes if change < 0) + sorted(
        (change for change in changes if change > 0), reverse=True
    )
    text = shown.pages.table(release.run_id, "predictions.json", "View as table", stored["data"][0][2])
    for head in ("language", "task", "id", "change", "champion"):
        assert head in text


def test_an_update_that_is_done_again_notes_its_rows_once(shown: Shown) -> None:
    from mlflow import MlflowClient

    run_id = shown.workspace.history()[0].release.run_id
    client = MlflowClient(shown.registry.resolved.uri)
    before = client.get_run(run_id).inputs.dataset_inputs
    first = before[0].dataset
    digest = next(tag.value for tag in before[0].tags if tag.key == "sha256")
    with shown.registry.run(client.get_run(run_id).data.tags["adapterctl.key"], "again") as again:
        rows = int(json.loads(first.profile)["num_rows"])
        again.log_input_dataset(first.name, digest, path="evaluation", rows=rows, context="test")
    inputs = client.get_run(run_id).inputs.dataset_inputs
    noted = [(one.dataset.name, {tag.key: tag.value for tag in one.tags}) for one in inputs]
    assert sorted(name for name, _ in noted) == ["de test", "ja test"]
    for _, tags in noted:
        assert tags["mlflow.data.context"] == "test"
        assert len(tags["sha256"]) == 64


def test_the_cost_report_shows_a_hostile_subject_as_it_is(shown: Shown, tmp_path: Path) -> None:
    root = shown.workspace.files.root
    ledger = Ledger(shown.workspace.files.paths.ledger, lambda: shown.registry)
    known = ledger.entries(command="update", step="process")[-1]
    odd = replace(
        Entry.now(command="update", subject=HOSTILE, step="process", key="", usage=known.usage), update_id="x"
    )
    ledger.append(odd)
    try:
        done = invoke("-C", root, "cost", "report", "--out", tmp_path)
        assert done.exit_code == 0, done.err
    finally:
        ledger.outbox.remove({odd.id})
    browser = shown.pages.browser
    browser.open((tmp_path / "report.html").as_uri())
    text = browser.wait_for("The last update")
    assert HOSTILE in text
    found = browser.js("return [...document.querySelectorAll('*')].map(e => e.tagName.toLowerCase())")
    assert "script" not in found
    assert "a" not in found
    sources = browser.js("return [...document.images].map(image => image.src.slice(0, 22))")
    assert set(sources) == {"data:image/png;base64,"}
    assert browser.js("return document.body.dataset.hacked || ''") == ""


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
