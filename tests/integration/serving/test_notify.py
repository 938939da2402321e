"""``--notify``: the new release loaded and answering before the old one goes; whatever fails, the old one stays."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from tests.support.lora_server import LoraServer
from tests.support.program import Programs

from adapterctl import Workspace
from adapterctl.errors import EndpointError
from adapterctl.serving.notify import Notice, Server, servers
from adapterctl.serving.targets import TARGETS
from adapterctl.workflows.export import Export

Start = Callable[..., LoraServer]
KEY = "sk-very-secret"
OLD, NEW = "pocket-merged-v1", "pocket-merged-v2"


@pytest.fixture
def start() -> Iterator[Start]:
    """Start servers that end with the test."""
    with ExitStack() as stack:
        yield lambda base="base", **settings: stack.enter_context(LoraServer(base, **settings))


def hand_over(root: Path, server: LoraServer | str, release: str = "champion", **how: Any) -> Export:
    """Export and tell one server."""
    url = server if isinstance(server, str) else server.url
    target = "vllm" if isinstance(server, str) else server.kind
    return Workspace.open(root).export(root / "serving", release, target, notify=[url], **how)


def current(root: Path) -> str:
    link = root / "serving" / "pocket-merged" / "current"
    return os.readlink(link) if link.is_symlink() else ""


@pytest.mark.parametrize("kind", ["vllm", "sglang"])
def test_new_is_loaded_and_answers_before_old_goes(root: Path, start: Start, kind: str) -> None:
    server = start(kind=kind)
    first = hand_over(root, server, "previous")
    assert (first.notified[0].loaded, first.notified[0].unloaded) == (True, ())
    server.asked.clear()
    second = hand_over(root, server)
    said = second.notified[0]
    assert (said.name, said.loaded, said.unloaded, said.kept) == (NEW, True, (OLD,), ())
    assert server.loaded == {NEW: str(second.folder)}
    steps = [step for step in server.did() if step != "models"]
    assert steps == [f"load {NEW}", "completions", f"unload {OLD}"]
    assert first.folder != second.folder
    # And back again, as after a rollback.
    hand_over(root, server, "previous")
    assert server.loaded == {OLD: str(first.folder)}


def test_again_is_nothing_but_looking(root: Path, start: Start) -> None:
    server = start()
    made = hand_over(root, server)
    server.asked.clear()
    again = hand_over(root, server)
    assert (again.notified[0].loaded, again.reused) == (False, True)
    assert set(server.did()) == {"models", "completions"}
    assert server.loaded == {NEW: str(made.folder)}


def test_old_may_stay(root: Path, start: Start) -> None:
    server = start()
    hand_over(root, server, "previous")
    made = hand_over(root, server, keep_old=True)
    assert made.notified[0].kept == (OLD,)
    assert set(server.loaded) == {OLD, NEW}


def test_what_is_not_ours_stays(root: Path, start: Start, tmp_path: Path) -> None:
    server, folder = start(), hand_over_folder(root)
    others = ("pocket-merged", "pocket-merged-vx", "pocket-merged-v1-mine", "other-merged-v1", "pocket-merged-v01x")
    for name in others:
        server.preload(name, folder)
    hand_over(root, server)
    assert set(server.loaded) == {*others, NEW}


def hand_over_folder(root: Path) -> Path:
    return Workspace.open(root).export(root / "before", "previous").folder


def test_another_name(root: Path, start: Start) -> None:
    server = start()
    hand_over(root, server, "previous", name="chat")
    hand_over(root, server, name="chat")
    assert list(server.loaded) == ["chat-v2"]


def test_the_server_sees_the_folder_under_another_path(root: Path, start: Start) -> None:
    server = start(below=root / "serving")
    with pytest.raises(EndpointError, match="No adapter found") as caught:
        hand_over(root, server)
    assert "--server-path" in caught.value.hint
    made = hand_over(root, server, server_path="/adapters")
    assert server.loaded == {NEW: f"/adapters/pocket-merged/{made.folder.name}"}


@pytest.mark.parametrize(("base", "name"), [("base", ""), ("/models/base", "gpt-4"), ("/models/x", "base")])
def test_the_base_by_any_of_its_names(root: Path, start: Start, base: str, name: str) -> None:
    assert hand_over(root, start(base, name=name)).notified[0].loaded


def test_another_base_is_refused_before_anything_is_loaded(root: Path, start: Start) -> None:
    server = start("meta-llama/other", name="gpt-4")
    with pytest.raises(EndpointError, match=r"another base model \(meta-llama/other\).*\(base\)") as caught:
        hand_over(root, server)
    assert "--server-base" in caught.value.hint
    assert server.did() == ["models"]
    assert current(root) == ""
    assert hand_over(root, server, server_base="gpt-4").notified[0].loaded


def test_a_server_that_cannot_load(root: Path, start: Start) -> None:
    with pytest.raises(EndpointError, match="HTTP 404") as caught:
        hand_over(root, start(dynamic=False))
    assert "VLLM_ALLOW_RUNTIME_LORA_UPDATING=True" in caught.value.hint
    assert "loaded there now: no adapter" in caught.value.message


def test_a_rank_that_the_server_was_not_started_for(root: Path, start: Start) -> None:
    server = start(max_rank=1)
    with pytest.raises(EndpointError, match="rank 4 is greater than max_lora_rank 1"):
        hand_over(root, server)
    assert server.loaded == {}
    made = hand_over(root, server, max_lora_rank=1, fit=True)
    assert server.loaded == {f"{NEW}-r1": str(made.folder)}
    # The fitted one is an earlier release to the next, too.
    server.max_rank = 16
    hand_over(root, server)
    assert list(server.loaded) == [NEW]


FAULTS = [
    ("/v1/load_lora_adapter", "broken"),
    ("/v1/load_lora_adapter", "html"),
    ("/v1/completions", "broken"),
    ("/v1/completions", "html"),
    ("/v1/completions", "no-choice"),
    ("/v1/completions", "wrong-model"),
]


@pytest.mark.parametrize(("path", "fault"), FAULTS)
def test_whatever_fails_the_old_one_stays(root: Path, start: Start, path: str, fault: str) -> None:
    server = start()
    first = hand_over(root, server, "previous")
    server.faults[path] = fault
    with pytest.raises(EndpointError) as caught:
        hand_over(root, server)
    assert server.loaded == {OLD: str(first.folder)}
    assert f"loaded there now: {OLD}" in caught.value.message
    assert "run the same command again" in caught.value.hint
    assert current(root) == first.folder.name
    server.faults.clear()
    hand_over(root, server)
    assert list(server.loaded) == [NEW]
    assert current(root).startswith("v2-")


@pytest.mark.parametrize("fault", ["elsewhere", "html"])
def test_a_list_that_does_not_fit(root: Path, start: Start, fault: str) -> None:
    server = start()
    hand_over(root, server, "previous")
    server.faults["/v1/models"] = fault
    with pytest.raises(EndpointError):
        hand_over(root, server)
    assert OLD in server.loaded
    assert current(root).startswith("v1-")


def test_an_answer_that_was_lost_is_looked_for(root: Path, start: Start) -> None:
    server = start()
    hand_over(root, server, "previous")
    server.faults["/v1/load_lora_adapter"] = server.faults["/v1/unload_lora_adapter"] = "lost"
    assert hand_over(root, server).notified[0].unloaded == (OLD,)
    assert list(server.loaded) == [NEW]


def test_an_old_one_that_does_not_go_is_told(root: Path, start: Start) -> None:
    server = start()
    hand_over(root, server, "previous")
    server.faults["/v1/unload_lora_adapter"] = "broken"
    with pytest.raises(EndpointError, match=f"loaded there now: {OLD}, {NEW}"):
        hand_over(root, server)
    assert current(root).startswith("v2-")
    server.faults.clear()
    assert hand_over(root, server).notified[0].unloaded == (OLD,)


def test_no_server_loses_the_old_one_before_all_have_the_new_one(root: Path, start: Start) -> None:
    good, bad = start(), start()
    urls = [good.url, bad.url]
    Workspace.open(root).export(root / "serving", "previous", "vllm", notify=urls)
    bad.faults["/v1/completions"] = "broken"
    with pytest.raises(EndpointError):
        Workspace.open(root).export(root / "serving", "champion", "vllm", notify=urls)
    assert set(good.loaded) == {OLD, NEW}
    assert set(bad.loaded) == {OLD}
    bad.faults.clear()
    made = Workspace.open(root).export(root / "serving", "champion", "vllm", notify=urls)
    assert [one.loaded for one in made.notified] == [False, True]
    assert set(good.loaded) == set(bad.loaded) == {NEW}


def test_a_name_that_is_taken_is_not_loaded_over(root: Path, start: Start) -> None:
    server, folder = start(), hand_over_folder(root)
    server.preload(NEW, folder)
    with pytest.raises(EndpointError, match=f"serves {NEW} already, from another folder") as caught:
        hand_over(root, server)
    assert "--name" in caught.value.hint
    assert server.loaded == {NEW: str(folder)}


def test_other_bytes_never_come_under_a_known_name_and_path(root: Path, start: Start) -> None:
    server = start()
    for _ in range(2):
        for release in ("previous", "champion"):
            hand_over(root, server, release)
    # What was kept for each name and path is of the bytes that are loaded under it.
    assert len(server.kept) == 2
    assert len(set(server.kept.values())) == 2
    for (name, _), text in server.kept.items():
        assert server.content[name].startswith(text)


def test_nobody_there(root: Path, start: Start) -> None:
    server = start()
    server.__exit__(None, None, None)
    with pytest.raises(EndpointError, match="cannot be reached"):
        hand_over(root, server)
    assert current(root) == ""


def test_a_silent_server_is_not_waited_for_without_end(start: Start) -> None:
    server = start()
    server.faults["/v1/load_lora_adapter"] = "silent"
    notice = Notice(NEW, "/x", "pocket-merged", ("base",))
    one = Server(server.url, TARGETS["vllm"], timeout=0.2)
    with pytest.raises(EndpointError, match=r"does not answer within 0\.2 s; loaded there now: no adapter"):
        one.load(notice)
    one.close()


def test_the_key_goes_along_and_is_never_told(root: Path, start: Start, program: Programs) -> None:
    server = start(key=KEY)
    url = server.url.replace("http://", "http://somebody:pass-word-1@")
    args = ("export", "serving", "--target", "vllm", "--notify", server.url)
    refused = program(root, *args)
    assert refused.exit_code == 5
    assert "VLLM_API_KEY" in refused.err
    server.faults["/v1/load_lora_adapter"] = "broken"
    broken = program(root, *args, VLLM_API_KEY=KEY)
    assert broken.exit_code == 5
    server.faults.clear()
    done = program(root, *args, "--json", VLLM_API_KEY=KEY)
    assert done.json["notified"] == [
        {"url": f"{server.url}/v1", "name": NEW, "loaded": True, "unloaded": [], "kept": []}
    ]
    other = program(root, *args, "--api-key-env", "MY_KEY", MY_KEY=KEY)
    assert other.exit_code == 0
    named = program(root, "export", "serving", "--target", "vllm", "--notify", url, VLLM_API_KEY=KEY)
    told = "".join(one.out + one.err for one in (refused, broken, done, other, named))
    assert KEY not in told
    assert "pass-word-1" not in told
    for path in (root / "serving").rglob("*"):
        assert not path.is_file() or KEY.encode() not in path.read_bytes()
    assert f"{NEW} loaded already, and answers" in other.out


@pytest.mark.parametrize(
    "at",
    [
        ("adapterctl.serving.notify:Server.require_base", "after"),
        ("adapterctl.serving.notify:Server._order_load", "after"),
        ("adapterctl.serving.notify:Server.load", "after"),
        ("adapterctl.serving.shelf:Shelf.point", "after"),
        ("adapterctl.serving.notify:Server.unload_earlier", "after"),
    ],
    ids=lambda at: f"{at[1]} {at[0].rsplit('.', 1)[-1]}",
)
def test_a_kill_leaves_a_release_loaded_and_again_finishes(
    root: Path, start: Start, program: Programs, at: tuple[str, str]
) -> None:
    server = start()
    hand_over(root, server, "previous")
    args = ("export", "serving", "--target", "vllm", "--notify", server.url, "--json")
    killed = program(root, *args, trap={"at": at[0], "when": at[1], "do": "kill"})
    assert killed.exit_code == -9
    assert set(server.loaded) & {OLD, NEW}
    done = program(root, *args)
    assert done.exit_code == 0, done.err
    assert server.loaded == {NEW: done.json["folder"]}
    assert current(root) == Path(done.json["folder"]).name


def test_two_hand_overs_at_once(root: Path, start: Start, program: Programs) -> None:
    server = start()
    hand_over(root, server, "previous")
    args = ("export", "serving", "--target", "vllm", "--notify", server.url, "--json")
    done = [one.wait() for one in [program.start(root, *args) for _ in range(3)]]
    assert [one.exit_code for one in done] == [0, 0, 0], [one.err for one in done]
    assert list(server.loaded) == [NEW]


def test_two_hand_overs_of_different_releases_leave_one_loaded(root: Path, start: Start, program: Programs) -> None:
    server = start()
    args = ("export", "serving", "--target", "vllm", "--notify", server.url, "--json")
    first, second = [program.start(root, *args, "--release", name) for name in ("previous", "champion")]
    assert [first.wait().exit_code, second.wait().exit_code] == [0, 0]
    assert len(server.loaded) == 1
    assert Path(next(iter(server.loaded.values()))).name == current(root)


def test_somebody_elsewhere_who_drops_ours_is_told(root: Path, start: Start) -> None:
    server = start()
    hand_over(root, server, "previous")
    unload = server.unload
    server.unload = lambda body: (unload({"lora_name": NEW}), unload(body))[1]  # type: ignore[method-assign]
    with pytest.raises(EndpointError, match=f"somebody dropped {NEW} meanwhile"):
        hand_over(root, server)


def test_an_old_one_that_only_seems_to_go_is_told(root: Path, start: Start) -> None:
    server = start()
    hand_over(root, server, "previous")
    server.faults["/v1/unload_lora_adapter"] = "html"
    with pytest.raises(EndpointError, match=f"{OLD} could not be dropped"):
        hand_over(root, server)


def test_what_says_html_of_itself_is_shown_as_it_is(start: Start) -> None:
    server = start('<b onclick="x()">\x1b[31m')
    with (
        servers([server.url], TARGETS["vllm"]) as [one],
        pytest.raises(EndpointError, match="another base model") as caught,
    ):
        one.require_base(Notice(NEW, "/x", "pocket-merged", ("base",)))
    assert "\x1b" not in str(caught.value)


def test_a_damaged_folder_is_mended_before_anybody_is_told(root: Path, start: Start) -> None:
    server = start()
    made = hand_over(root, server)
    tensors = made.folder / "adapter_model.safetensors"
    whole = tensors.read_bytes()
    tensors.write_bytes(whole[:-1])
    hand_over(root, server)
    assert tensors.read_bytes() == whole
