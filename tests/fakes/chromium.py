"""A headless Chromium that tests drive through its own protocol, over a pipe: no driver, no port, no package.

with Chromium(tmp_path) as browser:
    page = browser.open("file:///…/index.html")
    page.wait("document.title === 'ready'")
    page.press("j")
    page.run("location.hash")
"""

import contextlib
import json
import os
import select
import signal
import subprocess
import time
from pathlib import Path
from typing import Any, Self

FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-dev-shm-usage",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--window-size=1366,850",
    "--remote-debugging-pipe",
)  # fmt: skip
_CODES = {"Escape": 27, "Enter": 13, "ArrowDown": 40, "ArrowUp": 38}


class Chromium:
    """One browser process with a profile of its own."""

    def __init__(self, profile: Path) -> None:
        theirs_in, self._in = os.pipe()
        self._out, theirs_out = os.pipe()
        # Chromium reads commands from descriptor 3 and writes to 4; bash, since dash cannot name descriptors above 9.
        start = f'exec "$@" 3<&{theirs_in} 4>&{theirs_out} {theirs_in}<&- {theirs_out}>&-'
        self._process = subprocess.Popen(
            ["bash", "-c", start, "bash", "chromium", *FLAGS, f"--user-data-dir={profile}", "about:blank"],
            pass_fds=(theirs_in, theirs_out),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        os.close(theirs_in)
        os.close(theirs_out)
        self._buffer = b""
        self._last = 0
        self.events: list[dict[str, Any]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        with contextlib.suppress(OSError, AssertionError):
            self.call("Browser.close")
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        os.close(self._in)
        os.close(self._out)

    def open(self, url: str) -> "Page":
        """A new page at `url`, loaded."""
        target = self.call("Target.createTarget", {"url": "about:blank"})["targetId"]
        session = self.call("Target.attachToTarget", {"targetId": target, "flatten": True})["sessionId"]
        page = Page(self, session)
        for domain in ("Page", "Runtime", "Log", "Network"):
            page.call(f"{domain}.enable")
        page.go(url)
        return page

    def call(self, method: str, params: dict[str, Any] | None = None, session: str = "") -> dict[str, Any]:
        """Sends one command and waits for its result; events that arrive meanwhile are kept in `events`."""
        self._last += 1
        message = {"id": self._last, "method": method, "params": params or {}}
        if session:
            message["sessionId"] = session
        os.write(self._in, json.dumps(message).encode() + b"\0")
        deadline = time.monotonic() + 30
        while True:
            answer = self._receive(deadline)
            if answer.get("id") == self._last:
                assert "error" not in answer, f"{method}: {answer['error']}"
                return answer["result"]
            self.events.append(answer)

    def _receive(self, deadline: float) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._out], [], [], max(0.0, deadline - time.monotonic()))
            assert ready, "chromium does not answer"
            chunk = os.read(self._out, 1 << 16)
            assert chunk, "chromium ended"
            self._buffer += chunk
        message, self._buffer = self._buffer.split(b"\0", 1)
        return json.loads(message)


class Page:
    """One tab."""

    def __init__(self, browser: Chromium, session: str) -> None:
        self._browser, self._session = browser, session

    def call(self, method: str, params: dict[str, Any] | None = None) -> dict[str, Any]:
        return self._browser.call(method, params, self._session)

    def go(self, url: str) -> None:
        self.call("Page.navigate", {"url": url})
        self.wait(
            f"location.href.split('#')[0] === {json.dumps(url.split('#')[0])} && document.readyState === 'complete'"
        )

    def run(self, expression: str) -> Any:
        """The value of a JavaScript expression."""
        answer = self.call("Runtime.evaluate", {"expression": expression, "returnByValue": True, "awaitPromise": True})
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def wait(self, expression: str, seconds: float = 15) -> None:
        """Until `expression` holds."""
        deadline = time.monotonic() + seconds
        while not self.run(expression):
            assert time.monotonic() < deadline, f"never came true: {expression}"
            time.sleep(0.02)

    def press(self, key: str) -> None:
        """A key, as a keyboard sends it."""
        code = {"windowsVirtualKeyCode": _CODES.get(key, ord(key[0].upper())), "key": key}
        text = {"text": key} if len(key) == 1 else {}
        self.call("Input.dispatchKeyEvent", {"type": "keyDown", **code, **text})
        self.call("Input.dispatchKeyEvent", {"type": "keyUp", **code})

    def point(self, selector: str, *, click: bool = False) -> None:
        """Moves the mouse to the middle of an element, and clicks."""
        place = self.run(
            f"(() => {{ const e = document.querySelector({json.dumps(selector)}); "
            "e.scrollIntoView({block: 'nearest'}); const r = e.getBoundingClientRect(); "
            "return [r.x + r.width / 2, r.y + r.height / 2]; })()"
        )
        at = {"x": place[0], "y": place[1]}
        self.call("Input.dispatchMouseEvent", {"type": "mouseMoved", **at})
        if click:
            for kind in ("mousePressed", "mouseReleased"):
                self.call("Input.dispatchMouseEvent", {"type": kind, "button": "left", "clickCount": 1, **at})

    def type(self, text: str) -> None:
        """Text into what has the focus."""
        self.call("Input.insertText", {"text": text})

    def errors(self) -> list[str]:
        """What the page complained of so far: exceptions, refused scripts, files that are not there."""
        self.run("0")  # collects what is still on its way
        found = []
        for event in self._browser.events:
            if event.get("method") == "Runtime.exceptionThrown":
                details = event["params"]["exceptionDetails"]
                found.append(details.get("exception", {}).get("description") or details["text"])
            elif event.get("method") == "Log.entryAdded" and event["params"]["entry"]["level"] == "error":
                found.append(event["params"]["entry"]["text"])
        return found

    def requests(self) -> list[str]:
        """Addresses the page asked for."""
        return [
            event["params"]["request"]["url"]
            for event in self._browser.events
            if event.get("method") == "Network.requestWillBeSent"
        ]
