"""Telling running servers of a release: load the new one under a new name, verify, and only then drop the old ones.

Names carry the version, so that a name never changes its meaning while somebody uses it, and vLLM, which keeps what it
has computed by name and path, never mixes two releases. Everything may be repeated: what is loaded already is only
verified, what is gone already is not dropped again.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from adapterctl.endpoint import Endpoint
from adapterctl.errors import AdapterctlError, EndpointError
from adapterctl.lora.untrusted import shown
from adapterctl.serving.checks import is_the_base
from adapterctl.serving.targets import Target

KEY = "VLLM_API_KEY"
"""The environment variable that vLLM itself reads its key from."""

_HINTS = {
    401: "set the environment variable {key} to the server's key",
    403: "set the environment variable {key} to a key that may load adapters",
    404: "start the server so that it can load adapters: {switch}; where it says that it finds no adapter, it sees the "
    "folder under another path: say which with --server-path",
}
_OTHER_HINT = "look into the log of the server, and check how it was started with what serving.json says"
_AGAIN = "mend that and run the same command again: it goes on from here"


@dataclass(frozen=True)
class Card:
    """One model that a server says it serves.

    Attributes:
        name: What requests call it.
        root: Where it was loaded from.
        parent: Name of the base model, for an adapter.
    """

    name: str
    root: str
    parent: str


@dataclass(frozen=True)
class Notice:
    """What a server shall serve.

    Attributes:
        name: What it shall call the adapter; ends with the version.
        path: The folder, as the server sees it.
        prefix: What the names of earlier releases begin with, before ``-v`` and their number.
        bases: What the base model may be called.
        place: The folder in which the base model lies here; empty where it is in none.
    """

    name: str
    path: str
    prefix: str
    bases: tuple[str, ...]
    place: str = ""

    def is_earlier(self, name: str) -> bool:
        """Tell whether a name is that of another release of the same project."""
        return name != self.name and re.fullmatch(re.escape(self.prefix) + r"-v\d+(-r\d+)?", name) is not None


@dataclass(frozen=True)
class Notified:
    """What became of a server.

    Attributes:
        url: Its address, without secrets.
        name: What it serves the release as.
        loaded: Whether it was loaded now; else it had been before.
        unloaded: The earlier releases that were dropped.
        kept: The earlier releases that are still loaded.
    """

    url: str
    name: str
    loaded: bool
    unloaded: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()


class Server:
    """One running server."""

    def __init__(self, url: str, target: Target, *, api_key_env: str = KEY, timeout: float = 300.0) -> None:
        """Prepare to talk; nothing is asked yet.

        Args:
            url: ``http://host:port``, with or without ``/v1``.
            target: What kind of server it is.
            api_key_env: The environment variable that holds the key.
            timeout: Seconds to wait for one answer: loading takes a while.

        Raises:
            UsageError: ``url`` is not an address.
        """
        hints = {status: hint.replace("{switch}", target.switch) for status, hint in _HINTS.items()}
        self._endpoint = Endpoint(
            url,
            api_key_env=api_key_env,
            connections=1,
            timeout=timeout,
            retries=0,
            hints=hints,
            other_hint=_OTHER_HINT,
        )
        self._target = target

    @property
    def shown(self) -> str:
        """Its address, without secrets."""
        return self._endpoint.shown

    def close(self) -> None:
        """Close the connection."""
        self._endpoint.close()

    def models(self) -> list[Card]:
        """Return what the server says it serves.

        Raises:
            EndpointError: It cannot be reached, refuses, or answers with something else.
        """
        try:
            answer = self._endpoint.get("models")
        except AdapterctlError as error:
            raise EndpointError(error.message, hint=error.hint) from error
        entries = answer.get("data") if isinstance(answer, dict) else None
        if not isinstance(entries, list) or not all(isinstance(one, dict) and one.get("id") for one in entries):
            raise EndpointError(
                f"{self.shown}/models does not answer with a list of models", hint="check the URL of the server"
            )
        return [Card(*(str(one.get(key) or "") for key in ("id", "root", "parent"))) for one in entries]

    def require_base(self, notice: Notice) -> Card:
        """Return the base model that the server serves.

        Raises:
            EndpointError: It cannot be asked, or serves another one: an adapter would be loaded all the same, and
                would answer with nonsense.
        """
        bases = [card for card in self.models() if not card.parent]
        for card in bases:
            if is_the_base((card.name, card.root), notice.bases, notice.place):
                return card
        told = ", ".join(shown(card.root or card.name, 80) for card in bases) or "none"
        raise EndpointError(
            f"{self.shown} serves another base model ({told}) than the release was made on ({notice.bases[0]})",
            hint="give the URL of a server of that model; where it is the same under another name, say so: "
            "--server-base NAME",
        )

    def load(self, notice: Notice) -> Notified:
        """Load a release under its name, and verify that it answers; where it is loaded already, verify it.

        Nothing else is touched. Where the verification fails, what was loaded now is dropped again.

        Raises:
            EndpointError: It cannot be loaded or does not answer; the message says what is loaded now.
        """
        base = self.require_base(notice)
        before = self._card(notice.name)
        if before is not None and before.root != notice.path:
            raise self._failed(
                f"{self.shown} serves {notice.name} already, from another folder ({shown(before.root)})",
                "drop it there first, or choose another name with --name",
            )
        if before is None:
            self._order_load(notice)
        with self._undone_unless_good(notice, fresh=before is None):
            card = self._card(notice.name)
            if card is None or card.root != notice.path:
                raise EndpointError(
                    f"{self.shown} took {notice.name}, and does not list it with the folder {notice.path}",
                    hint="check the URL; a proxy or several servers may answer there",
                )
            self._ask_for_a_token(notice, base)
        return Notified(self.shown, notice.name, loaded=before is None)

    def unload_earlier(self, notice: Notice) -> tuple[str, ...]:
        """Drop the earlier releases, and return their names.

        Raises:
            EndpointError: One cannot be dropped; the message says what is loaded now.
        """
        earlier = self.earlier(notice)
        for name in earlier:
            try:
                self._endpoint.order(self._target.unload, {"lora_name": name})
            except AdapterctlError as error:
                if self._card(name) is not None:
                    raise self._failed(f"{name} could not be dropped: {error.message}", error.hint) from error
        now = {card.name for card in self.models()}
        if left := sorted(now & set(earlier)):
            raise self._failed(f"{', '.join(left)} could not be dropped", "check the URL; a proxy may answer there")
        if notice.name not in now:
            raise self._failed(f"somebody dropped {notice.name} meanwhile", "")
        return earlier

    def earlier(self, notice: Notice) -> tuple[str, ...]:
        """Return the names of the earlier releases that are loaded.

        Raises:
            EndpointError: The server cannot be asked.
        """
        return tuple(sorted(card.name for card in self.models() if card.parent and notice.is_earlier(card.name)))

    def _card(self, name: str) -> Card | None:
        return next((card for card in self.models() if card.name == name), None)

    def _order_load(self, notice: Notice) -> None:
        try:
            self._endpoint.order(self._target.load, {"lora_name": notice.name, "lora_path": notice.path})
        except AdapterctlError as error:
            # An answer that was lost, or another export at the same time: the list of models says how it ended.
            card = self._card_if_it_answers(notice.name)
            if card is None or card.root != notice.path:
                raise self._failed(f"{notice.name} could not be loaded: {error.message}", error.hint) from error

    def _ask_for_a_token(self, notice: Notice, base: Card) -> None:
        body: dict[str, Any] = {"model": notice.name, "prompt": "1", "max_tokens": 1, "temperature": 0}
        if self._target.names_by_field:
            body |= {"model": base.name, "lora_path": notice.name}
        answer = self._endpoint.post("completions", body)
        choices = answer.get("choices") if isinstance(answer, dict) else None
        first = choices[0] if isinstance(choices, list) and choices else None
        if not isinstance(first, dict) or not isinstance(first.get("text"), str):
            raise EndpointError(
                f"{self.shown} does not complete a text with {notice.name}: {shown(answer)}", hint=_OTHER_HINT
            )
        if (told := answer.get("model")) != body["model"]:
            raise EndpointError(
                f"{self.shown} was asked for {body['model']} and answers as {shown(told)}",
                hint="check the URL; a proxy may send requests elsewhere",
            )

    @contextmanager
    def _undone_unless_good(self, notice: Notice, *, fresh: bool) -> Iterator[None]:
        try:
            yield
        except AdapterctlError as error:
            if fresh:
                with suppress(AdapterctlError):  # What is loaded now is told below.
                    self._endpoint.order(self._target.unload, {"lora_name": notice.name})
            raise self._failed(f"{notice.name} was loaded, and failed: {error.message}", error.hint) from error

    def _card_if_it_answers(self, name: str) -> Card | None:
        try:
            return self._card(name)
        except EndpointError:
            return None

    def _failed(self, message: str, hint: str) -> EndpointError:
        """Return an error that says what is loaded now."""
        try:
            names = [shown(card.name, 80) for card in self.models() if card.parent]
            now = f"loaded there now: {', '.join(names) or 'no adapter'}"
        except EndpointError:
            now = "what is loaded there now cannot be asked"
        return EndpointError(f"{message}; {now}", hint=f"{hint}; {_AGAIN}" if hint else _AGAIN)


@contextmanager
def servers(urls: Sequence[str], target: Target, *, api_key_env: str = KEY) -> Iterator[list[Server]]:
    """Give the servers at some addresses, and close the connections at the end.

    Raises:
        UsageError: One of them is not an address.
    """
    opened: list[Server] = []
    try:
        for url in urls:
            opened.append(Server(url, target, api_key_env=api_key_env))
        yield opened
    finally:
        for server in opened:
            server.close()
