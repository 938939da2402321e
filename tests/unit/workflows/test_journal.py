from pathlib import Path

import pytest

from adapterctl.workflows.init import init_workspace
from adapterctl.workflows.journal import Pending, forget, read_pending, under_way
from adapterctl.workspace.workspace import Workspace

PENDING = Pending(command="update", langs=("ja",), update_id="u", champion=1)


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace.open(init_workspace(tmp_path, languages=["ja"]))


def test_the_note_is_there_as_long_as_the_command_has_not_ended(workspace: Workspace) -> None:
    assert read_pending(workspace) is None
    with under_way(workspace, PENDING):
        assert read_pending(workspace) == PENDING
    assert read_pending(workspace) is None


@pytest.mark.parametrize("kind", [RuntimeError, KeyboardInterrupt])
def test_the_note_stays_where_the_command_was_interrupted(workspace: Workspace, kind: type[BaseException]) -> None:
    with pytest.raises(kind), under_way(workspace, PENDING):
        raise kind
    assert read_pending(workspace) == PENDING
    forget(workspace, "update", ["de"])
    forget(workspace, "remove", ["ja"])
    assert read_pending(workspace) == PENDING
    forget(workspace, "update", ["ja"])
    assert read_pending(workspace) is None


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"command": "update", "langs": 1}', "\udcff"])
def test_a_damaged_note_counts_as_none(workspace: Workspace, text: str) -> None:
    workspace.state.mkdir()
    workspace.paths.journal.write_bytes(text.encode("utf-8", "surrogateescape"))
    assert read_pending(workspace) is None
