"""A real browser without a window, driven over a pipe by the DevTools protocol. Nothing of it is of batchform."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from fcntl import F_DUPFD_CLOEXEC, fcntl
from pathlib import Path
from typing import Any

_NAMES = (
    "chromium-headless-shell", "chrome-headless-shell", "chromium", "chromium-browser", "google-chrome", "chrome",
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
)  # fmt: skip


def executable() -> str:
    """The browser. There is always one where `make check` runs: see `make browser`."""
    for name in (os.environ.get("BATCHFORM_TEST_BROWSER", ""), *_NAMES):
        if name and (found := shutil.which(name)):
            return found
    raise AssertionError(
        f"no browser: install one of {', '.join(_NAMES[:4])} (make browser), or set BATCHFORM_TEST_BROWSER"
    )


class Browser:
    """One tab. said: what the page's console, its errors and the policy's refusals told; asked: addresses that it
    wanted to load."""

    def __init__(self, ask: int, told: int) -> None:
        self._ask, self._told, self._rest = ask, told, b""
        self._next, self._session = 0, ""
        self.said: list[str] = []
        self.asked: list[str] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """One command of the protocol, and its result."""
        self._next += 1
        message = {"id": self._next, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._ask, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._read()
            if answer.get("id") == self._next:
                assert "error" not in answer, answer
                result: dict[str, Any] = answer["result"]
                return result

    def _read(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            piece = os.read(self._told, 1 << 16)
            assert piece, "the browser ended"
            self._rest += piece
        line, _, self._rest = self._rest.partition(b"\0")
        message: dict[str, Any] = json.loads(line)
        method, params = message.get("method", ""), message.get("params", {})
        if method in ("Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded"):
            self.said.append(json.dumps(params)[:600])
        elif method == "Network.requestWillBeSent":
            self.asked.append(params["request"]["url"])
        return message

    def show(self, file: Path, *, width: int = 1280, dark: bool = False, scripts: bool = True, media: str = "") -> None:
        """Load a page from disk and wait until it is there."""
        self.said.clear()
        self.asked.clear()
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=width < 600
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", media=media, features=[scheme])
        self.call("Emulation.setScriptExecutionDisabled", value=not scripts)
        self.call("Page.navigate", url=file.as_uri())
        while self._read().get("method") != "Page.loadEventFired":
            pass

    def value(self, script: str) -> Any:
        """What an expression is in the page."""
        found = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def picture(self, to: Path) -> None:
        """A picture of the whole page."""
        size = self.call("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}
        shot = self.call("Page.captureScreenshot", captureBeyondViewport=True, clip=clip)
        to.write_bytes(base64.b64decode(shot["data"]))

    def pdf(self) -> bytes:
        """The page as it is printed."""
        return base64.b64decode(self.call("Page.printToPDF")["data"])


def _pipe() -> tuple[int, int]:
    """A pipe whose ends are not where the browser looks for its own."""
    ends = os.pipe()
    read, write = (fcntl(end, F_DUPFD_CLOEXEC, 50) for end in ends)
    for end in ends:
        os.close(end)
    return read, write


@contextmanager
def browser() -> Iterator[Browser]:
    """A browser with a profile of its own, ended at the end."""
    (asked, ask), (told, tell) = _pipe(), _pipe()
    with tempfile.TemporaryDirectory(prefix="browser-", ignore_cleanup_errors=True) as profile:
        flags = "--headless --no-sandbox --disable-gpu --disable-dev-shm-usage --remote-debugging-pipe --no-first-run"
        command = [executable(), *flags.split(), "--disable-background-networking", f"--user-data-dir={profile}"]
        shell = ["bash", "-c", f'exec "$@" 3<&{asked} 4>&{tell}', "bash"]  # where --remote-debugging-pipe looks
        process = subprocess.Popen(
            [*shell, *command], pass_fds=(asked, tell), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        os.close(asked)
        os.close(tell)
        try:
            made = Browser(ask, told)
            yield made
            made._session = ""
            made.call("Browser.close")
        finally:
            os.close(ask)
            os.close(told)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
