"""A real HTTP server in a thread of this process, for the programs that tests stand in for."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self


class LocalServer:
    """Listens at ``url`` while its ``with`` block runs.

    Attributes:
        closed: Set when the block ends: what waits for nothing else may wait for that.
    """

    def __init__(self, handler: type[BaseHTTPRequestHandler]) -> None:
        """Prepare a server.

        Args:
            handler: Answers a connection; in its ``server_of`` it finds the server.
        """
        self.closed = threading.Event()
        bound: Any = type(handler.__name__, (handler,), {"server_of": self})
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), bound)
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.01})

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.closed.set()
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()
