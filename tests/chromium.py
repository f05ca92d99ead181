"""A browser for tests: headless Chromium over its own debugging protocol, and the screen that a page's terminal was sent."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import itertools
import shutil
from asyncio.subprocess import DEVNULL, create_subprocess_exec
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pyte

NAMES = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome", "chrome")
# Name, code and Windows key code of the keys that are no letters.
KEYS = {"F2": 113, "Enter": 13, "Escape": 27, "Tab": 9}
LOAD_SECONDS = 60.0


def find() -> str | None:
    """The browser's path; None where none is installed."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


class Page:
    """One tab: go somewhere, type, look at what its terminal shows, take a picture."""

    def __init__(self, connection: aiohttp.ClientWebSocketResponse, columns: int, rows: int) -> None:
        self._connection = connection
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self.complaints: list[str] = []
        """What the page wrote to the browser's console: errors, and what its content policy forbade."""
        self.requests: list[str] = []
        self.screen = pyte.Screen(columns, rows)
        self._stream = pyte.ByteStream(self.screen)

    async def listen(self) -> None:
        """Take in answers and events until the browser ends."""
        async for message in self._connection:
            frame = message.json()
            if "id" in frame:
                future = self._waiting.pop(frame["id"])
                future.set_result(frame.get("result", frame.get("error")))
            else:
                self._event(frame["method"], frame["params"])

    def _event(self, method: str, params: dict[str, Any]) -> None:
        if method == "Network.webSocketFrameReceived" and params["response"]["opcode"] == 2:
            self._stream.feed(base64.b64decode(params["response"]["payloadData"]))
        elif method == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])
        elif method == "Log.entryAdded":
            self.complaints.append(f"{params['entry']['text']} {params['entry'].get('url', '')}".strip())
        elif method == "Runtime.exceptionThrown":
            self.complaints.append(params["exceptionDetails"]["text"])

    async def ask(self, method: str, **params: Any) -> Any:
        """One call of the debugging protocol."""
        number = next(self._numbers)
        self._waiting[number] = asyncio.get_running_loop().create_future()
        await self._connection.send_json({"id": number, "method": method, "params": params})
        return await asyncio.wait_for(self._waiting[number], LOAD_SECONDS)

    async def run(self, script: str) -> Any:
        """The value of an expression in the page."""
        return (await self.ask("Runtime.evaluate", expression=script, awaitPromise=True))["result"].get("value")

    async def press(self, key: str) -> None:
        """Press a key: a letter, or a name of `KEYS`."""
        code = KEYS.get(key, ord(key.upper()[0]))
        common: dict[str, Any] = {
            "key": key,
            "code": key if key in KEYS else f"Key{key.upper()}",
            "windowsVirtualKeyCode": code,
        }
        down = {"type": "rawKeyDown"} if key in KEYS else {"type": "keyDown", "text": key}
        await self.ask("Input.dispatchKeyEvent", **common, **down)
        await self.ask("Input.dispatchKeyEvent", **common, type="keyUp")

    async def picture(self, path: Path) -> None:
        """Save what the page looks like as PNG."""
        path.write_bytes(base64.b64decode((await self.ask("Page.captureScreenshot", format="png"))["data"]))

    async def until(self, word: str, seconds: float = LOAD_SECONDS) -> None:
        """Wait until the terminal's screen has a word."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while word not in self.text:
                    await asyncio.sleep(0.05)
        assert word in self.text, f"no {word!r} in\n{self.text}\n{self.complaints}"

    @property
    def text(self) -> str:
        """What the terminal shows."""
        return "\n".join(self.screen.display).replace("\u00a0", " ")


@asynccontextmanager
async def chromium(folder: Path, width: int = 1200, height: int = 800) -> AsyncIterator[Page]:
    """A browser with a profile in `folder`, and its one tab."""
    program = find()
    assert program is not None
    words = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--remote-debugging-port=0"]
    quiet = ["--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"]
    process = await create_subprocess_exec(
        program, *words, *quiet, f"--user-data-dir={folder}", f"--window-size={width},{height}", "about:blank",
        stdout=DEVNULL, stderr=DEVNULL,
    )  # fmt: skip
    try:
        async with aiohttp.ClientSession() as session:
            port = await _port(folder / "DevToolsActivePort")
            async with session.get(f"http://127.0.0.1:{port}/json/list") as response:
                [target] = [item for item in await response.json() if item["type"] == "page"]
            async with session.ws_connect(target["webSocketDebuggerUrl"], max_msg_size=0) as connection:
                page = Page(connection, 300, 100)
                listening = asyncio.create_task(page.listen())
                for domain in ("Page", "Network", "Runtime", "Log"):
                    await page.ask(f"{domain}.enable")
                size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
                await page.ask("Emulation.setDeviceMetricsOverride", **size)
                yield page
                listening.cancel()
    finally:
        process.kill()
        await process.wait()


async def _port(path: Path) -> int:
    async with asyncio.timeout(LOAD_SECONDS):
        while True:
            with contextlib.suppress(OSError, IndexError, ValueError):
                return int(path.read_text().splitlines()[0])
            await asyncio.sleep(0.1)
