"""A headless Chromium, driven through ChromeDriver with nothing but Python's own library (W3C WebDriver)."""

from __future__ import annotations

import base64
import json
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--lang=en-US",
)
WIDTH, HEIGHT = 1400, 900


class BrowserError(Exception):
    """ChromeDriver refused, or a page did not show what was waited for."""


def missing_browser() -> str:
    """Return why no browser can be had; empty where one can."""
    if shutil.which("chromedriver") is None:
        return "chromedriver is not installed (Debian: apt-get install chromium chromium-driver)"
    if shutil.which("chromium") is None and shutil.which("google-chrome") is None:
        return "neither chromium nor google-chrome is installed (Debian: apt-get install chromium)"
    return ""


class Browser:
    """One open window."""

    def __init__(self, session: str) -> None:
        self._session = session

    def _ask(self, method: str, path: str, **values: Any) -> Any:
        return _request(method, f"{self._session}{path}", values if method == "POST" else None)

    def resize(self, width: int, height: int) -> None:
        """Give the page, without the window's own frame, a size in pixels."""
        values = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self._ask("POST", "/goog/cdp/execute", cmd="Emulation.setDeviceMetricsOverride", params=values)

    def open(self, url: str) -> None:
        """Go to a page. Its address is left first, so that a page whose fragment alone differs is loaded as well."""
        self._ask("POST", "/url", url="about:blank")
        self._ask("POST", "/url", url=url)

    def js(self, script: str, *arguments: Any) -> Any:
        """Run a function body in the page and return what it returns."""
        return self._ask("POST", "/execute/sync", script=script, args=list(arguments))

    def text(self) -> str:
        """Return the text that is shown."""
        text: str = self.js("return document.body ? document.body.innerText : ''")
        return text

    def wait_for(self, *texts: str, seconds: float = 60.0) -> str:
        """Wait until all of these texts are shown, and return all that is.

        Raises:
            BrowserError: One is missing still.
        """
        return self._wait(lambda: [text for text in texts if text not in self.text()], seconds)

    def wait_until(self, condition: str, seconds: float = 60.0) -> str:
        """Wait until a JavaScript expression is true, and return the text that is shown.

        Raises:
            BrowserError: It is not.
        """
        return self._wait(lambda: [] if self.js(f"return Boolean({condition})") else [condition], seconds)

    def _wait(self, missing: Any, seconds: float) -> str:
        end = time.monotonic() + seconds
        while absent := missing():
            if time.monotonic() > end:
                raise BrowserError(f"{absent} not shown at {self.js('return location.href')}:\n{self.text()[:3000]}")
            time.sleep(0.2)
        return self.text()

    def screenshot(self, path: Path) -> None:
        """Write the window as a PNG file."""
        path.write_bytes(base64.b64decode(self._ask("GET", "/screenshot")))


def _request(method: str, url: str, body: Any = None, timeout: float = 120) -> Any:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"}, method=method)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=timeout) as answer:
            return json.load(answer)["value"]
    except urllib.error.HTTPError as error:
        with error:
            raise BrowserError(error.read().decode("utf-8", "replace")[:1000]) from None


@contextmanager
def browser(width: int = WIDTH, height: int = HEIGHT) -> Iterator[Browser]:
    """Open a window for the length of the block."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    binary = shutil.which("chromium") or shutil.which("google-chrome")
    with TemporaryDirectory(prefix="browser-", ignore_cleanup_errors=True) as profile:
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        with subprocess.Popen(["chromedriver", f"--port={port}"], **quiet) as driver:
            session = ""
            try:
                _wait_ready(port)
                options = {
                    "binary": binary,
                    "args": [*FLAGS, f"--window-size={width},{height}", f"--user-data-dir={profile}"],
                }
                wanted = {"capabilities": {"alwaysMatch": {"goog:chromeOptions": options}}}
                answer = _request("POST", f"http://127.0.0.1:{port}/session", wanted)
                session = f"http://127.0.0.1:{port}/session/{answer['sessionId']}"
                opened = Browser(session)
                opened.resize(width, height)
                yield opened
            finally:
                try:
                    if session:
                        _request("DELETE", session)
                finally:
                    driver.terminate()


def _wait_ready(port: int) -> None:
    end = time.monotonic() + 30
    while True:
        try:
            if _request("GET", f"http://127.0.0.1:{port}/status", timeout=5)["ready"]:
                return
        except OSError:
            if time.monotonic() > end:
                raise
        time.sleep(0.1)
