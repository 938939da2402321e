import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

import adapterctl
from adapterctl.errors import LockHeld
from adapterctl.workspace.workspace import Workspace

HOLDER = """
import sys
from adapterctl.workspace.workspace import Workspace
with Workspace.open(sys.argv[1]).lock("adapterctl update --lang ja"):
    {child}
    print("held", flush=True)
    input()
"""
FORK = "import os; child = os.fork(); (child == 0 and (os.close(1), __import__('time').sleep(60)))"


def hold(root, child="pass"):
    environment = {**os.environ, "PYTHONPATH": str(Path(adapterctl.__file__).parents[1])}
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER.format(child=child), str(root)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment,
        start_new_session=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"held\n"
    return process


def end(process, kind):
    os.kill(process.pid, kind)
    process.wait()
    process.stdin.close()
    process.stdout.close()


def test_a_held_lock_names_its_holder_and_is_free_after_kill_9(root):
    workspace = Workspace.open(root)
    holder = hold(root)
    with pytest.raises(LockHeld) as caught, workspace.lock("adapterctl merge"):
        pass
    assert caught.value.exit_code == 4
    assert f"process {holder.pid} on " in caught.value.message
    assert "'adapterctl update --lang ja' since 20" in caught.value.message
    assert f"kill {holder.pid}" in caught.value.hint
    end(holder, signal.SIGKILL)
    with workspace.lock("adapterctl merge"):
        assert json.loads(workspace.paths.holder.read_text())["pid"] == os.getpid()
    assert not workspace.paths.holder.exists()


def test_a_killed_process_frees_the_lock_although_a_child_of_it_lives_on(root):
    holder = hold(root, FORK)
    end(holder, signal.SIGKILL)
    try:
        with Workspace.open(root).lock("x"):
            pass
    finally:
        os.killpg(holder.pid, signal.SIGKILL)


def test_the_lock_is_released_after_an_error_and_can_be_taken_again(root):
    workspace = Workspace.open(root)
    with pytest.raises(RuntimeError), workspace.lock("x"):
        raise RuntimeError
    with workspace.lock("y"):
        pass


def test_the_lock_is_held_within_one_process_too(root):
    workspace = Workspace.open(root)
    with workspace.lock("x"), pytest.raises(LockHeld), workspace.lock("y"):
        pass
    with workspace.lock("z"):
        pass


@pytest.mark.parametrize("left", ["{", "[]", '{"pid": "x"}', "of the dead"])
def test_a_holder_that_has_not_written_its_name_is_told_without_one(root, left):
    workspace = Workspace.open(root)
    if left == "of the dead":
        dead = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
        left = json.dumps({"pid": int(dead.stdout), "machine": socket.gethostname(), "command": "update"})
    with workspace.lock("x"):
        workspace.paths.holder.write_text(left)
        with pytest.raises(LockHeld) as caught, workspace.lock("y"):
            pass
    assert caught.value.message == "another adapterctl works on this workspace"
