"""The console in a browser: who is let in, what is refused, and that a closed tab leaves nothing behind but the run."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager, nullcontext
from pathlib import Path

import aiohttp
import psutil
import pyte
import pytest
from aiohttp.test_utils import TestServer

from lamdatui.base.errors import LamdatuiError
from lamdatui.cli.launcher import console_command
from lamdatui.serve import server
from lamdatui.serve.access import Guard, make_guard, new_token, token_from
from lamdatui.serve.server import ConsoleServer, Offer, listen
from lamdatui.ui.app.tabdriver import whole
from lamdatui.ui.card.grace import GRACE_SECONDS
from tests.conftest import Commands
from tests.ui.fake_engine import FakeEngine, in_thread
from tests.ui.script import add_history, add_waiting

TOKEN = "t" * 43
ROUTES = ("/", "/ws", "/page.js", "/static/js/textual.js", "/static/css/xterm.css", "/download/x", "/nothing-here")
LOCAL = Guard(TOKEN)


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    path = tmp_path / "lab-01"
    path.mkdir()
    return path


class Browser:
    """A client without a jar of its own rules: it sends exactly the headers that a test names."""

    def __init__(self, session: aiohttp.ClientSession, base: str, guard: Guard) -> None:
        self.session = session
        self.base = base
        self.guard = guard

    @property
    def cookie(self) -> dict[str, str]:
        return {"Cookie": f"{self.guard.cookie_name}={self.guard.cookie_value}"}

    async def get(self, path: str, headers: dict[str, str] | None = None) -> tuple[int, str, aiohttp.ClientResponse]:
        async with self.session.get(self.base + path, headers=headers or {}, allow_redirects=False) as response:
            return response.status, await response.text(errors="replace"), response

    async def connect(self, **headers: str) -> aiohttp.ClientWebSocketResponse:
        return await self.session.ws_connect(
            f"{self.base}/ws?width=100&height=30", headers={**self.cookie, "Origin": self.base, **headers}
        )


@asynccontextmanager
async def served(
    command: list[str], guard: Guard = LOCAL, engine: Callable[[], AbstractContextManager[object]] = nullcontext
) -> AsyncIterator[Browser]:
    """A server on a free port of 127.0.0.1, and a client."""
    application = ConsoleServer(Offer(command, "lab <1>", engine), guard).application()
    async with (
        TestServer(application, host="127.0.0.1") as running,
        aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as session,
    ):
        yield Browser(session, f"http://127.0.0.1:{running.port}", guard)


async def screen(connection: aiohttp.ClientWebSocketResponse, *words: bytes) -> bytes:
    """What a tab gets until all words have come."""
    got = b""
    async with asyncio.timeout(30):
        while not all(word in got for word in words):
            message = await connection.receive()
            assert message.type is aiohttp.WSMsgType.BINARY, message
            got += message.data
    return got


def consoles(run_dir: Path) -> list[psutil.Process]:
    """The console processes of a run."""
    return [item for item in psutil.process_iter(["cmdline"]) if str(run_dir) in (item.info["cmdline"] or [])]


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("path", ROUTES)
@pytest.mark.parametrize("wrong", ["nothing", "another token", "one character", "token as cookie", "cookie as token"])
async def test_without_the_right_token_every_route_is_refused(path: str, wrong: str) -> None:
    headers, query = {}, ""
    if wrong == "another token":
        query = f"?token={new_token()}"
    elif wrong == "one character":
        query = f"?token={TOKEN[:-1]}x"
    elif wrong == "token as cookie":
        headers = {"Cookie": f"{LOCAL.cookie_name}={TOKEN}"}
    elif wrong == "cookie as token":
        query = f"?token={LOCAL.cookie_value}"
    async with served(["false"]) as browser:
        headers |= {"Origin": browser.base, "Upgrade": "websocket", "Connection": "Upgrade"} if path == "/ws" else {}
        status, text, response = await browser.get(path + query, headers)
    assert (status, TOKEN in text, "Set-Cookie" in response.headers) == (403, False, False)


async def test_the_token_becomes_a_cookie_and_leaves_the_address() -> None:
    async with served(["false"]) as browser:
        status, text, response = await browser.get(f"/?token={TOKEN}")
        assert status == 200 and TOKEN not in text and 'content="0;url=/"' in text
        cookie = response.headers["Set-Cookie"]
        assert "HttpOnly" in cookie and "SameSite=Strict" in cookie and TOKEN not in cookie
        headers = {"Cookie": cookie.split(";")[0]}
        status, text, response = await browser.get("/", headers)
        assert status == 200 and "lab &lt;1&gt;" in text and f'"ws{browser.base.removeprefix("http")}/ws"' in text
        assert "http" not in text.split("<body>")[0], "the page loads nothing from elsewhere"
        assert response.headers["Referrer-Policy"] == "no-referrer" and response.headers["Cache-Control"] == "no-store"
        assert "frame-ancestors 'none'" in response.headers["Content-Security-Policy"]
        status, text, _ = await browser.get(f"/?token={TOKEN}", headers)
        assert 'content="0;url=/"' in text, "a token in the address is taken out again"
        for path, expected in {
            "/static/js/textual.js": 200,
            "/static/": 403,
            "/static/../server.py": 404,
            "/nothing": 404,
        }.items():
            assert (await browser.get(path, headers))[0] == expected, path


async def test_the_token_opens_only_the_page() -> None:
    async with served(["false"]) as browser:
        assert (await browser.get(f"/static/js/textual.js?token={TOKEN}"))[0] == 403


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8642", "127.0.0.1.evil.example", "", "localhost@evil.example", "192.0.2.7"]
)
async def test_a_name_that_somebody_points_here_is_refused(host: str) -> None:
    async with served(["false"]) as browser:
        assert (await browser.get("/", {**browser.cookie, "Host": host}))[0] == 403
        assert (await browser.get(f"/?token={TOKEN}", {"Host": host}))[0] == 403


@pytest.mark.parametrize("host", ["localhost:9000", "127.0.0.1", "[::1]:8642", "LOCALHOST:1"])
async def test_another_local_port_is_a_tunnel_and_is_served(host: str) -> None:
    async with served(["false"]) as browser:
        assert (await browser.get("/", {**browser.cookie, "Host": host}))[0] == 200


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1:1", "http://localhost:{port}", "file://"])
async def test_a_page_of_somebody_else_gets_no_websocket(origin: str) -> None:
    async with served(["false"]) as browser:
        origin = origin.replace("{port}", browser.base.rsplit(":", 1)[1])
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await browser.connect(Origin=origin)
        assert refused.value.status == 403
        assert (await browser.get("/", {**browser.cookie, "Origin": origin}))[0] == 403


async def test_a_websocket_must_say_where_it_comes_from() -> None:
    async with served(["false"]) as browser:
        headers = {**browser.cookie, "Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13"}
        assert (await browser.get("/ws", headers))[0] == 403


@pytest.mark.parametrize(
    ("host", "guard", "refused"),
    [
        ("box:8642", Guard(TOKEN, remote=True, names=frozenset({"box"})), False),
        ("192.0.2.7:8642", Guard(TOKEN, remote=True), False),
        ("evil.example", Guard(TOKEN, remote=True, names=frozenset({"box"})), True),
        ("box", Guard(TOKEN), True),
    ],
)
def test_a_remote_server_is_known_by_its_addresses_and_its_own_names(host: str, guard: Guard, refused: bool) -> None:
    assert bool(guard.refusal([host], [], websocket=False)) is refused


def test_headers_that_come_twice_are_refused() -> None:
    assert LOCAL.refusal(["localhost", "localhost"], [], websocket=False)
    assert LOCAL.refusal(["localhost"], ["http://localhost", "http://localhost"], websocket=False)


async def test_a_tab_is_a_console_and_closing_it_stops_nothing(run_dir: Path) -> None:
    engine = FakeEngine(run_dir)
    add_history(engine)
    add_waiting(engine)
    await engine.start()
    try:
        async with served(console_command(run_dir)) as browser:
            first, second = await browser.connect(), await browser.connect()
            for tab in (first, second):
                await screen(tab, b"Approve trial 7", b"lab-01")
            assert len(consoles(run_dir)) == 2
            await first.send_json(["stdin", "\x1bOQ"])
            await screen(first, b"approve")
            async with asyncio.timeout(20):
                while not engine.sent("decide"):
                    # A key within the card's grace counts for nothing but a new grace.
                    await first.send_json(["stdin", "a"])
                    await asyncio.sleep(2 * GRACE_SECONDS)
            assert engine.sent("decide")[0]["verdict"] == "approve"
            await first.close()
            await until(lambda: len(consoles(run_dir)) == 1)
        await until(lambda: not consoles(run_dir))
        assert {name for name, _ in engine.commands} == {"attach", "decide"}, "nothing was stopped"
    finally:
        await engine.stop()


@pytest.mark.parametrize("message", ["{", "[]", "[1]", '["resize"]', '["resize", 5]', '["stdin"]', '["ping"]', "7"])
async def test_an_unreadable_message_ends_only_its_tab(run_dir: Path, message: str) -> None:
    async with served(console_command(run_dir)) as browser:
        connection = await browser.connect()
        await connection.send_str(message)
        await connection.send_json(["resize", {"width": 10**9, "height": -5}])
        await connection.send_json(["ping", 3])
        await connection.close()
        assert (await browser.get("/", browser.cookie))[0] == 200
        await until(lambda: not consoles(run_dir))


async def test_tabs_are_counted(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "MAX_TABS", 1)
    async with served(console_command(run_dir)) as browser:
        first = await browser.connect()
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await browser.connect()
        assert refused.value.status == 503
        await first.close()


async def test_what_keeps_an_engine_from_answering_is_told() -> None:
    @contextmanager
    def fail() -> Iterator[None]:
        raise LamdatuiError("no engine today")
        yield

    async with served(["false"], engine=fail) as browser:
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await browser.connect()
        assert refused.value.status == 503


async def test_a_console_that_hangs_is_killed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(server, "CLOSE_SECONDS", 0.2)
    async with served([sys.executable, "-c", "import time; time.sleep(60)", str(tmp_path)]) as browser:
        connection = await browser.connect()
        await until(lambda: consoles(tmp_path))
        await connection.close()
        await until(lambda: not consoles(tmp_path))


ASKED_TO_LEAVE = """
import sys, time
from pathlib import Path
sys.stdin.buffer.read(1)
Path(sys.argv[1], "asked").touch()
time.sleep(60)
"""


async def test_the_server_ends_after_the_console_of_a_tab_that_is_closing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(server, "CLOSE_SECONDS", 0.5)
    async with served([sys.executable, "-c", ASKED_TO_LEAVE, str(tmp_path)]) as browser:
        connection = await browser.connect()
        await until(lambda: consoles(tmp_path))
        await connection.close()
        await until((tmp_path / "asked").exists)
    assert not consoles(tmp_path)


SERVE = """
import sys
from contextlib import nullcontext
from pathlib import Path
from lamdatui.cli.launcher import console_command
from lamdatui.serve.access import Guard
from lamdatui.serve.server import Offer, listen, serve
sys.exit(serve(Offer(console_command(Path(sys.argv[1])), "lab", nullcontext), Guard("t" * 43), listen("127.0.0.1", 0), None))
"""


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 0), (signal.SIGTERM, 0), (signal.SIGHUP, 0), (signal.SIGKILL, -9)]
)
async def test_the_consoles_end_with_the_server_and_the_run_goes_on(run_dir: Path, number: signal.Signals, code: int) -> None:
    engine = FakeEngine(run_dir)
    add_history(engine)
    with in_thread(engine):
        process = subprocess.Popen(
            [sys.executable, "-c", SERVE, str(run_dir)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        base, token = process.stdout.readline().strip().split("/?token=")
        assert token == TOKEN
        async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as session:
            tab = await Browser(session, base, LOCAL).connect()
            await screen(tab, b"Pipeline")
            # A console connects after its first paint.
            await until(lambda: bool(engine.commands))
            pids = {item.pid for item in consoles(run_dir)} - {process.pid}
            assert len(pids) == 1
            process.send_signal(number)
            assert await asyncio.to_thread(process.wait, 20) == code
            await until(lambda: not any(map(psutil.pid_exists, pids)))
        assert {name for name, _ in engine.commands} == {"attach"}
        assert process.communicate()[1].count("\n") == 1, "one line for people, and nothing while it ends"


def test_only_loopback_without_a_word() -> None:
    for host in ("127.0.0.1", "localhost", "::1"):
        assert not make_guard(host, TOKEN, allow_remote=False).remote
    for host in ("0.0.0.0", "192.0.2.7", "::", "box"):
        with pytest.raises(LamdatuiError, match="other machines") as refused:
            make_guard(host, TOKEN, allow_remote=False)
        assert refused.value.exit_code == 2
    assert make_guard("0.0.0.0", TOKEN, allow_remote=True).remote


def test_tokens_differ_and_a_file_keeps_one(tmp_path: Path) -> None:
    assert len({new_token() for _ in range(100)}) == 100
    path = tmp_path / "token"
    made = token_from(path)
    assert token_from(path) == made and path.stat().st_mode & 0o777 == 0o600
    path.chmod(0o644)
    with pytest.raises(LamdatuiError, match="others may read"):
        token_from(path)
    path.chmod(0o600)
    for text in ("short", "x" * 31, "spaces in it " * 4, "ü" * 40):
        path.write_text(text)
        with pytest.raises(LamdatuiError, match="at least 32"):
            token_from(path)
    with pytest.raises(LamdatuiError, match="can't use the token file"):
        token_from(tmp_path / "missing" / "token")


def test_what_is_wrong_is_told_before_anything_starts(tmp_path: Path, cli: Commands) -> None:
    (cli.runs / "lab-1").mkdir(parents=True)
    (cli.runs / "lab-1" / "run.db").touch()
    assert cli("serve", "lab-2").stderr.splitlines()[0] == "error: no run 'lab-2'"
    done = cli("serve", "lab-1")
    assert (done.returncode, "no profile.yaml" in done.stderr, done.stdout) == (2, True, "")
    (cli.runs / "lab-1" / "profile.yaml").touch()
    done = cli("serve", "lab-1", "--host", "0.0.0.0")
    assert (done.returncode, "--allow-remote" in done.stderr, done.stdout) == (2, True, "")
    with listen("127.0.0.1", 0) as taken:
        done = cli("serve", "lab-1", "--port", str(taken.getsockname()[1]))
    assert (done.returncode, done.stderr.splitlines()[0]) == (2, "error: the port is in use")
    missing = "import sys; sys.modules['textual_serve'] = None; from lamdatui.cli.app import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", missing, "serve", "lab-1"], cwd=tmp_path, env=os.environ, capture_output=True, text=True
    )
    assert (done.returncode, "pip install 'lamdatui[serve]'" in done.stderr) == (2, True)
    assert not (cli.runs / "lab-1" / "engine.log").exists()


@pytest.mark.parametrize(("host", "port"), [("192.0.2.7", 0), ("no such host", 0)])
def test_an_address_that_is_not_ours_is_an_error_with_a_fix(host: str, port: int) -> None:
    with pytest.raises(LamdatuiError, match="can't listen") as refused:
        listen(host, port)
    assert refused.value.exit_code == 2


def test_the_command_serves_a_real_run(lab_profile, cli: Commands) -> None:
    """Engines leave after a fifth of a second without a client here: sooner than a tab's console is up."""
    assert cli("run", str(lab_profile()), "--name", "seen", "--headless", "--mode", "auto", "--max-trials", "1").returncode == 0
    with command_served(cli, "seen") as (base, guard):
        port = int(base.rsplit(":", 1)[1])
        with socket.create_connection(("127.0.0.1", port)) as plain:
            plain.sendall(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
            assert plain.recv(100).startswith(b"HTTP/1.1 403")

        async def look() -> bytes:
            async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as session:
                return await screen(await Browser(session, base, guard).connect(), b"run ended", b"seen")

        asyncio.run(look())


def test_without_a_run_the_start_screen_opens_consoles_in_its_tab(lab_profile, cli: Commands) -> None:
    done = cli("run", str(lab_profile()), "--name", "seen", "--headless", "--mode", "read-only", "--max-trials", "1")
    assert done.returncode == 0
    # The console is told of the run by a command, which has left before the console connects; the start screen's process
    # holds the engine meanwhile. A second is for that command to end in.
    with command_served(cli, LAMDATUI_LINGER="1") as (base, guard):

        async def look() -> None:
            async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as session:
                browser = Browser(session, base, guard)
                assert (await browser.get("/"))[0] == 403
                assert "runs" in (await browser.get("/", browser.cookie))[1]
                tab = Tab(await browser.connect())
                await tab.send("focus")
                await tab.until("runs in ", "Profiles", "This machine", " seen ")
                await tab.send("resize", {"width": 140, "height": 33})
                for _ in range(2):
                    await tab.send("stdin", "\r")
                    # It has the size that the tab has by now: its last line is the footer.
                    await tab.until("run ended", "Pipeline", lines={33: "^q"}, columns=140)
                    await tab.send("stdin", "\x11")
                    await tab.until("runs in ", "Profiles", " seen ", columns=140)
                await tab.send("stdin", "q")
                assert await tab.end() is aiohttp.WSMsgType.CLOSE, "who leaves the start screen leaves the tab"

        asyncio.run(look())


class Tab:
    """A websocket and the terminal that its page would draw, which is larger than what it says of itself."""

    def __init__(self, connection: aiohttp.ClientWebSocketResponse) -> None:
        self._connection = connection
        self._screen = pyte.Screen(200, 60)
        self._stream = pyte.ByteStream(self._screen)

    async def send(self, *message: object) -> None:
        await self._connection.send_json(message)

    @property
    def lines(self) -> list[str]:
        """What stands on the terminal."""
        return [line.rstrip() for line in self._screen.display]

    async def until(self, *words: str, lines: dict[int, str] | None = None, columns: int = 0) -> None:
        """Draw what comes until all words stand on the screen, some in their lines, and its longest line has so many columns."""

        def drawn() -> bool:
            text = "\n".join(self.lines)
            placed = all(word in self.lines[number - 1] for number, word in (lines or {}).items())
            return placed and all(word in text for word in words) and columns in (0, max(map(len, self.lines)))

        try:
            async with asyncio.timeout(30):
                while not drawn():
                    message = await self._connection.receive()
                    assert message.type is aiohttp.WSMsgType.BINARY, message
                    self._stream.feed(message.data)
        except TimeoutError:
            pytest.fail("the screen did not get there:\n" + "\n".join(self.lines))

    async def end(self) -> aiohttp.WSMsgType:
        """How the connection ends."""
        try:
            async with asyncio.timeout(20):
                while (message := await self._connection.receive()).type is aiohttp.WSMsgType.BINARY:
                    self._stream.feed(message.data)
        except TimeoutError:
            pytest.fail("the tab was not left:\n" + "\n".join(self.lines))
        return message.type


@contextmanager
def command_served(cli: Commands, *words: str, **environment: str) -> Iterator[tuple[str, Guard]]:
    """`lamdatui serve` on a free port: its address, and a guard that knows its token."""
    process = cli.popen("serve", *words, "--port", "0", **environment)
    try:
        assert process.stdout is not None
        base, token = process.stdout.readline().strip().split("/?token=")
        yield base, Guard(token)
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0


@pytest.mark.parametrize(
    ("data", "length"),
    [
        (b"", 0),
        (b"D\0\0", 0),
        (b"D\0\0\0\2a", 0),
        (b"D\0\0\0\2ab", 7),
        (b"D\0\0\0\0M\0\0\0\1xD", 11),
        (b"D\0\0\1\0" + b"x" * 256, 261),
    ],
)
def test_only_whole_packets_are_read_from_what_the_next_app_reads_on(data: bytes, length: int) -> None:
    assert whole(data) == length
