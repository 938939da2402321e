"""Differences between versions, and the list of releases, of a project with releases behind it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from tests.support.cli import invoke
from tests.support.past import make_past, mlflow_registry, session_of
from tests.support.program import Programs

from adapterctl.workflows.changes import Change
from adapterctl.workflows.diff import Diff, diff
from adapterctl.workflows.review import history

MERGED = "scale-merged"


@pytest.fixture(scope="session")
def past(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three releases of two languages: a set-up, then new rows of de, then of ja; do not change it."""
    return make_past(tmp_path_factory.mktemp("past") / "workspace", ("de", "ja"), releases=3)


@pytest.fixture
def mine(past: Path, tmp_path: Path) -> Path:
    """A copy, to do anything with it."""
    return Path(shutil.copytree(past, tmp_path / "workspace"))


def read(root: Path, before: str, after: str) -> Diff:
    return diff(session_of(root), before, after)


def rewrite(root: Path, version: int, **values: object) -> None:
    """Change what a release tells."""
    registry = mlflow_registry(root)
    path = Path(registry.artifacts_of(registry.version(MERGED, version).run_id)) / "release.json"
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | values), encoding="utf-8")


def test_only_the_adapters_that_differ_are_told(past: Path) -> None:
    found = read(past, "merged/1", "champion")
    assert found.adapters == (Change("de", 1, 2), Change("ja", 1, 2))
    assert read(past, "previous", "champion").adapters == (Change("ja", 1, 2),)
    assert (found.before.version, found.after.version, found.after.aliases) == (1, 3, ("champion",))
    assert (found.before.gate, found.after.gate, found.after.compared_with) == ("first", "passed", 2)
    assert found.same_base
    assert not found.same_content


def test_the_rows_of_every_language_that_differs(past: Path) -> None:
    (german, japanese) = read(past, "merged/1", "merged/3").data
    # Made so: 3 fewer at the set-up, none in the latest.
    assert (german.lang, german.before, german.after, german.rows_before, german.rows_after) == ("de", 1, 2, 5, 8)
    assert (japanese.rows_before, japanese.rows_after, japanese.same) == (5, 8, False)
    assert (german.added, german.removed) == (None, None)


def test_a_version_and_itself(past: Path) -> None:
    found = read(past, "champion", "merged/3")
    assert found.same_content
    assert (found.adapters, found.recipe, found.data) == ((), (), ())
    assert {cell.difference for cell in found.scores} == {0.0}
    said = invoke("-C", past, "diff", "champion", "merged/3").out
    assert "Both are the same adapter, byte by byte." in said
    assert "Adapters: the same" in said


def test_recipe_lambda_base_and_code(mine: Path) -> None:
    recipe = {"method": "ties", "weights": {"ja": 2.0}}
    rewrite(mine, 1, recipe=recipe, scale=0.7, base_identity="another", code={"training": 1, "merging": 4})
    rewrite(mine, 3, recipe=recipe | {"method": "core-tsv"}, code={"training": 1, "merging": 5})
    found = read(mine, "merged/1", "merged/3")
    assert found.recipe == (Change("lambda", 0.7, 0.3), Change("method", "ties", "core-tsv"))
    assert found.code == (Change("merging", 4, 5),)
    assert not found.same_base
    said = invoke("-C", mine, "diff", "merged/1", "merged/3").out
    assert "Recipe method: ties → core-tsv" in said
    assert "Code merging: 4 → 5" in said
    assert "Base model: pocket another → pocket" in said


def test_a_language_that_came(mine: Path) -> None:
    registry = mlflow_registry(mine)
    release = json.loads(
        (Path(registry.artifacts_of(registry.version(MERGED, 1).run_id)) / "release.json").read_text(encoding="utf-8")
    )
    del release["adapters"]["ja"]
    rewrite(mine, 1, adapters=release["adapters"])
    found = read(mine, "merged/1", "merged/2")
    assert Change("ja", None, 1) in found.adapters
    assert "Adapter ja: none → v1; 5 rows" in invoke("-C", mine, "diff", "merged/1", "merged/2").out


def test_what_the_books_do_not_tell_is_not_zero(past: Path) -> None:
    found = read(past, "previous", "champion")
    assert found.cost.seconds_before is found.cost.money_after is None
    said = invoke("-C", past, "diff", "previous", "champion").out
    assert "Time to make it: not on the books → not on the books" in said


def test_a_replaced_or_deleted_adapter_does_no_harm(mine: Path) -> None:
    registry = mlflow_registry(mine)
    registry.connection.client.delete_model_version("scale-de", "1")
    registry.set_version_tags(registry.version("scale-ja", 1), {"adapterctl.content_hash": "f" * 64})
    (german, japanese) = read(mine, "merged/1", "merged/3").data
    assert (german.rows_before, german.rows_after) == (5, 8)
    assert (japanese.rows_before, japanese.added) == (5, None)


