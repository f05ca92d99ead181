"""Textual's driver for a browser tab whose process shows one app after another: the start screen, a console, the start screen.

Textual's own driver is made for one app a process: it greets the server at every start, says at every end that the tab is
over, forgets the tab's size and focus, and its reader may take half a packet to its end.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from textual import events
from textual.app import App
from textual.drivers._input_reader import InputReader
from textual.drivers.web_driver import WebDriver

GREETING = b"__GANGLION__\n"
HEAD = 5
"""A packet's kind and the length of what follows."""


@dataclass
class BrowserTab:
    """What is known of the tab of this process, whichever app it shows."""

    greeted: bool = False
    size: tuple[int, int] | None = None
    focused: bool = False
    unread: bytes = b""
    """The beginning of a packet whose end has not come yet."""


TAB = BrowserTab()


def whole(data: bytes) -> int:
    """How many of these bytes are complete packets."""
    place = 0
    while len(data) - place >= HEAD:
        end = place + HEAD + int.from_bytes(data[place + 1 : place + HEAD], "big")
        if end > len(data):
            break
        place = end
    return place


class PacketReader(InputReader):
    """Yields complete packets, or nothing now and then; the rest is left to the next reader."""

    def __iter__(self) -> Iterator[bytes]:
        for data in super().__iter__():
            found = TAB.unread + data
            length = whole(found)
            TAB.unread = found[length:]
            yield found[:length]


class TabDriver(WebDriver):
    """The end of the tab is the end of the process; the server sees that by itself."""

    def __init__(self, app: App[Any], *, debug: bool = False, mouse: bool = True, size: tuple[int, int] | None = None) -> None:
        super().__init__(app, debug=debug, mouse=mouse, size=size or TAB.size)
        self._write = self._send
        self._input_reader = PacketReader()

    def _send(self, data: bytes) -> int:
        if data == GREETING:
            if TAB.greeted:
                return 0
            TAB.greeted = True
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(self.fileno, rest) :]
        return len(data)

    def start_application_mode(self) -> None:
        super().start_application_mode()
        if TAB.focused:
            # After the blur with which it begins.
            self._app.call_later(self._app.post_message, events.AppFocus())

    def stop_application_mode(self) -> None:
        self.exit_event.set()
        self._input_reader.close()
        if self._key_thread.is_alive():
            # What comes from now on is for the next app.
            self._key_thread.join()

    def on_meta(self, packet_type: str, payload: dict[str, object]) -> None:
        if packet_type == "resize":
            TAB.size = int(str(payload["width"])), int(str(payload["height"]))
        elif packet_type in ("focus", "blur"):
            TAB.focused = packet_type == "focus"
        super().on_meta(packet_type, payload)
