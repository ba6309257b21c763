"""A real Chromium, driven over its own DevTools protocol: open a page, run a line of JavaScript in it, take a picture."""

import base64
import contextlib
import itertools
import json
import shutil
import subprocess
import time
from pathlib import Path
from urllib.request import urlopen

from websockets.sync.client import connect

BINARY = shutil.which("chromium") or shutil.which("chromium-browser")
MISSING = "no Chromium here: Debian's `chromium` (apt-get install chromium) is what the page is tested in"
FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu-sandbox",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-sync",
    "--no-first-run",
    "--no-default-browser-check",
    "--hide-scrollbars",
    "--remote-debugging-port=0",
)
UP_S = 60.0


class Browser:
    """One tab. Close it."""

    def __init__(self, profile: Path) -> None:
        assert BINARY is not None, MISSING
        self._process = subprocess.Popen(
            [BINARY, *FLAGS, f"--user-data-dir={profile}", "about:blank"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            port = self._port(profile / "DevToolsActivePort")
            with urlopen(f"http://127.0.0.1:{port}/json") as answer:
                tab = next(t for t in json.load(answer) if t["type"] == "page")
            self._socket = connect(tab["webSocketDebuggerUrl"], max_size=None)
        except BaseException:
            self.kill()
            raise
        self._numbers = itertools.count(1)
        self.faults: list[str] = []  # exceptions and errors the page reported
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters):
        number = next(self._numbers)
        self._socket.send(json.dumps({"id": number, "method": method, "params": parameters}))
        until_s = time.monotonic() + UP_S
        while True:
            message = json.loads(self._socket.recv(timeout=max(0.1, until_s - time.monotonic())))
            if message.get("id") == number:
                assert "error" not in message, message
                return message["result"]
            if message.get("method") == "Runtime.exceptionThrown":
                self.faults.append(str(message["params"]["exceptionDetails"]))
            if message.get("method") == "Log.entryAdded" and message["params"]["entry"]["level"] == "error":
                self.faults.append(message["params"]["entry"]["text"])

    def window(self, width: int, height: int, *, dark: bool = False, mobile: bool = False) -> None:
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=mobile)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])

    def open(self, url: str) -> None:
        self.call("Page.navigate", url=url)

    def run(self, expression: str):
        """The value of an expression; promises are waited for."""
        answer = self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def wait(self, expression: str):
        """The value of an expression once it is true."""
        until_s = time.monotonic() + UP_S
        while time.monotonic() < until_s:
            with contextlib.suppress(AssertionError):  # the page is being loaded
                if value := self.run(expression):
                    return value
            time.sleep(0.1)
        raise AssertionError(
            f"not in {UP_S:g} s: {expression}; the page says: {self.run('document.body.innerText')}\n{self.faults}"
        )

    def picture(self, path: Path, *, whole: bool = True) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        answer = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(answer["data"]))
        return path

    def close(self) -> None:
        with contextlib.suppress(Exception):
            self.call("Browser.close")
        with contextlib.suppress(Exception):
            self._socket.close()
        self.kill()

    def kill(self) -> None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(5.0)
        self._process.kill()
        self._process.wait()

    def _port(self, path: Path) -> int:
        until_s = time.monotonic() + UP_S
        while time.monotonic() < until_s:
            if self._process.poll() is not None:
                raise AssertionError(f"{BINARY} ended with {self._process.returncode}")
            if path.exists() and (lines := path.read_text().splitlines()):
                return int(lines[0])
            time.sleep(0.05)
        raise AssertionError(f"{BINARY} opened no port in {UP_S:g} s")