def test_two_adapters_of_a_language(mine: Path) -> None:
    registry = mlflow_registry(mine)
    for number, epochs in ((1, 2), (2, 5)):
        run_id = registry.version("scale-ja", number).run_id
        registry.connection.client.log_param(run_id, "training.epochs", epochs)
        registry.connection.client.log_param(run_id, "rows", number)
    found = read(mine, "ja/1", "ja@champion")
    assert found.recipe == (Change("training.epochs", "2", "5"),)
    assert [(one.lang, one.before, one.after) for one in found.data] == [("ja", 1, 2)]
    assert found.scores == ()
    registry.connection.client.delete_run(registry.version("scale-ja", 1).run_id)
    assert "Adapter ja: v1 → v2; 5 → 8 rows" in invoke("-C", mine, "diff", "ja/1", "ja/2").out


@pytest.mark.parametrize("names", [("champion", "ja/1"), ("de/1", "ja/1"), ("merged/1", "merged/9"), ("x", "champion")])
def test_what_cannot_be_compared(past: Path, names: tuple[str, str]) -> None:
    done = invoke("-C", past, "diff", *names, "--json")
    assert (done.exit_code, done.json["error"]["type"]) == (2, "UsageError")
    assert done.json["error"]["hint"]


def test_both_ways_of_reading_tell_the_same(past: Path) -> None:
    quick, slow = session_of(past), session_of(past)
    slow.quick = False
    assert type(slow.registry.connection) is not type(quick.registry.connection)
    for names in (("merged/1", "champion"), ("ja/1", "ja/2")):
        assert diff(quick, *names).as_dict() == diff(slow, *names).as_dict()
    assert [one.as_dict() for one in history(quick)] == [one.as_dict() for one in history(slow)]


def test_the_history_is_read_from_the_tags_alone(mine: Path) -> None:
    for path in (mine / "registry/artifacts").rglob("release.json"):
        path.unlink()
    found = invoke("-C", mine, "history", "--json").json["releases"]
    assert [one["version"] for one in found] == [3, 2, 1]
    assert [(one["reason"], one["gate"], one["aliases"]) for one in found] == [
        ("update ja", "passed", ["champion"]), ("update de", "passed", ["previous"]), ("setup", "first", []),
    ]  # fmt: skip
    assert found[0]["adapters"] == {"scale-de": 2, "scale-ja": 2}
    assert found[0]["scale"] == 0.3
    assert 0.5 < found[0]["average"] < 0.9
    (event,) = found[0]["events"]
    assert (event["what"], event["reason"]) == ("promoted", "nightly")


def test_releases_from_before_the_tags_are_read_from_their_files(mine: Path) -> None:
    before = invoke("-C", mine, "history", "--json").json
    client = mlflow_registry(mine).connection.client
    for number in ("1", "2", "3"):
        for tag in ("lambda", "average", "inputs", "gate", "reason"):
            client.delete_model_version_tag(MERGED, number, f"adapterctl.{tag}")
    assert invoke("-C", mine, "history", "--json").json == before
    registry = mlflow_registry(mine)
    (Path(registry.artifacts_of(registry.version(MERGED, 2).run_id)) / "release.json").unlink()
    found = invoke("-C", mine, "history", "--json").json["releases"]
    assert [(one["version"], one["gate"]) for one in found] == [(3, "passed"), (2, "unreadable"), (1, "first")]


def test_the_newest_few_and_who_decided(mine: Path) -> None:
    registry = mlflow_registry(mine)
    registry.set_version_tags(registry.version(MERGED, 3), {"review": " Approved "})
    done = invoke("-C", mine, "history", "--limit", "2")
    assert done.exit_code == 0, done.err
    assert "v3" in done.out
    assert "v1" not in done.out
    assert "approved" in done.out
    assert "nightly" in done.out
    assert invoke("-C", mine, "history", "--limit", "0").exit_code == 2


@pytest.mark.parametrize(
    ("tag", "value"),
    [("events", "[{}]"), ("events", "[" * 9999), ("lambda", "nan"), ("average", "much"), ("inputs", ":: x:0 9")],
)
def test_tags_that_somebody_has_damaged(mine: Path, tag: str, value: str) -> None:
    registry = mlflow_registry(mine)
    registry.set_version_tags(registry.version(MERGED, 3), {f"adapterctl.{tag}": value})
    found = invoke("-C", mine, "history", "--json").json["releases"][0]
    assert found["version"] == 3
    assert found[{"lambda": "scale", "inputs": "adapters"}.get(tag, tag)] in (None, [], {})


def test_an_update_that_was_really_made(updated: Path, program: Programs) -> None:
    found = program(updated, "diff", "previous", "champion", "--json").json
    assert [(one["key"], one["before"], one["after"]) for one in found["adapters"]] == [("ja", 1, 2)]
    # 22 rows in the workspace; 22 more came, and none went.
    (data,) = found["data"]
    assert (data["rows_before"], data["rows_after"], data["added"], data["removed"]) == (22, 44, 22, 0)
    # The champion was measured on the new test rows too, so that the two can be compared.
    assert {cell["why_not"] for cell in found["scores"]} == {""}
    assert len(found["scores"]) == 9
    for side in ("before", "after"):
        for what in ("seconds", "money"):
            amount = found["cost"][f"{what}_{side}"]
            assert amount["measured"]
            assert amount["value"] > 0
    assert found["code"] == []
    assert found["notes"] == []
    said = program(updated, "diff", "ja/1", "ja/2").out
    assert "22 → 44 rows: 22 added, 0 removed" in said
    assert "Recipe training.epochs: 2 → 1" in said
