"""``adapterctl baseline``: the three things a release has to stand beside."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tests.integration.conftest import Copy
from tests.support.program import Programs

from adapterctl.lora.adapter import Adapter


def delta(folder: Path, module: str) -> torch.Tensor:
    """Return ΔW of a module."""
    adapter = Adapter.open(folder)
    low = adapter.delta(module)
    return low.scale * (low.B.float() @ low.A.float())


def test_the_linear_baseline_is_the_average_at_its_best_scale(served: Path, copy: Copy, program: Programs) -> None:
    root = copy(served)
    done = program(root, "baseline", "--kind", "linear", "--json")
    assert done.exit_code == 0, done.err
    assert (done.json["kind"], done.json["version"]) == ("linear", None)
    cells = done.json["verdict"]["cells"]
    assert {cell["lang"] for cell in cells} == {"de", "en", "ja"}
    trained = list((root / ".adapterctl" / "adapters").iterdir())
    assert len(trained) == 3
    module = next(iter(Adapter.open(trained[0]).modules))
    mean = sum(delta(folder, module) for folder in trained) / 3
    merged = [delta(folder, module) for folder in (root / ".adapterctl" / "merged").iterdir()]
    expected = done.json["scale"] * mean
    assert min((one - expected).norm() / expected.norm() for one in merged) < 1e-4


def test_the_continued_baseline_goes_on_from_the_combined_adapter(updated: Path, copy: Copy, program: Programs) -> None:
    root = copy(updated)
    early = program(root, "baseline", "--kind", "continue", "--lang", "ja")
    assert early.exit_code == 2, early.err
    assert "there is no combined adapter to go on from" in early.err
    assert program(root, "baseline").exit_code == 0
    before = {folder.name for folder in (root / ".adapterctl" / "adapters").iterdir()}
    done = program(root, "baseline", "--kind", "continue", "--lang", "ja", "--json")
    assert done.exit_code == 0, done.err
    assert done.json["version"] is None
    [new] = [folder for folder in (root / ".adapterctl" / "adapters").iterdir() if folder.name not in before]
    module = next(iter(Adapter.open(new).modules))
    went_on = delta(new, module)
    others = [delta(new.with_name(name), module) for name in before]
    assert 0 < min((went_on - other).norm() / other.norm() for other in others) < 0.5
    assert done.json["verdict"]["candidate"] == "champion"
    again = program(root, "baseline", "--kind", "continue", "--lang", "ja", "--json")
    assert again.json == done.json
    assert {folder.name for folder in (root / ".adapterctl" / "adapters").iterdir()} == before | {new.name}
    # Only the retrain-all is what updates are compared with.
    report = program(root, "cost", "report", "--json").json
    assert report["comparison"]["measured"]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--kind", "continue"), "--kind continue and --lang go together"),
        (("--lang", "ja"), "--kind continue and --lang go together"),
        (("--kind", "best"), "'best' is not one of"),
    ],
)
def test_what_cannot_be_asked_for(served: Path, program: Programs, arguments: tuple[str, ...], told: str) -> None:
    done = program(served, "baseline", *arguments)
    assert done.exit_code == 2
    assert told in done.err


def test_there_is_nothing_to_average_without_a_champion(fresh: Path, program: Programs) -> None:
    done = program(fresh, "baseline", "--kind", "linear")
    assert done.exit_code == 2
    assert "there is no champion whose adapters could be averaged" in done.err
    assert "adapterctl setup" in done.err


def test_a_suite_of_text_that_is_read_has_no_average_to_log(served: Path, copy: Copy, program: Programs) -> None:
    root = copy(served)
    suite = root / "evaluation" / "suite.yaml"
    tasks = suite.read_text("utf-8").split("# Rows on which choices")[0]
    suite.write_text(f"{tasks}\n  general:\n    kind: perplexity\n\ntest:\n  - general/{{lang}}.jsonl\n", "utf-8")
    done = program(root, "baseline", "--kind", "linear", "--json")
    assert done.exit_code == 0, done.err
    assert done.json["scores"]["average"] is None
    assert {cell["metric"] for cell in done.json["verdict"]["cells"]} == {"bits_per_byte"}
