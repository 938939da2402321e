"""Whether a processor computes in bfloat16 is measured, and doctor tells of one that does not."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.support.small_workspace import change

from adapterctl.training import precision
from adapterctl.workflows import doctor
from adapterctl.workflows.init import init_workspace
from adapterctl.workflows.session import reading
from adapterctl.workspace.workspace import Workspace


def findings(root: Path) -> list[Any]:
    return list(doctor._precision(reading(Workspace.open(root), "doctor")))


@pytest.mark.parametrize(("slowdown", "told"), [(42.0, 1), (2.9, 0), (0.5, 0)])
def test_doctor_tells_of_a_processor_without_bfloat16(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, slowdown: float, told: int
) -> None:
    root = init_workspace(tmp_path, languages=["de", "ja"])
    change(root, "adapterctl.yaml", "mixed_precision: none", "mixed_precision: bf16")
    monkeypatch.setattr(precision, "bfloat16_slowdown", lambda: slowdown)
    found = findings(root)
    assert len(found) == told
    if told:
        assert found[0].level == "warning"
        assert "takes 42 times as long in bfloat16" in found[0].message
        assert "for de, ja" in found[0].message
        assert "mixed_precision: none" in found[0].mend


def test_who_does_not_train_in_bfloat16_is_not_bothered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = init_workspace(tmp_path, languages=["de", "ja"])

    def never() -> float:
        raise AssertionError("nothing is to be measured")

    monkeypatch.setattr(precision, "bfloat16_slowdown", never)
    assert findings(root) == []


def test_the_quickest_round_of_each_kind_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that says 1 s, 5 s and 2 s for float32, then 8 s, 4 s and 9 s for bfloat16."""
    durations = [1.0, 5.0, 2.0, 8.0, 4.0, 9.0]
    moments = [moment for start, took in enumerate(durations) for moment in (100.0 * start, 100.0 * start + took)]
    clock = iter(moments)
    monkeypatch.setattr(precision, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    assert precision.bfloat16_slowdown(side=4) == 4.0
