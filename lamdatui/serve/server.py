"""`lamdatui serve`: a console of a run for each browser tab, on textual-serve.

textual-serve starts a program for a websocket and has the page with the terminal; who may reach it, how many, and what
happens to the programs in the end is settled here. A tab's console is a pure client: closing it stops nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import html
import os
import shlex
import signal
import socket
import sys
from asyncio.subprocess import Process
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Any

from aiohttp import WSMsgType, web
from textual_serve.app_service import AppService
from textual_serve.server import Server

from lamdatui.base.errors import EXIT_DONE, LamdatuiError
from lamdatui.base.output import complain, say
from lamdatui.serve.access import Guard

MAX_TABS = 16
MESSAGE_BYTES = 1024 * 1024
CLOSE_SECONDS = 5.0
STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
CELLS = (1, 1000)
FONT_PIXELS = (6, 48)
_PAGE = Path(__file__).parent / "page.html"
_SCRIPT = Path(__file__).parent / "page.js"
# A page of ours instead of a redirect: a cookie that is strict would not be sent along when a link elsewhere led here.
_ENTER = '<!DOCTYPE html><meta http-equiv="refresh" content="0;url=/"><title>lamdatui</title>'

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True)
class Offer:
    """What is served: the console's command line, its name, and what keeps an engine there from before a tab opens to its end."""

    command: Sequence[str]
    title: str
    engine: Callable[[], AbstractContextManager[object]]


class TabConsole(AppService):
    """The console of one tab; it is killed when it does not end by itself."""

    process: Process | None = None

    def _build_environment(self, width: int = 80, height: int = 24) -> dict[str, str]:
        return super()._build_environment(width, height) | {"TEXTUAL_DRIVER": "lamdatui.ui.app.tabdriver:TabDriver"}

    async def _open_app_process(self, width: int = 80, height: int = 24) -> Process:
        self.process = process = await super()._open_app_process(width, height)
        return process

    async def run(self) -> None:
        """Pass on what the console draws; where it ends, whatever the reason, the tab is closed."""
        await super().run()
        await self.remote_close()

    async def finish(self) -> None:
        """End the console and wait until it has ended."""
        with contextlib.suppress(TimeoutError, ConnectionError):
            await asyncio.wait_for(self.stop(), CLOSE_SECONDS)
        if self.process is None:
            return
        self.stdin.close()
        # Read to the end: a console that nobody reads can't leave, and a pipe that is not at its end is never closed.
        try:
            await asyncio.wait_for(self.process.communicate(), CLOSE_SECONDS)
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                self.process.kill()
            await self.process.communicate()


