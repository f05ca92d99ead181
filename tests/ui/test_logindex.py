"""Lines of log files that grow, shrink, vanish and are replaced, against a model that reads them whole."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lamdatui.ui.logs import index, scan
from lamdatui.ui.logs.index import LogIndex
from lamdatui.ui.logs.scan import LevelScan, Scan, TextScan
from lamdatui.ui.view.loglines import LINE_CHARACTERS, level_of, log_line, show
from tests.ui.test_sanitize import is_safe

BYTES = st.one_of(
    st.binary(max_size=40),
    st.text(max_size=30).map(lambda text: text.encode("utf-8", "surrogatepass")),
    st.lists(
        st.sampled_from([b"a", b"\n", b"loss 0.5\n", b"\r", b"\xff", b"\x1b[31m", "é\n".encode(), b"\r\n", b"x" * 90])
    ).map(b"".join),
)
CHANGE = st.one_of(
    st.tuples(st.just("append"), BYTES),
    st.tuples(st.just("cut"), st.floats(0, 1)),
    st.tuples(st.just("replace"), BYTES),
    st.tuples(st.just("remove"), st.none()),
)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pieces so small that every boundary is met."""
    monkeypatch.setattr(index, "PIECE", 16)
    monkeypatch.setattr(index, "_BLOCK_BYTES", 64)
    monkeypatch.setattr(scan, "PIECE", 16)


def lines_of(data: bytes) -> list[bytes]:
    lines = data.split(b"\n")
    return lines if lines[-1] else lines[:-1]


def catch_up(index: LogIndex) -> None:
    index.advance()
    while index.is_behind:
        index.advance(24)


def finish(scan: Scan) -> None:
    while not scan.is_done:
        scan.advance()


def apply(path: Path, what: str, value: object) -> None:
    data = path.read_bytes() if path.exists() else b""
    if what == "append":
        assert isinstance(value, bytes)
        with path.open("ab") as handle:
            handle.write(value)
    elif what == "cut" and path.exists():
        assert isinstance(value, float)
        with path.open("ab") as handle:
            handle.truncate(int(len(data) * value))
    elif what == "replace":
        assert isinstance(value, bytes)
        other = path.with_suffix(".new")
        other.write_bytes(value)
        other.replace(path)
    elif what == "remove":
        path.unlink(missing_ok=True)


