"""The Python API says the same as the program, in values."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from tests.support.small_workspace import LANGUAGES, bring_new_rows, search_in_updates

from adapterctl import Workspace
from adapterctl.errors import UsageError
from adapterctl.lora.adapter import Adapter

Copy = Callable[[Path], Path]


class Heard:
    """A reporter that keeps what it is told."""

    def __init__(self) -> None:
        self.titles: list[str] = []

    def stage(self, title: str):  # type: ignore[no-untyped-def]
        from adapterctl.workflows.reporting import SilentReporter

        self.titles.append(title)
        return SilentReporter().stage(title)

    def note(self, text: str) -> None:
        """Keep nothing."""


def test_the_life_of_a_workspace(served: Path, updated: Path, copy: Copy, tmp_path: Path) -> None:
    root, heard = copy(served), Heard()
    workspace = Workspace.open(root, reporter=heard)
    assert workspace.status().champion is not None
    assert not workspace.update("ja", if_changed=True).changed
    assert heard.titles == []
    with pytest.raises(UsageError, match="no previous release"):
        workspace.rollback()
    bring_new_rows(root)
    workspace = Workspace.open(root, reporter=heard)
    assert workspace.plan("ja").changed
    outcome = workspace.update("ja")
    assert heard.titles[0] == "train ja"
    assert outcome.candidate is not None
    assert outcome.candidate.promoted
    assert outcome.candidate.card.languages == LANGUAGES
    # The program made the same release in a workspace elsewhere.
    elsewhere = Workspace.open(updated).status().champion
    assert elsewhere is not None
    assert outcome.candidate.release.content_hash == elsewhere.content_hash
    assert [past.release.version for past in workspace.history()] == [2, 1]
    assert workspace.cost_report().lang == "ja"
    assert workspace.evaluate("champion", ["ja"]).languages == ("ja",)
    made = workspace.export(tmp_path / "serving")
    assert Adapter.open(made.folder).content_hash == elsewhere.content_hash
    assert workspace.rollback().champion.version == 1
    assert workspace.promote(2).champion.version == 2
    with pytest.raises(UsageError, match="no candidate"):
        workspace.promote()


def test_a_language_that_is_not_there(served: Path) -> None:
    workspace = Workspace.open(served)
    for call in (workspace.plan, workspace.update):
        with pytest.raises(UsageError, match="is not in this workspace"):
            call("it")


def test_an_update_that_keeps_the_scale_does_not_search_for_it(served: Path, copy: Copy) -> None:
    root, heard = copy(served), Heard()
    before = Workspace.open(root).status().champion
    assert before is not None
    bring_new_rows(root)
    outcome = Workspace.open(root, reporter=heard).update("ja")
    assert outcome.candidate is not None
    assert outcome.candidate.release.scale == before.scale
    assert not [title for title in heard.titles if "dev split" in title]
    assert len([title for title in heard.titles if title.startswith("merge ")]) == 1


def test_an_update_that_searches_for_the_scale_says_so(served: Path, copy: Copy) -> None:
    root, heard = copy(served), Heard()
    search_in_updates(root)
    bring_new_rows(root)
    assert Workspace.open(root, reporter=heard).update("ja").candidate is not None
    assert [title for title in heard.titles if "dev split" in title]
