"""Valid input made wrong: changes of bytes, and of the values that JSON or YAML hold. The same dice make the same input."""

from __future__ import annotations

import copy
import json
import random
import re
from collections.abc import Iterator, Sequence
from typing import Any

RAW: dict[str, str] = {
    "nan": "NaN",
    "infinity": "-Infinity",
    "beyond floats": "1e999",
    "many digits": "9" * 5000,
    "400 digits": "1" + "0" * 400,
    "negative digits": "-" + "9" * 400,
    "64 bits": str(2**63),
    "lone surrogate": '"\\ud800"',
    "surrogate pair": '"\\ud83d\\ude00"',
    "escaped nul": '"\\u0000"',
    "raw nul": '"a\0b"',
    "raw control": '"\x1b[2J\x07\x9b"',
    "twice": '{"a": 1, "a": [2]}',
    "deep list": "[" * 90 + "]" * 90,
    "deeper list": "[" * 400 + "]" * 400,
    "deepest list": "[" * 30_000 + "]" * 30_000,
    "unclosed": "[" * 30_000,
    "deep object": '{"a":' * 150 + "1" + "}" * 150,
    "long text": '"' + "x" * 70_000 + '"',
    "long bidi": '"' + "\u202e\u200b\U000e0041" * 500 + '"',
    "many": "[" + ",".join(["0"] * 3000) + "]",
    "yaml alias": "*a",
    "yaml anchor": "&a [*a, *a]",
    "yaml merge": "{<<: {a: 1}}",
    "yaml tag": "!!python/object/apply:os.system [x]",
    "yaml binary": "!!binary QUFB",
    "yaml date": "2024-01-01",
    "base 60": "1:59:59:59",
    "hexadecimal": "0xffffffffffffffffffff",
    "nothing": "",
}
"""Text that no encoder writes: put in where a value stands."""
VALUES: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2, 7, 2**31, 2**53, 2**63, -(2**63), 10**30, 0.0, -0.0, 0.5, 1e-320, 1e300, "", " ", "x", "0", "1", "-1", "1e5", "nan",
    "inf", "true", "null", "\u0000", "\x1b[31m", "\u202eabc", "\ud800", "\udfff\ud800", "\ufeff", "\r\n", "\u2028", "e\u0301\u0301\u0301\u0301", "\U0001f600",
    "/", "..", "../../x", "/dev/zero", "/" * 5000, "a/" * 3000, "~nobody-of-that-name/x", "*", "[", "a\0b", "{{ x }}", "{% for %}", "A" * 300, "user",
    "assistant", "search", "store:x", "٣", "²", [], [[]], [None], [0], [1, 2], ["a", "a"], [{}], [[1], ["a"]], {}, {"": 0}, {"a": None}, {"a": {"b": [1]}}, {"\ud800": 1},
    {"x": 1e300}, {"type": "text", "text": "x"},
)  # fmt: skip
TOKENS: tuple[bytes, ...] = (
    b"\0", b"\xff", b"\xff\xfe", b"\xfe\xff", b"\xef\xbb\xbf", b"\xed\xa0\x80", b"\xc0\x80", b"\xf4\x90\x80\x80", b"\xe2\x80\xae", b"\x1b[2J", b"\x1b]0;t\x07", b"\r", b"\n",
    b"\r\n", b"\n\n\n", b"\t", b"\x0b\x0c", b"\x85", b"\xe2\x80\xa8", b" " * 300, b"\n" * 300, b"[", b"]", b"{", b"}", b'"', b"'", b"\\", b"\\u", b"\\ud800", b",", b":", b": ",
    b"- ", b"? ", b"| ", b"> ", b"# ", b"&a ", b"*a", b"<<: *a", b"!!python/name:os.system", b"!!map", b"%YAML 1.1\n---\n", b"---\n", b"...\n", b"@", b"`", b"NaN", b"Infinity",
    b"1e999", b"9" * 5000, b"-", b"0x", b"1_0", b"null", b"true", b"[" * 2000, b'{"a":' * 500, b"]" * 50, b"}" * 50, b"- " * 400, b"? " * 400, b"[{a: " * 300, b"x" * 70_000,
    b"\x00\x00\x00\x00", b"\xff\xff\xff\xff", b"\xff" * 8, b"\x7f\xff\xff\xff", b"\x80\x00\x00\x00", b"\x01\x00\x00\x00\x00\x00\x00\x80",
)  # fmt: skip
_WORD = re.compile(rb'"(?:[^"\\]|\\.){0,200}"|[A-Za-z_]+|-?\d+(?:\.\d+)?')
_MARK = re.compile(r'"@raw:([^"]+)@"')
MOST = 1 << 18
"""Bytes of a mutant: larger ones are cut."""


def mutate(dice: random.Random, data: bytes, others: Sequence[bytes] = ()) -> bytes:
    """The bytes with one to four changes."""
    found = bytearray(data)
    for _ in range(dice.choice((1, 1, 2, 4))):
        _change(dice, found, others)
        del found[MOST:]
    return bytes(found)


