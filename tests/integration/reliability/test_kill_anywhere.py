"""kill -9 at moments that nobody chose: afterwards all is whole, and the same command ends as if nothing had been.

Twelve moments in every run and forty in a thorough one; ADAPTERCTL_KILLS=400 tries ten times as many. They are drawn
anew only when their number changes.
"""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.support.program import Programs
from tests.support.small_workspace import bring_new_rows, search_in_updates
from tests.support.soundness import check_sound
from tests.support.store import read_store, registry_of
from tests.support.thorough import THOROUGH

from adapterctl.files import unfinished
from adapterctl.randomness import generator
from adapterctl.workspace.workspace import Workspace

Copy = Callable[[Path], Path]
KILLS = int(os.environ.get("ADAPTERCTL_KILLS", "40" if THOROUGH else "12"))
IN_A_ROW = 6
"""So often a workspace is killed before its update may end."""
ROWS = -(-KILLS // IN_A_ROW)
UPDATE = ("update", "--lang", "ja", "--json")


@dataclass(frozen=True)
class Undisturbed:
    """An update that nobody killed, with every step that there can be.

    Attributes:
        before: The workspace in which it has yet to begin; do not change it.
        after: The workspace in which it has ended; do not change it.
        scores: Of its candidate.
        seconds: How long it took.
    """

    before: Path
    after: Path
    scores: dict[str, Any]
    seconds: float


@pytest.fixture(scope="module")
def undisturbed(arrived: Path, program: Programs, tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    folder = tmp_path_factory.mktemp("undisturbed")
    before = Path(shutil.copytree(arrived, folder / "before"))
    search_in_updates(before)
    after = Path(shutil.copytree(before, folder / "after"))
    began = time.monotonic()
    done = program(after, *UPDATE)
    assert done.exit_code == 0, done.err
    return Undisturbed(before, after, done.json["candidate"]["scores"], time.monotonic() - began)


@pytest.mark.slow
@pytest.mark.parametrize("row", range(ROWS))
def test_killed_at_any_moment(undisturbed: Undisturbed, tmp_path: Path, program: Programs, row: int) -> None:
    root, moments = Path(shutil.copytree(undisturbed.before, tmp_path / "0")), generator("kill moments", KILLS, row)
    struck = tries = 0
    while struck < IN_A_ROW:
        tries += 1
        assert tries <= 5 * IN_A_ROW
        running = program.start(root, *UPDATE)
        time.sleep(undisturbed.seconds * moments.random())
        os.kill(running.pid, signal.SIGKILL)
        ended = running.wait()
        assert ended.exit_code in (-signal.SIGKILL, 0), ended.err
        champion = check_sound(registry_of(root))
        assert champion.version in (1, 2)
        if ended.exit_code == 0:
            # It was done before the blow, and there is nothing left to strike: begin with another, in another place,
            # because this process still holds the database of this one open.
            shutil.rmtree(root)
            root = Path(shutil.copytree(undisturbed.before, tmp_path / str(tries)))
        else:
            struck += 1
    done = program(root, *UPDATE)
    assert done.exit_code == 0, done.err
    champion, wanted = check_sound(registry_of(root)), check_sound(registry_of(undisturbed.after))
    assert champion.content_hash == wanted.content_hash
    assert champion.scores == undisturbed.scores
    assert read_store(root).aliases == {"champion": 2, "previous": 1}
    fixed = program(root, "doctor", "--fix", "--json")
    assert fixed.exit_code == 0, fixed.out
    left = [one for one in program(root, "doctor", "--json").json["findings"] if one["level"] != "ok"]
    assert [one for one in left if one["area"] in ("leftovers", "registry", "books", "aliases", "lock")] == []
    assert unfinished(root) == []
    assert not Workspace.open(root).paths.journal.exists()


@pytest.mark.slow
def test_a_term_signal_ends_it_in_order(arrived: Path, updated: Path, copy: Copy, program: Programs) -> None:
    root = copy(arrived)
    mark = root / "mark"
    trap = {"at": "adapterctl.training.checkpoints:save", "when": "before", "do": "wait", "mark": str(mark)}
    running = program.start(root, *UPDATE, trap=trap)
    while not mark.exists():
        time.sleep(0.02)
    began = time.monotonic()
    os.kill(running.pid, signal.SIGTERM)
    ended = running.wait()
    taken = time.monotonic() - began
    assert ended.exit_code == 143
    assert ended.json["error"]["type"] == "Terminated"
    # The promise is ten seconds, kept by a clock of its own; this machine may be busy.
    assert taken < 30
    store = read_store(root)
    assert {status for _, status in store.runs} == {"FINISHED", "KILLED"}
    assert store.leftovers == []
    assert not registry_of(root).locked_by()
    mark.unlink()
    done = program(root, *UPDATE)
    assert done.exit_code == 0, done.err
    assert check_sound(registry_of(root)).content_hash == check_sound(registry_of(updated)).content_hash


def test_a_term_signal_does_not_wait_for_what_does_not_end(arrived: Path, copy: Copy, program: Programs) -> None:
    """Something below Python that never returns: the process ends all the same, and says so."""
    root = copy(arrived)
    mark = root / "mark"
    trap = {"at": "adapterctl.training.checkpoints:save", "when": "before", "do": "hang", "mark": str(mark)}
    running = program.start(root, *UPDATE, trap=trap)
    while not mark.exists():
        time.sleep(0.02)
    os.kill(running.pid, signal.SIGTERM)
    ended = running.wait()
    assert ended.exit_code == 143
    assert ended.json["error"]["message"] == "terminated; run the same command again to go on"
    again = program(root, *UPDATE)
    assert again.exit_code == 0, again.err


def test_rows_that_arrive_between_two_kills_are_learnt(arrived: Path, copy: Copy, program: Programs) -> None:
    root = copy(arrived)
    trap = {"at": "mlflow:MlflowClient.set_registered_model_alias", "when": "after", "call": 3, "do": "kill"}
    assert program(root, *UPDATE, trap=trap).exit_code == -signal.SIGKILL
    bring_new_rows(root, "de")
    done = program(root, "update", "--all-changed", "--json")
    assert done.exit_code == 0, done.err
    champion = check_sound(registry_of(root))
    assert {lang: pin.version for lang, pin in champion.adapters.items()} == {"de": 2, "en": 1, "ja": 2}
