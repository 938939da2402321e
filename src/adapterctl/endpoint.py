"""Requests to a server that speaks HTTP and JSON: tried again where that can help, explained where it cannot.

What is worth another try: no connection, no answer in time, an answer that breaks off, HTTP 408, 429 and 5xx. Any other
refusal would be the same the next time, and is told at once. The key goes into the ``Authorization`` header and nowhere
else; no message holds it.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Mapping
from typing import Any

import httpx

from adapterctl.errors import AdapterctlError, EndpointError, UsageError

_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 30.0
_LONGEST_CONNECTING = 10.0
_TOO_BUSY = {408, 429}
_MOST_SAID = 300


class Endpoint:
    """One server, reached over HTTP.

    Attributes:
        shown: Its address as messages name it: without user, password and query.
    """

    def __init__(
        self,
        url: str,
        *,
        api_key_env: str,
        connections: int,
        timeout: float,
        retries: int,
        hints: Mapping[int, str],
        other_hint: str,
    ) -> None:
        """Prepare requests to ``url``; none is made yet.

        Args:
            url: ``http://host:port``, with or without ``/v1``.
            api_key_env: The environment variable that holds the key; no key is sent where it is not set.
            connections: The most requests at a time.
            timeout: Seconds to wait for an answer; for a connection ten at most.
            retries: How often a request is made again.
            hints: What mends a refusal, by its HTTP status; ``{key}`` stands for ``api_key_env``.
            other_hint: What mends every other refusal.

        Raises:
            UsageError: ``url`` is not an address, or the key cannot stand in a header.
        """
        self._base = _base(url)
        self.shown = str(httpx.URL(self._base).copy_with(username=None, password=None))
        self._hints, self._other_hint = hints, other_hint
        self._secret = httpx.URL(self._base).password
        self._key_name, self._key = api_key_env, os.environ.get(api_key_env, "").strip()
        if not (self._key.isascii() and self._key.isprintable()):
            raise UsageError(
                f"the key in {api_key_env} holds characters that no key has", hint=f"set {api_key_env} again"
            )
        self._retries, self._timeout = retries, timeout
        self._stopped = threading.Event()
        self._client = httpx.Client(
            headers={"Authorization": f"Bearer {self._key}"} if self._key else {},
            timeout=httpx.Timeout(timeout, connect=min(timeout, _LONGEST_CONNECTING)),
            limits=httpx.Limits(max_connections=connections, max_keepalive_connections=connections),
        )

    def get(self, path: str) -> Any:
        """Return the JSON value at a path such as ``models``; one that begins with ``/`` is not below ``/v1``.

        Raises:
            EndpointError: The server cannot be reached, is too busy or broken, or answers with something else.
            UsageError: It refuses the request.
        """
        return self._asked("GET", path, None)

    def post(self, path: str, body: dict[str, Any]) -> Any:
        """Return the JSON value a path answers to ``body``.

        Raises:
            EndpointError: The server cannot be reached, is too busy or broken, or answers with something else.
            UsageError: It refuses the request.
        """
        return self._asked("POST", path, body)

    def order(self, path: str, body: dict[str, Any]) -> None:
        """Have something done at a path; what the answer says beside its status does not matter.

        Raises:
            EndpointError: The server cannot be reached, is too busy or broken.
            UsageError: It refuses the request.
        """
        self._asked("POST", path, body, read=False)

    def stop(self) -> None:
        """End the waiting between two tries: what is asked now fails."""
        self._stopped.set()

    def go(self) -> None:
        """Take back ``stop``."""
        self._stopped.clear()

    def close(self) -> None:
        """Close all connections."""
        self._client.close()

    def _address(self, path: str) -> str:
        return f"{self._base.removesuffix('/v1')}{path}" if path.startswith("/") else f"{self._base}/{path}"

    def _named(self, path: str) -> str:
        return f"{self.shown.removesuffix('/v1')}{path}" if path.startswith("/") else f"{self.shown}/{path}"

    def _asked(self, method: str, path: str, body: dict[str, Any] | None, *, read: bool = True) -> Any:
        for attempt in range(self._retries + 1):
            pause = min(_FIRST_PAUSE * 2**attempt, _LONGEST_PAUSE)
            try:
                response = self._client.request(method, self._address(path), json=body)
            except httpx.RequestError as error:
                failure = self._unreached(error)
            else:
                if response.is_success and not read:
                    return None
                if response.is_success:
                    try:
                        return response.json()
                    except (ValueError, RecursionError):
                        failure = EndpointError(
                            f"{self._named(path)} answers with something that is not JSON: {self._said(response)}",
                            hint="check the URL; a proxy or another program may answer there",
                        )
                elif response.status_code in _TOO_BUSY or response.status_code >= 500:
                    failure = self._broken(path, response)
                    pause = _wished_pause(response, pause)
                else:
                    raise self._refused(path, response)
            if attempt == self._retries or self._stopped.wait(pause):
                break
        raise self._given_up(failure, attempt + 1)

    def _unreached(self, error: httpx.RequestError) -> EndpointError:
        if isinstance(error, httpx.TimeoutException) and not isinstance(error, httpx.ConnectTimeout):
            return EndpointError(
                f"{self.shown} does not answer within {self._timeout:g} s",
                hint="ask for less at a time or wait longer: a lower concurrency, a longer timeout",
            )
        reason = " ".join(str(error).split()) or type(error).__name__
        return EndpointError(
            f"{self.shown} cannot be reached: {self._hidden(reason)}",
            hint="check that the server runs and that the URL names its host and port",
        )

    def _broken(self, path: str, response: httpx.Response) -> EndpointError:
        busy = response.status_code in _TOO_BUSY
        return EndpointError(
            f"{self._named(path)} answers with HTTP {response.status_code}: {self._said(response)}",
            hint="try again later, or with a lower concurrency" if busy else "look into the log of the server",
        )

    def _refused(self, path: str, response: httpx.Response) -> UsageError:
        hint = self._hints.get(response.status_code, self._other_hint).format(key=self._key_name)
        if response.is_redirect:
            hint = f"give the URL that it points to: {self._hidden(response.headers.get('location', ''))}"
        return UsageError(
            f"{self._named(path)} refuses the request with HTTP {response.status_code}: {self._said(response)}",
            hint=hint,
        )

    def _given_up(self, failure: EndpointError, tries: int) -> AdapterctlError:
        after = f" ({tries} tries)" if tries > 1 else ""
        return EndpointError(f"{failure.message}{after}", hint=failure.hint)

    def _said(self, response: httpx.Response) -> str:
        """Return what a server says went wrong, on one line, without the key."""
        text = response.text
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            pass
        else:
            inner = value.get("error", value) if isinstance(value, dict) else value
            text = str(inner.get("message", inner) if isinstance(inner, dict) else inner)
        line = self._hidden(" ".join(text.split()))
        return (line if len(line) <= _MOST_SAID else f"{line[:_MOST_SAID]}...") or "(it says nothing)"

    def _hidden(self, text: str) -> str:
        for secret in filter(None, (self._key, self._secret)):
            text = text.replace(secret, "***")
        return text


def _base(url: str) -> str:
    """Return the address that all paths start with, which ends in ``/v1``."""
    plain = url.strip().rstrip("/")
    try:
        address = httpx.URL(plain)
        good = address.scheme in ("http", "https") and bool(address.host) and not (address.query or address.fragment)
    except httpx.InvalidURL:
        good = False
    if not good:
        raise UsageError(
            "the URL of the endpoint is not an address of the form http://host:port",
            hint="give it as, for example: --url http://localhost:8000",
        )
    return plain if plain.endswith("/v1") else f"{plain}/v1"


def _wished_pause(response: httpx.Response, otherwise: float) -> float:
    """Return how many seconds the server asks to wait, where it says a number."""
    try:
        wished = float(response.headers.get("retry-after", ""))
    except ValueError:
        return otherwise
    return min(max(wished, otherwise), _LONGEST_PAUSE) if wished >= 0 else otherwise