class ConsoleServer(Server):
    """Every route passes the guard; every answer carries the headers that keep other pages out."""

    def __init__(self, offer: Offer, guard: Guard) -> None:
        tab = [sys.executable, "-P", "-m", "lamdatui.serve.tab", str(os.getpid()), *offer.command]
        super().__init__(f"exec {shlex.join(tab)}", title=offer.title)
        self._offer = offer
        self._guard = guard
        self._tabs: set[asyncio.Task[Any]] = set()
        self._endings: set[asyncio.Task[None]] = set()

    def application(self) -> web.Application:
        """The aiohttp application."""
        app = web.Application(middlewares=[self._admit])
        app.on_response_prepare.append(_harden)
        app.on_shutdown.append(self.on_shutdown)
        app.add_routes(
            [
                web.get("/", self.page),
                web.get("/page.js", self.script),
                web.get("/ws", self.open_tab),
                web.get("/download/{key}", self.handle_download),
                web.static("/static", self.statics_path),
            ]
        )
        return app

    @web.middleware
    async def _admit(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        hosts, origins = request.headers.getall("Host", []), request.headers.getall("Origin", [])
        if reason := self._guard.refusal(hosts, origins, websocket=request.path == "/ws"):
            return _refused(reason)
        if self._guard.knows_cookie(request.cookies.get(self._guard.cookie_name, "")):
            return await handler(request)
        if request.path == "/" and self._guard.knows_token(request.query.get("token", "")):
            return self._enter()
        return _refused("the token is missing or wrong: open the address that `lamdatui serve` printed")

    def _enter(self) -> web.Response:
        response = web.Response(text=_ENTER, content_type="text/html")
        response.set_cookie(self._guard.cookie_name, self._guard.cookie_value, httponly=True, samesite="Strict", path="/")
        return response

    async def page(self, request: web.Request) -> web.Response:
        """The page with the terminal. A token in its address is taken out of it."""
        if "token" in request.query:
            return self._enter()
        # A proxy that adds TLS says so; the page would not be allowed a connection without it.
        scheme = "wss" if request.headers.get("X-Forwarded-Proto") == "https" else "ws"
        values = {
            "title": html.escape(self._offer.title),
            "websocket": html.escape(f"{scheme}://{request.host}/ws"),
            "font_size": str(_within(request.query.get("fontsize"), FONT_PIXELS, 16)),
        }
        return web.Response(text=Template(_PAGE.read_text(encoding="utf-8")).substitute(values), content_type="text/html")

    async def script(self, request: web.Request) -> web.Response:
        """What the page runs of our own: the content policy lets no script stand in the page itself."""
        return web.Response(text=_SCRIPT.read_text(encoding="utf-8"), content_type="text/javascript")

    async def open_tab(self, request: web.Request) -> web.StreamResponse:
        """One tab, from its opening to its end."""
        if len(self._tabs) >= MAX_TABS:
            return web.Response(status=503, text=f"{MAX_TABS} consoles are open already; close one\n")
        task = asyncio.current_task()
        assert task is not None
        self._tabs.add(task)
        try:
            return await self._tab(request)
        finally:
            self._tabs.discard(task)

    async def _tab(self, request: web.Request) -> web.StreamResponse:
        with contextlib.ExitStack() as kept:
            try:
                await asyncio.to_thread(kept.enter_context, self._offer.engine())
            except LamdatuiError as error:
                return web.Response(status=503, text=f"{error}\n")
            return await self._console(request)

    async def _console(self, request: web.Request) -> web.StreamResponse:
        width, height = _size(request.query)
        connection = web.WebSocketResponse(heartbeat=15, max_msg_size=MESSAGE_BYTES)
        await connection.prepare(request)

        async def close() -> None:
            await connection.close()

        console = TabConsole(
            self.command,
            write_bytes=connection.send_bytes,
            write_str=connection.send_str,
            close=close,
            download_manager=self.download_manager,
        )
        try:
            await console.start(width, height)
            await _listen(connection, console)
        except (ValueError, TypeError, LookupError, AttributeError):
            await connection.close(code=1007, message=b"unreadable message")
        finally:
            await asyncio.shield(self._ending(console))
            await connection.close()
        return connection

    def _ending(self, console: TabConsole) -> asyncio.Task[None]:
        """The end of a console. It is remembered: a tab that is cancelled while it waits for it leaves it to the server's end."""
        task = asyncio.create_task(console.finish())
        self._endings.add(task)
        task.add_done_callback(self._endings.discard)
        return task

    async def on_shutdown(self, app: web.Application) -> None:
        """End every tab's console, and wait for those that are ending already."""
        tabs = list(self._tabs)
        for tab in tabs:
            tab.cancel()
        await asyncio.gather(*tabs, return_exceptions=True)
        await asyncio.gather(*self._endings, return_exceptions=True)


async def _listen(connection: web.WebSocketResponse, console: TabConsole) -> None:
    """Pass on what a tab sends. Raises what reading JSON of another shape raises."""
    async for message in connection:
        if message.type != WSMsgType.TEXT:
            continue
        envelope = message.json()
        kind, data = envelope[0], envelope[1] if len(envelope) > 1 else None
        if kind == "stdin":
            await console.send_bytes(str(data).encode("utf-8", "replace"))
        elif kind == "resize":
            await console.set_terminal_size(*_size(data))
        elif kind == "ping":
            await connection.send_json(["pong", data])
        elif kind in ("focus", "blur"):
            await (console.focus() if kind == "focus" else console.blur())


async def _harden(request: web.Request, response: web.StreamResponse) -> None:
    """Nothing from elsewhere is loaded, nobody frames us, nothing is kept, and no address is told to others."""
    policy = (
        f"default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; font-src 'self'; img-src 'self' data:; "
        f"connect-src 'self' ws://{request.host} wss://{request.host}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    response.headers.update(
        {
            "Content-Security-Policy": policy,
            "X-Content-Type-Options": "nosniff",
            "X-Frame-Options": "DENY",
            "Referrer-Policy": "no-referrer",
            "Cross-Origin-Resource-Policy": "same-origin",
            "Cross-Origin-Opener-Policy": "same-origin",
            "Cache-Control": "no-store",
        }
    )
    response.headers.pop("Server", None)


def _refused(reason: str) -> web.Response:
    return web.Response(status=403, text=f"refused: {reason}\n")


def _size(asked: Any) -> tuple[int, int]:
    """Columns and rows that a terminal can have."""
    return _within(asked.get("width"), CELLS, 80), _within(asked.get("height"), CELLS, 24)


def _within(value: object, limits: tuple[int, int], default: int) -> int:
    low, high = limits
    try:
        return min(high, max(low, int(str(value))))
    except ValueError:
        return default


def listen(host: str, port: int) -> socket.socket:
    """A listening socket. Raises LamdatuiError when the port is taken or the address can't be used."""
    where = f"{host} port {port}"
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        found = socket.socket(family, kind, protocol)
    except (OSError, UnicodeError) as error:
        raise LamdatuiError(f"can't listen on {host!r}", where="--host", fix="127.0.0.1 always works") from error
    try:
        # A port that was served a moment ago must not be refused.
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind(address)
        found.listen()
    except OSError as error:
        found.close()
        if error.errno == errno.EADDRINUSE:
            raise LamdatuiError("the port is in use", where=where, fix="give another --port; 0 takes a free one") from error
        if error.errno == errno.EACCES:
            raise LamdatuiError("this port needs rights that you don't have", where=where, fix="a port above 1023") from error
        raise LamdatuiError(f"can't listen: {os.strerror(error.errno or 0)}", where=where) from error
    return found


def serve(offer: Offer, guard: Guard, door: socket.socket, token_file: Path | None) -> int:
    """Serve until INT, TERM or HUP; the exit code. The address is printed once, with the token unless a file has it."""
    host, port = door.getsockname()[:2]
    base = f"http://{f'[{host}]' if ':' in host else host}:{port}/"
    if guard.remote:
        complain(
            "warning: other machines can reach this port, and what they send and see is not encrypted;\n"
            "         who has the token can steer the run"
        )
    complain(f"{offer.title} in a browser; ctrl+c ends this, never the run")
    say(f"{base}?token={guard.token}" if token_file is None else f"{base}?token=(what {token_file} holds)", flush=True)
    asyncio.run(_until_stopped(ConsoleServer(offer, guard), door))
    return EXIT_DONE


async def _until_stopped(server: ConsoleServer, door: socket.socket) -> None:
    stopped = asyncio.Event()
    for number in STOPS:
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    # No access log: it would hold the token.
    runner = web.AppRunner(server.application(), access_log=None, shutdown_timeout=CLOSE_SECONDS)
    await runner.setup()
    try:
        await web.SockSite(runner, door).start()
        await stopped.wait()
    finally:
        await runner.cleanup()
