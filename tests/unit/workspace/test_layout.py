import pytest

from adapterctl.errors import UsageError
from adapterctl.workspace.layout import StatePaths, find_root, state_paths


@pytest.fixture
def workspace(tmp_path, monkeypatch):
    monkeypatch.delenv("ADAPTERCTL_WORKSPACE", raising=False)
    monkeypatch.delenv("ADAPTERCTL_STATE_DIR", raising=False)
    root = tmp_path / "workspace"
    (root / "adapters" / "data").mkdir(parents=True)
    (root / "adapterctl.yaml").write_text("project: x\n")
    return root


def test_the_workspace_is_found_upwards(workspace, monkeypatch):
    assert find_root(workspace / "adapters" / "data") == workspace
    assert find_root(workspace / "adapterctl.yaml") == workspace
    monkeypatch.chdir(workspace / "adapters")
    assert find_root() == find_root(".") == workspace


def test_the_environment_variable_stands_for_the_current_folder(workspace, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ADAPTERCTL_WORKSPACE", str(workspace))
    assert find_root() == workspace
    with pytest.raises(UsageError):
        find_root(tmp_path)


def test_without_a_workspace_the_command_that_makes_one_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("ADAPTERCTL_WORKSPACE", str(tmp_path / "none"))
    with pytest.raises(UsageError, match=r"there is no adapterctl.yaml in .*none \(ADAPTERCTL_WORKSPACE\)") as caught:
        find_root()
    assert "adapterctl init DIR" in caught.value.hint


def test_the_state_lies_in_the_workspace_or_where_the_variable_says(workspace, tmp_path, monkeypatch):
    assert state_paths(workspace).root == workspace / ".adapterctl"
    monkeypatch.setenv("ADAPTERCTL_STATE_DIR", str(tmp_path / "elsewhere"))
    assert state_paths(workspace).root == tmp_path / "elsewhere"


def test_every_kind_of_state_has_its_own_place(tmp_path):
    paths = StatePaths(tmp_path)
    places = [
        paths.adapter("k"), paths.merged("k"), paths.scores("k"), paths.checkpoints,
        paths.ledger, paths.lock, paths.holder, paths.journal,
    ]  # fmt: skip
    assert len(set(places)) == 8
    assert all(tmp_path in place.parents for place in places)
