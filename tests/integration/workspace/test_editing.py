import difflib
import errno
from pathlib import Path

import pytest

from adapterctl.errors import ConfigError, StorageError, UsageError
from adapterctl.workspace import editing
from adapterctl.workspace.editing import add_language, remove_language
from adapterctl.workspace.workspace import Workspace


def changed_lines(before, after):
    lines = difflib.ndiff(before.splitlines(), after.splitlines())
    return [line for line in lines if line[0] in "+-"]


def test_a_language_is_added_and_nothing_else_is_changed(root):
    project = root / "adapterctl.yaml"
    before = project.read_text(encoding="utf-8")
    file = add_language(root, "IT")
    assert file == root / "adapters" / "it.yaml"
    assert "Italian" in file.read_text(encoding="utf-8")
    assert changed_lines(before, project.read_text(encoding="utf-8")) == [
        "- languages: [en, ja]",
        "+ languages: [en, ja, it]",
    ]
    assert Workspace.open(root, data=False).languages == ("en", "ja", "it")


def test_removing_it_again_gives_the_file_as_it_was(root):
    before = (root / "adapterctl.yaml").read_bytes()
    add_language(root, "it")
    remove_language(root, "it")
    assert (root / "adapterctl.yaml").read_bytes() == before
    assert not (root / "adapters" / "it.yaml").exists()


@pytest.mark.parametrize(
    ("block", "added"),
    [
        ("languages:\n  - en  # first\n  # second\n  - ja\n", "+   - it"),
        ("languages:\n- en\n- ja\n", "+ - it"),
        ("languages:\n    - en\n    - 'ja'\n", "+     - it"),
    ],
)
def test_lists_keep_the_form_their_owner_gave_them(root, edit, block, added):
    edit("adapterctl.yaml", "languages: [en, ja]\n", block)
    before = (root / "adapterctl.yaml").read_text(encoding="utf-8")
    add_language(root, "it")
    after = (root / "adapterctl.yaml").read_text(encoding="utf-8")
    assert added in changed_lines(before, after)
    assert all(comment in after for comment in [line for line in before.splitlines() if line.startswith("#")])
    assert Workspace.open(root, data=False).languages == ("en", "ja", "it")


def test_a_removed_language_keeps_its_rows_and_loses_its_weight(root, edit):
    edit("adapterctl.yaml", "lambda: auto", "lambda: auto\n  weights: {en: 0.5, ja: 0.7}  # tuned in May")
    remove_language(root, "ja")
    workspace = Workspace.open(root)
    assert workspace.languages == ("en",)
    assert workspace.config.merge.weights == {"en": 0.5}
    assert "# tuned in May" in (root / "adapterctl.yaml").read_text(encoding="utf-8")
    assert not (root / "adapters/ja.yaml").exists()
    assert list((root / "adapters/data/ja").iterdir()) != []


def test_a_missing_adapter_file_is_made_for_a_language_that_is_listed(root):
    before = (root / "adapterctl.yaml").read_bytes()
    (root / "adapters/ja.yaml").unlink()
    add_language(root, "ja")
    assert (root / "adapterctl.yaml").read_bytes() == before
    assert Workspace.open(root).languages == ("en", "ja")


def test_an_adapter_file_that_is_there_is_kept(root):
    (root / "adapters/it.yaml").write_text("lora: {r: 4}\n")
    add_language(root, "it")
    assert (root / "adapters/it.yaml").read_text() == "lora: {r: 4}\n"


def test_what_cannot_be_added_or_removed_is_refused(root):
    before = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    with pytest.raises(UsageError, match="already"):
        add_language(root, "ja")
    with pytest.raises(UsageError, match="did you mean 'ja'"):
        add_language(root, "jp")
    with pytest.raises(UsageError, match="not in this workspace"):
        remove_language(root, "it")
    assert {path: path.read_bytes() for path in root.rglob("*") if path.is_file()} == before


def test_a_project_file_with_faults_is_not_edited(root, edit):
    edit("adapterctl.yaml", "promotion: auto", "promotion: maybe")
    with pytest.raises(ConfigError, match="cannot be edited as long as it has faults") as caught:
        add_language(root, "it")
    assert "promotion: must be one of auto, review" in str(caught.value)
    assert not (root / "adapters/it.yaml").exists()


def test_a_shared_list_is_not_edited_by_accident(root, edit):
    edit("adapterctl.yaml", "languages: [en, ja]", "languages: &both [en, ja]")
    edit("adapterctl.yaml", "    target_modules: all-linear", "    target_modules: *both")
    add_language(root, "it")
    text = (root / "adapterctl.yaml").read_text(encoding="utf-8")
    assert "languages: &both [en, ja, it]" in text


def test_a_full_disk_leaves_both_files_as_they_were(root, monkeypatch):
    before = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    real = editing.write_text

    def full(path: Path, content: str) -> None:
        if path.name == "adapterctl.yaml":
            raise StorageError("cannot write: the disk is full")
        real(path, content)

    monkeypatch.setattr(editing, "write_text", full)
    with pytest.raises(StorageError):
        add_language(root, "it")
    assert {path: path.read_bytes() for path in root.rglob("*") if path.is_file()} == before


def test_a_disk_error_while_removing_is_a_storage_error(root, monkeypatch):
    def refuse(self: Path, missing_ok: bool = False) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(Path, "unlink", refuse)
    with pytest.raises(StorageError, match="read-only"):
        remove_language(root, "ja")
