"""No string from outside steers the terminal."""

from __future__ import annotations

import ast
import json
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamdatui.base.text import FORBIDDEN, clean, clean_json, is_harmless, one_line
from lamdatui.ui.view.loglines import log_line
from lamdatui.wire.protocol import read_frame
from tests.conftest import CHECKOUT

ANY = st.text(st.characters(), max_size=60)
"""All code points, surrogates too."""


def is_safe(text: str) -> bool:
    return all(
        character in "\n\t" or unicodedata.category(character) not in ("Cc", "Cf", "Cs", "Zl", "Zp") for character in text
    )


@given(ANY)
def test_no_forbidden_code_point_survives(text: str) -> None:
    cleaned = clean(text)
    assert is_safe(cleaned)
    assert not FORBIDDEN.search(cleaned)
    cleaned.encode()


@given(ANY)
def test_cleaning_twice_changes_nothing_more(text: str) -> None:
    assert clean(clean(text)) == clean(text)


def test_every_control_and_format_character_is_covered() -> None:
    survivors = [code for code in range(0x110000) if not is_safe(clean(chr(code)))]
    assert survivors == []


@given(st.lists(st.one_of(ANY, st.sampled_from(["plain", "±0.08", "数据", "a\tb\n", "\\u202e"]))), st.booleans())
def test_what_is_called_harmless_needs_no_cleaning(texts: list[str], ascii_only: bool) -> None:
    value = {"type": "x", "texts": texts, **dict.fromkeys(texts, 1)}
    line = json.dumps(value, ensure_ascii=ascii_only).encode(errors="surrogatepass")
    try:
        told = json.loads(line.decode())
    except UnicodeDecodeError:
        with pytest.raises(ValueError):
            read_frame(line)
        return
    if is_harmless(line):
        assert clean_json(told) == told
    assert read_frame(line) == clean_json(told)


@pytest.mark.parametrize("text", ["plain", "gain +0.1 ± 0.05", "数据", "two\nlines", 'a "quote"'])
def test_ordinary_frames_take_the_fast_way(text: str) -> None:
    assert is_harmless(json.dumps({"type": "x", "text": text}, ensure_ascii=False).encode())


@pytest.mark.parametrize("line", [b"\xff\xfe{\x00}\x00", b'{"type": "\xed\xa0\x80"}', '{"type": "x"}'.encode("utf-16")])
def test_a_frame_is_read_as_utf_8_only(line: bytes) -> None:
    with pytest.raises(ValueError):
        read_frame(line)


@pytest.mark.parametrize("text", ["plain", "naïve Ünïcode 数据", "tabs\tand\nlines", "हिन्दी", "✓ ▶ ⊘"])
def test_ordinary_text_is_kept(text: str) -> None:
    assert clean(text) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31mred", "␛[31mred"),
        ("a\x07b\x7f", "a␇b␡"),
        ("\x9b2J", "\\x9b2J"),
        ("abc\u202egnp.exe", "abc\\u202egnp.exe"),
        ("zero\u200bwidth\ufeff", "zerowidth"),
        ("lone \ud800", "lone \ufffd"),
        ("a\r\nb\rc", "a\nb␍c"),
        ("e" + "\u0301" * 20, "e" + "\u0301" * 3),
    ],
)
def test_what_is_dangerous_is_shown_or_dropped(text: str, shown: str) -> None:
    assert clean(text) == shown


@given(st.recursive(st.none() | st.integers() | ANY, lambda inner: st.lists(inner) | st.dictionaries(ANY, inner), max_leaves=8))
def test_json_is_cleaned_at_every_depth(value: object) -> None:
    assert is_safe("".join(_strings(clean_json(value))))


def _strings(value: object) -> list[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        return [text for pair in value.items() for item in pair for text in _strings(item)]
    return [text for item in value for text in _strings(item)] if isinstance(value, list) else []


@given(ANY)
def test_one_line_is_one_line(text: str) -> None:
    assert len(one_line(text).splitlines()) <= 1


@given(st.binary(max_size=80))
def test_a_log_line_of_any_bytes_is_safe(raw: bytes) -> None:
    assert is_safe(log_line(raw.replace(b"\n", b"")))


def test_a_progress_bar_shows_its_last_state() -> None:
    assert log_line(b" 10%|#    |\r 20%|##   |\r") == " 20%|##   |"


def test_no_title_is_parsed_as_markup() -> None:
    """Textual parses a title that is a string, and text from outside with a bracket in it would end the console."""
    found = []
    for path in (CHECKOUT / "lamdatui" / "ui").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Assign):
                continue
            pairs = [(node.targets[0], node.value)]
            if isinstance(node.targets[0], ast.Tuple) and isinstance(node.value, ast.Tuple):
                pairs = list(zip(node.targets[0].elts, node.value.elts, strict=True))
            found += [
                f"{path.name}:{node.lineno}"
                for target, value in pairs
                if isinstance(target, ast.Attribute)
                and target.attr in ("border_title", "border_subtitle")
                and not isinstance(value, ast.Constant)
                and not (isinstance(value, ast.Call) and getattr(value.func, "id", "") == "Content")
            ]
    assert found == []
