"""What a program wrote to a terminal, byte by byte: sequences by form, modes that are still on, text that acts."""

from __future__ import annotations

import base64
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

_TOKEN = re.compile(
    rb"\x1b\[(?P<csi>[0-?]*[ -/]*[@-~])"
    rb"|\x1b\](?P<osc>[^\x07\x1b]*)(?:\x07|\x1b\\)"
    rb"|\x1bP(?P<dcs>[^\x1b]*)\x1b\\"
    rb"|\x1b(?P<esc>[ -/]*[0-Z\\^-~])"
    rb"|(?P<c0>[\x00-\x1f\x7f])"
    rb"|(?P<text>[^\x00-\x1f\x7f]+)"
)
_BEGUN = re.compile(rb"\x1b(?:\[[0-?]*[ -/]*|\][^\x07\x1b]*\x1b?|P[^\x1b]*\x1b?|[ -/]*)\Z")
_COLOUR = re.compile(r"[34]8;(?:2;(?P<rgb>\d{1,3};\d{1,3};\d{1,3})|5;(?P<index>\d{1,3}))(?:;|$)")
_ATTRIBUTES = frozenset(map(str, range(30)))
OURS = re.compile(
    r"text|c0 b'\\[rn]'(, then csi (N;NH|\?[0-9]+[hl]|<u))?|esc b'[78>=]'"
    r"|csi ((?:\+?(?:[12]?[0-9]|[34]8;[25]N))*m|N;NH|N;Nt|[<>][0-9]*u|\?[0-9]+\$p|\?(1|7|25|1000|1002|1003|1004|1006|1015|1016|1049|2004|2026|2048)[hl])"
    r"|osc (2;TEXT|9;TEXT|22;SHAPE|52;b'c';BASE64)"
)
"""The forms of what a console writes. A line ends where the next one is told its place, never within a text."""
LONGEST = 4096
"""A sequence that is not complete after so many bytes is none."""


@dataclass(frozen=True)
class Token:
    """One sequence, one control character or one run of text."""

    kind: str
    raw: bytes

    @property
    def form(self) -> str:
        """What it does, without the numbers that may differ: `csi N;NH`, `csi ?25l`, `c0 0x0a`, `text`."""
        if self.kind == "csi":
            return f"csi {_csi_form(self.raw.decode('ascii'))}"
        if self.kind == "osc":
            return f"osc {_osc_form(self.raw)}"
        return "text" if self.kind == "text" else f"{self.kind} {self.raw!r}"


def _csi_form(body: str) -> str:
    if body.endswith("m"):
        return f"{_sgr_form(body[:-1])}m"
    # The numbers of modes are what they mean; other numbers are places.
    return body if body[:1] in "?><=" else re.sub(r"\d{1,3}", "N", body)


def _sgr_form(body: str) -> str:
    kinds, rest = set[str](), body
    while rest:
        if colour := _COLOUR.match(rest):
            numbers = (colour["rgb"] or colour["index"]).split(";")
            kinds.add(f"{rest[:4]}N" if all(int(number) < 256 for number in numbers) else rest)
            rest = rest[colour.end() :]
            continue
        first, _, rest = rest.partition(";")
        kinds.add(first if first in _ATTRIBUTES else f"?{first}")
    return "+".join(sorted(kinds))


def _osc_form(raw: bytes) -> str:
    number, _, rest = raw.partition(b";")
    if number == b"52":
        target, _, payload = rest.partition(b";")
        try:
            base64.b64decode(payload, validate=True)
        except ValueError:
            return f"52;not base64 {payload[:20]!r}"
        return f"52;{target!r};BASE64"
    if number == b"22":
        return "22;SHAPE" if re.fullmatch(rb"[a-z-]{0,12}", rest) else f"22;{rest[:20]!r}"
    if number in (b"0", b"2", b"9"):
        return f"{number.decode()};TEXT" if not acting(rest) else f"{number.decode()};acting {rest[:40]!r}"
    return repr(raw[:40])


def tokens(data: bytes) -> Iterator[Token]:
    """The stream in pieces; what can't be a whole sequence is a lone control character."""
    place = 0
    while place < len(data):
        match = _TOKEN.match(data, place)
        assert match is not None and match.lastgroup is not None
        yield Token(match.lastgroup, match[match.lastgroup])
        place = match.end()


def acting(text: bytes) -> list[str]:
    """What in a run of text is not to be shown: bytes that are no UTF-8, C1 controls, direction and zero-width characters."""
    try:
        decoded = text.decode()
    except UnicodeDecodeError as error:
        return [f"bytes {text[error.start : error.start + 4]!r}"]
    if decoded.isascii():
        return []
    return [f"U+{ord(c):04X}" for c in decoded if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp")]


@dataclass
class Watch:
    """Counts every form in a stream that comes in pieces, and what in it acts although it should be text."""

    forms: Counter[str] = field(default_factory=Counter)
    found: Counter[str] = field(default_factory=Counter)
    _rest: bytes = b""
    _before: str = ""

    def feed(self, data: bytes) -> None:
        """Take in a piece; a sequence or character that is cut off waits for the rest of it."""
        data = self._rest + data
        cut = self._cut(data)
        self._rest = data[cut:] if len(data) - cut < LONGEST else b""
        data = data[:cut] if self._rest else data
        for token in tokens(data):
            # A line that ends goes on in a place that is told; a line break in a text does not.
            self.forms[f"c0 b'\\n', then {token.form}" if self._before == "\n" else token.form] += 1
            if token.kind == "text":
                self.found.update(f"text with {name}" for name in acting(token.raw))
            self._before = token.raw.decode("latin-1") if token.kind == "c0" else token.kind

    def _cut(self, data: bytes) -> int:
        """Where what may be incomplete begins."""
        if begun := _BEGUN.search(data, max(0, len(data) - LONGEST)):
            return begun.start()
        for back in range(1, min(4, len(data)) + 1):
            lead = data[-back]
            if lead >= 0xC0:
                needed = 2 if lead < 0xE0 else 3 if lead < 0xF0 else 4
                return len(data) - back if back < needed else len(data)
            if lead < 0x80:
                break
        return len(data)

    @property
    def strange(self) -> Counter[str]:
        """What a console has no reason to write, with how often."""
        return Counter({form: count for form, count in self.forms.items() if not OURS.fullmatch(form)}) + self.found


def modes_left_on(data: bytes) -> set[str]:
    """What a stream leaves switched on that a shell's terminal has not, and the other way round."""
    modes: dict[str, bool] = {}
    keyboard, styled, pointer = 0, False, b""
    for token in tokens(data):
        body = token.raw
        if token.kind == "osc" and body.startswith(b"22;"):
            pointer = body[3:]
        if token.kind != "csi":
            continue
        if match := re.fullmatch(rb"\?([0-9;]+)([hl])", body):
            for number in match[1].decode().split(";"):
                modes[number] = match[2] == b"h"
        elif re.fullmatch(rb">[0-9]*u", body):
            keyboard += 1
        elif body.startswith(b"<") and body.endswith(b"u"):
            keyboard = max(0, keyboard - 1)
        elif body.endswith(b"m"):
            styled = body not in (b"m", b"0m")
    wanted = {"25": True, "7": True}
    left = {f"?{number}{'h' if on else 'l'}" for number, on in modes.items() if on != wanted.get(number, False)}
    return (
        left | ({"keyboard"} if keyboard else set()) | ({"colour"} if styled else set()) | ({"pointer"} if pointer else set())
    )