def _span(dice: random.Random, size: int) -> slice:
    start = dice.randrange(size + 1)
    return slice(start, min(size, start + dice.choice((1, 1, 2, 4, 8, 32, 256, 4096))))


def _change(dice: random.Random, data: bytearray, others: Sequence[bytes]) -> None:
    span = _span(dice, len(data))
    match dice.randrange(10):
        case 0 if data:
            data[dice.randrange(len(data))] ^= 1 << dice.randrange(8)
        case 1 if data:
            data[dice.randrange(len(data))] = dice.choice(
                (0, 1, 9, 10, 13, 27, 32, 34, 91, 92, 123, 127, 128, 255, dice.randrange(256))
            )
        case 2:
            del data[span]
        case 3:
            data[span.start : span.start] = data[span] * dice.choice((1, 2, 20, 300))
        case 4 if others:
            other = dice.choice(others)
            data[span] = other[_span(dice, len(other))]
        case 5 if others:
            other = dice.choice(others)
            data[span.start :] = other[dice.randrange(len(other) + 1) :]
        case 6:
            del data[span.start :]
        case 7:
            _replace_word(dice, data)
        case 8:
            piece = data[span]
            del data[span]
            place = dice.randrange(len(data) + 1)
            data[place:place] = piece
        case _:
            data[span.start : span.start] = dice.choice(TOKENS)


def _replace_word(dice: random.Random, data: bytearray) -> None:
    found = list(_WORD.finditer(bytes(data[:20_000])))
    if not found:
        return
    word, other = dice.choice(found), dice.choice(found)
    if dice.random() < 0.3:
        data[slice(*word.span())] = other[0]
    else:
        data[slice(*word.span())] = dice.choice(list(RAW.values())).encode("utf-8", "surrogatepass")


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """(container, key) of everything in a JSON value."""
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in list(parts):
        yield value, key
        yield from places(item)


def reshape(dice: random.Random, value: Any, others: Sequence[Any] = (), changes: Sequence[int] = (1, 1, 2, 4)) -> Any:
    """A copy of a JSON value with some of its parts replaced, removed, doubled, moved or wrapped; `dumped` gives its text."""
    held = [copy.deepcopy(value)]
    for _ in range(dice.choice(changes)):
        container, key = dice.choice(list(places(held)))
        _reshape(dice, container, key, held, others)
    return held[0] if held else None


def _reshape(dice: random.Random, container: Any, key: Any, held: list[Any], others: Sequence[Any]) -> None:
    item = container[key]
    match dice.randrange(9):
        case 0 if container is not held:
            del container[key]
        case 1 if isinstance(container, list) and container is not held:
            container.insert(key, copy.deepcopy(item))
        case 1 if isinstance(container, dict):
            container[dice.choice(list(container))] = copy.deepcopy(item)
        case 2:
            container[key] = dice.choice(([item], {"a": item}, [item, item], {str(key): item}))
        case 3 if isinstance(item, dict | list) and item:
            container[key] = next(iter(item.values())) if isinstance(item, dict) else item[0]
        case 4:
            container[key] = _other_type(item)
        case 5 if isinstance(container, dict):
            name = dice.choice(("", "x", "\0", "\ud800", "1", str(key) * 2, f"{key} ", str(key).upper(), "A" * 300))
            container[name] = container.pop(key)
        case 6 if others:
            source, place = dice.choice(list(places([dice.choice(others)])))
            container[key] = copy.deepcopy(source[place])
        case 7:
            container[key] = f"@raw:{dice.choice(list(RAW))}@"
        case _:
            container[key] = copy.deepcopy(dice.choice(VALUES))


def _other_type(item: Any) -> Any:
    if isinstance(item, str):
        return int(item) if item.isascii() and item.isdigit() and len(item) < 20 else list(item[:5])
    if isinstance(item, bool):
        return str(item).lower()
    if isinstance(item, int | float):
        return str(item)
    if isinstance(item, list):
        return dict(enumerate(map(str, item[:3])))
    return list(item) if isinstance(item, dict) else 0


def dumped(value: Any, *, ascii_only: bool = True) -> str:
    """JSON of what `reshape` made, with raw text where it is marked."""
    text = json.dumps(_text_keys(value), ensure_ascii=ascii_only)
    return _MARK.sub(lambda match: RAW.get(match[1], match[0]), text)


def _text_keys(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _text_keys(item) for key, item in value.items()}
    return [_text_keys(item) for item in value] if isinstance(value, list) else value


def wrong_json(dice: random.Random, values: Sequence[Any]) -> bytes:
    """Bytes of one of the JSON values, changed as a value, as text, or as both."""
    how = dice.random()
    value = dice.choice(values)
    shaped = reshape(dice, value, values) if how < 0.85 else value
    data = dumped(shaped, ascii_only=dice.random() < 0.5).encode("utf-8", "surrogatepass")
    return mutate(dice, data) if how > 0.7 else data