@settings(deadline=None, max_examples=200)
@given(st.lists(CHANGE, max_size=12))
def test_the_index_has_the_lines_of_the_file_whatever_happens_to_it(changes: list[tuple[str, object]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "log.txt"
        index = LogIndex(path)
        for what, value in changes:
            apply(path, what, value)
            catch_up(index)
            expected = lines_of(path.read_bytes()) if path.exists() else []
            assert index.count == len(expected)
            assert index.read(0, len(expected) + 5) == expected
            assert [index.read(number, 1) for number in range(len(expected))] == [[line] for line in expected]
            assert index.ends == (path.read_bytes().count(b"\n") if path.exists() else 0)


@settings(deadline=None, max_examples=200)
@given(st.lists(CHANGE, max_size=8), st.sampled_from(["loss", "a", "É", "é", "Loss", "x", "5"]))
def test_a_search_finds_the_lines_that_show_the_text(changes: list[tuple[str, object]], needle: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "log.txt"
        index = LogIndex(path)
        scan, levels = TextScan(index, needle), LevelScan(index)
        for what, value in changes:
            apply(path, what, value)
            catch_up(index)
            finish(scan)
            finish(levels)
            whole = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
            shown = [log_line(line) for line in whole]
            if needle == needle.lower():
                expected = [number for number, line in enumerate(shown) if needle in line.lower()]
            else:
                expected = [number for number, line in enumerate(shown) if needle in line]
            assert list(scan.hits) == expected
            assert list(levels.hits) == [number for number, line in enumerate(shown) if level_of(line)]


def test_a_file_that_was_cut_and_grew_longer_between_two_looks_is_read_anew(tmp_path: Path) -> None:
    path = tmp_path / "log.txt"
    path.write_bytes(b"one\ntwo\n")
    index = LogIndex(path)
    catch_up(index)
    with path.open("r+b") as handle:
        handle.truncate(0)
        handle.write(b"three and more\nfour\n")
    catch_up(index)
    assert index.read(0, 9) == [b"three and more", b"four"]
    assert index.generation == 1


def test_a_pipe_in_place_of_the_file_does_not_block(tmp_path: Path) -> None:
    import os

    path = tmp_path / "log.txt"
    os.mkfifo(path)
    index = LogIndex(path)
    index.advance()
    assert index.count == 0


def test_of_an_endless_line_both_ends_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    path = tmp_path / "log.txt"
    path.write_bytes(b"first\n" + b"head" + b"x" * 5_000_000 + b"tail\nlast\n")
    index = LogIndex(path)
    while index.is_behind or not index.size:
        index.advance()
    first, middle, last = index.read(0, 3)
    assert (first, last) == (b"first", b"last")
    assert middle.startswith(b"headx") and middle.endswith(b"xtail") and len(middle) < 100_000
    assert log_line(middle).startswith("headx") and len(log_line(middle)) < LINE_CHARACTERS + 40
    scan = TextScan(index, "last")
    finish(scan)
    assert list(scan.hits) == [2]


def test_capitals_in_a_search_count(tmp_path: Path) -> None:
    path = tmp_path / "log.txt"
    path.write_text("Loss\nloss\nLOSS\n")
    index = LogIndex(path)
    catch_up(index)
    small, capital = TextScan(index, "loss"), TextScan(index, "Loss")
    finish(small)
    finish(capital)
    assert list(small.hits) == [0, 1, 2] and list(capital.hits) == [0]
    assert small.matches("a Loss, a loss") == [(2, 6), (10, 14)]
    assert capital.matches("a Loss, a loss") == [(2, 6)]


def test_hits_are_walked_round_and_round(tmp_path: Path) -> None:
    path = tmp_path / "log.txt"
    path.write_text("x\n.\nx\n.\nx\n")
    index = LogIndex(path)
    catch_up(index)
    scan = TextScan(index, "x")
    finish(scan)
    assert [scan.after(-1), scan.after(0), scan.after(4), scan.after(4, wrap=False)] == [0, 2, 0, None]
    assert [scan.before(4), scan.before(0), scan.place(2), scan.place(1)] == [2, 4, 1, None]


def test_errors_are_walked_from_the_first_traceback(tmp_path: Path) -> None:
    path = tmp_path / "log.txt"
    path.write_text("ERROR early\nok\nTraceback (most recent call last):\n  File\nValueError: no\nWARNING late\n")
    index = LogIndex(path)
    catch_up(index)
    scan = LevelScan(index)
    finish(scan)
    assert list(scan.hits) == [0, 2, 4, 5] and list(scan.errors) == [0, 2, 4]
    assert [scan.next_error(None), scan.next_error(2), scan.next_error(4)] == [2, 4, 0]


@pytest.mark.parametrize(
    ("text", "level"),
    [
        ("step 3/9  loss 0.3  grad norm 0.2", ""),
        ("mean error 0.02 after 3 epochs", ""),
        ("0 errors", ""),
        ("ERROR 11-24 engine failed", "error"),
        ("torch.OutOfMemoryError: CUDA out of memory", "error"),
        ("KeyboardInterrupt", "error"),
        ("error: no such file", "error"),
        ("0.46.165.378 E srv  load: failed", "error"),
        ("0.46.165.378 W srv  load: slow", "warning"),
        ("0.46.165.378 I srv  load: model loaded", ""),
        ("/x/y.py:3: FutureWarning: old", "warning"),
        ("`torch_dtype` is deprecated! Use `dtype` instead!", "warning"),
    ],
)
def test_levels(text: str, level: str) -> None:
    assert level_of(text) == level


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        (b" 10%|#    |\r 20%|##   |\r", " 20%|##   |"),
        (b"abcdef\rxy", "xycdef"),
        (b"abcdef\rxy\x1b[K", "xy"),
        (b"\x1b[31mred\x1b[0m \x1b]52;c;aGk=\x07", "red ␛]52;c;aGk=␇"),
        (b"bad \xff\xfe bytes\r", "bad \ufffd\ufffd bytes"),
    ],
)
def test_a_line_is_shown_as_a_terminal_leaves_it(raw: bytes, shown: str) -> None:
    assert log_line(raw) == shown


def test_our_own_times_are_taken_off_the_line() -> None:
    line = show(b"2026-11-24T20:19:05Z step 1/9  loss 2.0")
    assert (line.text, line.wall) == ("step 1/9  loss 2.0", 1_795_551_545.0)
    assert show(b"2026-99-24T20:19:05Z x").wall is None
    assert show(b"plain\ttab").text == "plain   tab"


@given(st.binary(max_size=200))
def test_whatever_a_file_holds_the_line_that_is_shown_is_safe(raw: bytes) -> None:
    text = show(raw.replace(b"\n", b"")).text
    assert is_safe(text) and "\t" not in text and "\n" not in text


def test_a_million_lines_are_indexed_and_searched_in_slices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    path = tmp_path / "log.txt"
    path.write_bytes(b"".join(b"step %d/1000000  loss 0.1234  grad norm 0.456\n" % number for number in range(1_000_000)))
    index = LogIndex(path)
    slices = []

    def timed(work: object) -> None:
        began = time.perf_counter()
        work()  # type: ignore[operator]
        slices.append(time.perf_counter() - began)

    timed(index.advance)
    while index.is_behind:
        timed(index.advance)
    assert index.read(777_776, 1) == [b"step 777776/1000000  loss 0.1234  grad norm 0.456"]
    scan = TextScan(index, "step 99999")
    while not scan.is_done:
        timed(scan.advance)
    assert len(scan.hits) == 11
    assert sorted(slices)[len(slices) * 95 // 100] < 0.02, "a slice holds up the screen"
