"""What people decide in MLflow and at the terminal, and what jobs make of it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import mlflow
import pytest
from tests.support.program import Programs
from tests.support.small_workspace import bring_new_rows, change
from tests.support.store import registry_of

from adapterctl.workflows import review_tags
from adapterctl.workflows.releases import read_release

Copy = Callable[[Path], Path]
MERGED = "pocket-merged"


def set_tag(root: Path, version: int, key: str, value: str) -> None:
    """Set a tag as a reviewer's browser does."""
    uri = registry_of(root).resolved.uri
    mlflow.MlflowClient(uri, registry_uri=uri).set_model_version_tag(MERGED, str(version), key, value)


def tags(root: Path, version: int) -> dict[str, str]:
    return dict(registry_of(root).version(MERGED, version).tags)


def events(root: Path, version: int) -> list[tuple[str, str]]:
    return [(event.what, event.reason) for event in review_tags.events(tags(root, version))]


@pytest.fixture(scope="module")
def waiting_workspace(measured: Path, program: Programs, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace whose candidate passed the gate and waits for a person; do not change it."""
    root = Path(shutil.copytree(measured, tmp_path_factory.mktemp("waiting") / "workspace"))
    change(root, "adapterctl.yaml", "promotion: auto", "promotion: review")
    done = program(root, "update", "--lang", "ja", "--json")
    assert (done.exit_code, done.json["candidate"]["promoted"]) == (0, False), done.err
    return root


@pytest.fixture
def waiting(waiting_workspace: Path, copy: Copy) -> Path:
    return copy(waiting_workspace)


def test_a_job_promotes_what_a_reviewer_approved(waiting: Path, program: Programs) -> None:
    assert tags(waiting, 2)["review"] == "waiting"
    nothing = program(waiting, "promote", "--approved", "--skip-exit-code", "99", "--json")
    assert (nothing.exit_code, nothing.json["decision"]) == (99, "waiting")
    assert "waits for its review" in program(waiting, "promote", "--approved").out
    set_tag(waiting, 2, "review", " Approved ")
    done = program(waiting, "promote", "--approved", "--json")
    assert done.exit_code == 0, done.err
    assert done.json["promotion"]["champion"]["version"] == 2
    assert registry_of(waiting).aliases(MERGED) == {"champion": 2, "previous": 1}
    assert events(waiting, 2) == [("promoted", "review=approved")]
    again = program(waiting, "promote", "--approved", "--skip-exit-code", "99", "--json")
    assert (again.exit_code, again.json["decision"]) == (99, "none")


def test_a_job_does_not_bring_back_what_a_reviewer_rejected(waiting: Path, program: Programs) -> None:
    set_tag(waiting, 2, "review", "rejected")
    refused = program(waiting, "promote")
    assert refused.exit_code == 2
    assert "was rejected by a reviewer" in refused.err
    done = program(waiting, "promote", "--approved", "--json")
    assert (done.exit_code, done.json["decision"], done.json["promotion"]) == (0, "rejected", None)
    assert registry_of(waiting).aliases(MERGED) == {"champion": 1}
    # The nightly job finds the same rows again, and that a person has decided about them.
    nightly = program(waiting, "update", "--all-changed", "--skip-exit-code", "99", "--json")
    assert nightly.exit_code == 99, nightly.err
    assert nightly.json["settled"] == {"version": 2, "gate": "passed"}
    # Asked for by name it is made again, but only a person makes it a candidate.
    again = program(waiting, "update", "--lang", "ja")
    assert again.exit_code == 3, again.err
    assert "It is no candidate: version 2 carries the tag review=rejected" in again.out
    assert registry_of(waiting).aliases(MERGED) == {"champion": 1}
    # A person may think otherwise.
    assert program(waiting, "promote", "--version", "2").exit_code == 0
    assert tags(waiting, 2)["review"] == "approved"


def test_a_candidate_that_waits_is_not_made_every_night(waiting: Path, program: Programs) -> None:
    nightly = program(waiting, "update", "--all-changed", "--json")
    assert (nightly.exit_code, nightly.json["changed"], nightly.json["settled"]["version"]) == (0, False, 2)
    assert "version 2 came of these very inputs before" in program(waiting, "update", "--all-changed").out
    assert tags(waiting, 2)["review"] == "waiting"


def test_a_candidate_is_rejected_at_the_terminal(waiting: Path, program: Programs) -> None:
    assert program(waiting, "reject").exit_code == 2
    done = program(waiting, "reject", "--reason", "machine-translated", "--json")
    assert (done.exit_code, done.json) == (0, {"rejected": 2, "reason": "machine-translated"})
    assert registry_of(waiting).aliases(MERGED) == {"champion": 1}
    assert events(waiting, 2) == [("rejected", "machine-translated")]
    assert program(waiting, "reject", "--reason", "x").exit_code == 2
    served = program(waiting, "reject", "--version", "1", "--reason", "x")
    assert served.exit_code == 2
    assert "adapterctl rollback" in served.err
    again = program(waiting, "update", "--lang", "ja", "--json")
    assert again.exit_code == 3
    assert again.json["candidate"]["refused"].endswith(": machine-translated")


def test_a_job_does_not_undo_a_rollback(updated: Path, copy: Copy, program: Programs) -> None:
    root = copy(updated)
    assert events(root, 2) == [("promoted", "the gate let it pass")]
    done = program(root, "rollback", "--reason", "complaints", "--json")
    assert (done.exit_code, done.json["champion"]["version"]) == (0, 1)
    assert events(root, 2)[1:] == [("rolled back", "complaints")]
    assert events(root, 1)[-1] == ("rolled back to", "complaints")
    nightly = program(root, "update", "--all-changed", "--json")
    assert (nightly.exit_code, nightly.json["settled"]) == (0, {"version": 2, "gate": "passed"})
    assert registry_of(root).aliases(MERGED) == {"champion": 1, "previous": 2}
    # The second rollback undoes the first, and says so in the tags.
    assert program(root, "rollback").exit_code == 0
    assert registry_of(root).aliases(MERGED) == {"champion": 2, "previous": 1}
    assert (tags(root, 2)["review"], tags(root, 1)["review"]) == ("approved", "rejected")


def test_an_approval_does_not_override_the_gate(measured: Path, copy: Copy, program: Programs) -> None:
    root = copy(measured)
    change(root, "adapterctl.yaml", "promotion: auto", "promotion: review")
    change(root, "adapterctl.yaml", "  min_examples: 1\n", "  min_examples: 1\n  required_gain: 0.99\n")
    assert program(root, "update", "--lang", "ja").exit_code == 3
    set_tag(root, 2, "review", "approved")
    refused = program(root, "promote", "--approved")
    assert refused.exit_code == 3
    assert "--override-gate --reason" in refused.err
    done = program(root, "promote", "--approved", "--override-gate", "--reason", "the rows are few", "--json")
    assert done.exit_code == 0, done.err
    assert events(root, 2) == [("promoted", "gate overridden: the rows are few")]


def test_a_verdict_against_another_champion_is_void(waiting: Path, program: Programs) -> None:
    bring_new_rows(waiting, "de")
    change(waiting, "adapterctl.yaml", "promotion: review", "promotion: auto")
    made = program(waiting, "update", "--lang", "de", "--json")
    assert made.json["candidate"]["promoted"], made.err
    number = made.json["candidate"]["version"]
    refused = program(waiting, "promote", "--version", "2")
    assert refused.exit_code == 3
    assert f"the gate compared version 2 with version 1, and version {number} is the champion now" in refused.err
    # What has been the champion before may be so again.
    assert program(waiting, "promote", "--version", "1").exit_code == 0
    assert program(waiting, "promote", "--version", "2").exit_code == 0


def test_a_language_is_held_at_a_version(updated: Path, copy: Copy, program: Programs) -> None:
    root = copy(updated)
    back = program(root, "pin", "--lang", "ja", "--version", "1", "--json")
    assert back.exit_code == 0, back.err
    registry = registry_of(root)
    assert registry.aliases("pocket-ja") == {"champion": 1, "pinned": 1}
    # λ is kept, so the bytes are those of version 1, which then is the champion again.
    assert back.json["candidate"]["scale"] == read_release(registry, registry.version(MERGED, 1)).scale
    assert registry.aliases(MERGED) == {"champion": 1, "previous": 2}
    assert back.json["candidate"]["promoted"]
    refused = program(root, "update", "--lang", "ja")
    assert refused.exit_code == 2
    assert "ja is pinned to version 1" in refused.err
    nightly = program(root, "update", "--all-changed", "--skip-exit-code", "99", "--json")
    assert nightly.exit_code == 99
    assert [one["why"] for one in nightly.json["due"] if one["lang"] == "ja"] == ["pinned to version 1"]
    again = program(root, "pin", "--lang", "ja", "--json")
    assert again.json == {"lang": "ja", "version": 1, "changed": False}
    bring_new_rows(root, "de")
    other = program(root, "update", "--lang", "de", "--json")
    assert other.exit_code == 0, other.err
    status = program(root, "status", "--json").json
    assert {lang: pin["version"] for lang, pin in status["champion"]["adapters"].items()} == {"de": 2, "en": 1, "ja": 1}
    assert program(root, "unpin", "--lang", "ja", "--json").json == {"lang": "ja", "version": 1}
    assert program(root, "unpin", "--lang", "ja").exit_code == 2
    assert program(root, "pin", "--lang", "ja", "--version", "9").exit_code == 2


def test_files_that_were_swapped_are_never_pointed_at(waiting: Path, program: Programs) -> None:
    registry = registry_of(waiting)
    location = registry.connection.client.get_logged_model(registry.version(MERGED, 2).model_id).artifact_location
    file = Path(location.removeprefix("file://")) / "adapter_model.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    set_tag(waiting, 2, "review", "approved")
    for command in (("promote",), ("promote", "--approved"), ("promote", "--version", "2")):
        refused = program(waiting, *command)
        assert refused.exit_code == 6
        assert "the file adapter_model.safetensors is not the one that was published" in refused.err
    assert registry_of(waiting).aliases(MERGED) == {"candidate": 2, "champion": 1}
