"""Text that wants to act: a generator of it, and a run in which every string that came from outside is such text."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

Json = dict[str, Any]

MAGIC = "6666"
"""In hostile sequences where a number may stand: nothing of ours has it."""

_SEQUENCES = (
    "\x1b[2J", "\x1b[31m", f"\x1b[{MAGIC}m", f"\x1b[{MAGIC};1H", "\x1b[?1049l", "\x1b[?1000h", "\x1b[?25h", "\x1b[6n", "\x1b[c", "\x1b[>0q",
    "\x1b[21t", "\x1b[8;1;1t", "\x1b[3J", "\x1b[1L", "\x1b[5i", "\x1b[!p", "\x1b[20h", "\x1b[4h", "\x1b[?69h", "\x1b[99999999999C",
    f"\x1b]0;title {MAGIC}\x07", f"\x1b]2;title {MAGIC}\x1b\\", "\x1b]52;c;cm0gLXJmIH4=\x07", "\x1b]52;c;?\x07", "\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\",
    "\x1b]9;note\x07", "\x1b]777;notify;a;b\x07", "\x1b]1337;File=name=eA==:AAAA\x07", "\x1b]4;1;?\x07", "\x1b]22;wait\x07", "\x1b]104\x07",
    "\x1bP$q\"p\x1b\\", "\x1bPtmux;\x1b\x1b]0;t\x07\x1b\\", "\x1bP0;1|17/41\x1b\\", "\x1b_Gf=100;AAAA\x1b\\", "\x1b^private\x1b\\", "\x1bXstring\x1b\\",
    "\x1bc", "\x1b7", "\x1b8", "\x1bM", "\x1bD", "\x1bE", "\x1bH", "\x1b=", "\x1b>", "\x1b(0", "\x1b)B", "\x1b#8", "\x1b%G", "\x1bN", "\x1bO", "\x1bn", "\x1b|",
    "\x9b2J", "\x9b31m", "\x9d0;title\x9c", "\x90q\x9c", "\x9fGx\x9c", "\x9e\x9c", "\x98\x9c", "\x84\x85\x88\x8d\x8e\x8f", "\xc2\x9b2J",
    "\x1b", "\x1b[", "\x1b]", "\x1bP", "\x1b[31", "\x1b]0;open", "\x1b\x1b[2J", "\x1b[\x1b[2J", "\x1b[3\x181m", "\x1b[2\nJ",
)  # fmt: skip
_CHARACTERS = (
    *map(chr, range(0x20)), *map(chr, range(0x7F, 0xA0)), "\r\n", "\t\t", "\n\n\n", "a\rb", "a\bb", "\x00",
    "\u202e", "\u202d", "\u202a\u202b\u202c", "\u2066\u2067\u2068\u2069", "\u200e\u200f\u061c", "\u200b\u200c\u200d\u2060\ufeff", "\u00ad\u034f\u180e",
    "\u2028", "\u2029", "\u0085", "\ufff9\ufffa\ufffb", "\U000e0001\U000e0041\U000e007f", "\U0001d173", "\u115f\u1160\u3164\uffa0", "\ufe0f\ufe0e",
    "\ud800", "\udfff", "\udc9b", "\ud83d", "\uffff", "\ufffe", "\U0010ffff", "\ue000", "\U000f0000",
    "e" + "\u0301" * 60, "\u0e33" * 9, "\u20dd" * 12, "\U0001f468\u200d\U0001f469\u200d\U0001f467", "\u0600\u06dd\u070f", "\u4e2d\u6587", "\uff21",
)  # fmt: skip
_MARKUP = (
    "[red]", "[/]", "[bold red on blue]x[/]", "[@click=app.quit]x[/]", "[@click=app.quit()]", "[link=file:///etc/passwd]x[/link]", "[/red]", "\\[", "[[",
    "[b", "[]", "[=]", "[/nope]", "[$error]", "[not a tag", ":skull:", "{name}", "{0}", "{data[x]}", "%s%n", "$HOME", "`x`", "<b>&amp;", "$(x)", "{{", "}}",
    "[on #ff0000]", "[link='\x1b]8;;x\x07']", "[@mouse.down=app.bell]", "{x!r:>99999}",
)  # fmt: skip


def strings(count: int, seed: int = 0) -> Iterator[str]:
    """`count` different strings, each with a name of its own (`h000042`) between the parts that want to act."""
    random_ = random.Random(seed)
    parts = (*_SEQUENCES, *_CHARACTERS, *_MARKUP)
    for number in range(count):
        # Each part comes on its own and in turn first, so that the first hundreds have them all.
        first = parts[number % len(parts)]
        more = [random_.choice(parts) for _ in range(random_.choice((0, 0, 1, 1, 2, 4)))]
        name = f"h{number:06d}"
        yield f"{first}{name}{''.join(more)}" if number % 2 else f"{name}{first}{name}{''.join(more)}"


class Disguise:
    """Puts a hostile string in the place of each text of a run, the same one wherever the same text stands."""

    STRUCTURE = frozenset({"kind", "type", "status", "verdict", "mode", "split", "when", "digest", "phase", "format", "step"})
    """Fields whose values are words of ours, and are disguised only when `everything` is."""

    def __init__(self, source: Iterator[str], *, everything: bool) -> None:
        self._source = source
        self._everything = everything
        self._known: dict[str, str] = {}
        self.used = 0

    def fresh(self) -> str:
        """A hostile string that was not used yet."""
        self.used += 1
        return next(self._source)

    def text(self, value: str) -> str:
        """What stands for a text."""
        if value not in self._known:
            self._known[value] = self.fresh()
        return self._known[value]

    def value(self, value: Any, name: str = "") -> Any:
        """A JSON value in which every text is hostile."""
        if isinstance(value, str):
            return value if name in self.STRUCTURE and not self._everything else self.text(value)
        if isinstance(value, dict):
            return {self._key(key, name): self.value(item, key) for key, item in value.items()}
        if isinstance(value, list):
            return [self.value(item, f"{name}[]") for item in value]
        return value

    def _key(self, key: str, within: str) -> str:
        """Keys that are names of somebody's things (tasks, hyperparameters, slots, action types) are texts, too."""
        named = within in ("scores", "params", "inputs", "types")
        return self.text(key) if named and key not in ("search", "sealed") else key
