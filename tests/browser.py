"""Chromium without a window, driven through its debugging pipe (the Chrome DevTools Protocol), for tests of pages.

Clicks and keys are real ones: an element that is hidden, covered or outside the window cannot be clicked.
"""

import base64
import json
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
PATIENCE = 30
"""Seconds until something that a test waits for counts as missing."""


class Chromium:
    """The process; close it."""

    def __init__(self, profile: Path) -> None:
        assert CHROMIUM, "Chromium is not installed: make test-browser installs it."
        flags = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={profile}", "--remote-debugging-pipe"]
        self.process = subprocess.Popen(  # which is talked to through its files 3 and 4
            ["sh", "-c", 'exec "$0" "$@" 3<&0 4>&1 0</dev/null 1>&2', CHROMIUM, *flags],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
        )
        self._held, self._count = b"", 0
        self.events: list[dict[str, Any]] = []

    def call(self, method: str, session: str | None = None, **params: Any) -> dict[str, Any]:
        """The result of a command of the protocol. Raises AssertionError if it fails."""
        self._count += 1
        message = {"id": self._count, "method": method, "params": params, **({"sessionId": session} if session else {})}
        self.process.stdin.write(json.dumps(message).encode() + b"\0")
        while (reply := self._next()).get("id") != self._count:
            self.events.append(reply)
        assert "error" not in reply, f"{method}: {reply['error']['message']}"
        return reply["result"]

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._held:
            more = self.process.stdout.read(1 << 20)
            assert more, "Chromium ended."
            self._held += more
        message, _, self._held = self._held.partition(b"\0")
        return json.loads(message)

    def close(self) -> None:
        """Ends Chromium."""
        self.call("Browser.close")
        self.process.communicate(timeout=10)


class Page:
    """A tab of its own, whose scripts run under the page's own policy."""

    def __init__(self, chromium: Chromium, width: int = 1400, height: int = 900) -> None:
        self.chromium = chromium
        self._target = chromium.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = chromium.call("Target.attachToTarget", targetId=self._target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")
        self.look(width, height)

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        return self.chromium.call(method, self._session, **params)

    def look(self, width: int, height: int = 900, dark: bool = False) -> None:
        """Sets the window's size, and whether the reader prefers dark pages."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])

    def open(self, url: str | Path) -> None:
        self.call("Page.navigate", url=url.resolve().as_uri() if isinstance(url, Path) else url)
        self.until("document.readyState === 'complete' && location.href !== 'about:blank'")

    def js(self, expression: str) -> Any:
        """The value of `expression`, awaited. Raises AssertionError if it throws."""
        done = self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in done, f"{expression}: {done['exceptionDetails']}"
        return done["result"].get("value")

    def until(self, expression: str) -> Any:
        """Waits until `expression` is true and does not throw; its value. Raises AssertionError if that takes long."""
        end = time.monotonic() + PATIENCE
        careful = f"(() => {{ try {{ return {expression}; }} catch {{ return null; }} }})()"
        while (value := self.js(careful)) in (None, False, 0, ""):
            assert time.monotonic() < end, f"{expression} stayed {value!r}; the page says: {self.text()[:2000]}"
            time.sleep(0.05)
        return value

    def text(self, selector: str = "body") -> str:
        """What a reader sees of the first element that fits."""
        return self.js(f"document.querySelector({json.dumps(selector)}).innerText")

    def texts(self, selector: str) -> list[str]:
        return self.js(f"[...document.querySelectorAll({json.dumps(selector)})].map(e => e.innerText)")

    def click(self, selector: str, containing: str = "") -> None:
        """Clicks the first visible element that fits and contains some text."""
        find = f"""(() => {{
          const fits = e => e.innerText.includes({json.dumps(containing)}) && e.getClientRects().length;
          const found = [...document.querySelectorAll({json.dumps(selector)})].find(fits);
          if (!found) return null;
          found.scrollIntoView({{block: "center"}});
          const {{left, top, width, height}} = found.getClientRects()[0];
          const [x, y] = [left + width / 2, top + height / 2];
          const there = document.elementFromPoint(x, y);
          return found.contains(there) || there?.contains(found) ? [x, y] : null;
        }})()"""
        x, y = self.until(find)
        for kind in ("mouseMoved", "mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def type(self, selector: str, words: str) -> None:
        """Puts `words` in place of what is in a field."""
        self.js(f"(e => {{ e.focus(); e.select(); }})(document.querySelector({json.dumps(selector)}))")
        self.call("Input.insertText", text=words)

    def press(self, key: str, text: str = "") -> None:
        number = {"Enter": 13, "ArrowLeft": 37, "ArrowRight": 39, "Tab": 9}[key]
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, windowsVirtualKeyCode=number, text=text)

    def choose(self, selector: str, value: str) -> None:
        """Picks an option of a `<select>`."""
        name = json.dumps(selector)
        self.js(
            f"(e => {{ e.value = {json.dumps(value)}; e.dispatchEvent(new Event('change')); }})"
            f"(document.querySelector({name}))"
        )

    def complaints(self) -> list[str]:
        """Exceptions of the page, and what the browser refused to load or run."""
        mine = [event for event in self.chromium.events if event.get("sessionId") == self._session]
        thrown = [e["params"]["exceptionDetails"] for e in mine if e["method"] == "Runtime.exceptionThrown"]
        logged = [e["params"]["entry"] for e in mine if e["method"] == "Log.entryAdded"]
        return [t.get("exception", t).get("description", t["text"]) for t in thrown] + [e["text"] for e in logged]

    def picture(self, path: Path, whole: bool = False) -> None:
        """A screenshot as PNG; `whole`: of all that can be scrolled to."""
        image = self.call("Page.captureScreenshot", captureBeyondViewport=whole)["data"]
        path.write_bytes(base64.b64decode(image))

    def close(self) -> None:
        self.chromium.call("Target.closeTarget", targetId=self._target)
