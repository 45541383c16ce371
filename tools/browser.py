"""A headless browser, driven over its own debugging protocol: no driver program and no large library is needed."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from urllib.request import urlopen

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
HINT = "no Chromium found; on Debian and Ubuntu: apt install chromium"
FLAGS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--disable-dev-shm-usage")
QUIET = ("--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync")
LOADED = "new Promise(done => document.readyState === 'complete' ? done(1) : addEventListener('load', () => done(1)))"


def find() -> str | None:
    """The program's path, None where there is no Chromium or Chrome."""
    return next(filter(None, map(shutil.which, NAMES)), None)


SETTLED = (
    """new Promise(done => setTimeout(() => requestAnimationFrame(() => requestAnimationFrame(() => done(1))), 50))"""
)


class Browser:
    """One browser with one tab. Use as a context manager; ``events`` collects what the tab reports."""

    def __init__(self, program: str):
        self.profile = tempfile.TemporaryDirectory(prefix="xai-browser-", ignore_cleanup_errors=True)
        command = [program, *FLAGS, *QUIET, "--remote-debugging-port=0", f"--user-data-dir={self.profile.name}"]
        self.process = subprocess.Popen([*command, "about:blank"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.events: list[dict] = []
        self._count = 0

    def __enter__(self) -> Browser:
        import websocket  # the package websocket-client

        try:
            address = f"http://127.0.0.1:{self._port()}/json/list"
            with urlopen(address, timeout=30) as answer:
                tab = next(target for target in json.load(answer) if target["type"] == "page")
            self._socket = websocket.create_connection(
                tab["webSocketDebuggerUrl"], timeout=180, suppress_origin=True, enable_multithread=False
            )
        except BaseException:
            self.__exit__(None, None, None)
            raise
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        self.call("Emulation.setFocusEmulationEnabled", enabled=True)  # or the page believes that nobody looks at it
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.process.terminate()
        try:
            self.process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self.process.kill()
        self.profile.cleanup()

    def _port(self) -> int:
        """The browser writes the port it has chosen into its profile."""
        file = Path(self.profile.name) / "DevToolsActivePort"
        for _ in range(600):
            if file.is_file() and (lines := file.read_text().splitlines()):
                return int(lines[0])
            if self.process.poll() is not None:
                break
            time.sleep(0.1)
        raise RuntimeError(f"the browser did not start (exit status {self.process.poll()})")

    def call(self, method: str, **parameters: object) -> dict:
        """One command; events that arrive before its answer are kept."""
        self._count += 1
        self._socket.send(json.dumps({"id": self._count, "method": method, "params": parameters}))
        while True:
            message = json.loads(self._socket.recv())
            if "id" not in message:
                self.events.append(message)
            elif message["id"] == self._count:
                if "error" in message:
                    raise RuntimeError(f"{method}: {message['error'].get('message')}")
                return message["result"]

    def evaluate(self, script: str) -> object:
        """The value of a JavaScript expression; a promise is awaited."""
        answer = self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in answer:
            details = answer["exceptionDetails"]
            raise RuntimeError(details.get("exception", {}).get("description", details["text"]))
        return answer["result"].get("value")

    def view(self, width: int, height: int, *, phone: bool = False, dark: bool = False, paper: bool = False) -> None:
        """The window's size in CSS pixels, the reader's preferred colours, paper or screen; the open page follows."""
        self._window = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": phone}
        self.call("Emulation.setDeviceMetricsOverride", **self._window)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme], media="print" if paper else "")
        self.evaluate("scrollTo(0, 0)")
        self.settle()

    def settle(self) -> None:
        """Wait until what the last change has set off in the page is drawn."""
        self.evaluate(SETTLED)

    def open(self, address: str) -> None:
        """Load a page and wait until its formulas are set; ``events`` holds this page's events only."""
        self.events.clear()
        self.call("Page.navigate", url=address)
        self.evaluate(LOADED)
        self.evaluate("(window.MathJax?.startup?.promise ?? Promise.resolve()).then(() => true)")
        self.settle()

    def press(self, key: str) -> None:
        """One key, down and up, to the element that has the focus."""
        code, text = {"ArrowRight": (39, ""), "ArrowLeft": (37, ""), " ": (32, " "), "Enter": (13, "\r")}[key]
        for kind in ("keyDown", "keyUp"):
            name = "Space" if key == " " else key
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=name, text=text, windowsVirtualKeyCode=code)

    def picture(self, path: Path, *, limit: int = 8000) -> None:
        """The whole page as a PNG, at most ``limit`` pixels high."""
        height = self.call("Page.getLayoutMetrics")["cssContentSize"]["height"]
        window = {**self._window, "height": min(max(int(height), self._window["height"]), limit)}
        self.call("Emulation.setDeviceMetricsOverride", **window)
        self.settle()
        data = self.call("Page.captureScreenshot", format="png")["data"]
        self.call("Emulation.setDeviceMetricsOverride", **self._window)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(base64.b64decode(data))
