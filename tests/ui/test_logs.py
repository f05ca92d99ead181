"""The logs pane under a person's hands."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lamdatui.ui.app.consoleapp import ConsoleApp
from lamdatui.ui.kit import pager
from lamdatui.ui.kit.pick import PickScreen
from lamdatui.ui.logs.model import LogModel, folds
from lamdatui.ui.logs.pane import LogsPane
from lamdatui.ui.logs.view import GUTTER, LogView
from tests.ui import script
from tests.ui.conftest import Console, opened
from tests.ui.fake_engine import FakeEngine
from tests.ui.test_sanitize import is_safe

KEY = "7/1"


@pytest.fixture
def log(engine: FakeEngine, run_dir: Path) -> Path:
    """The log of the running step, 82 lines."""
    script.add_history(engine)
    script.add_running(engine, run_dir)
    return run_dir / "steps" / KEY / "log.txt"


def view_of(console: Console) -> LogView:
    return console.app.console_screen.log_view


def pane_of(console: Console) -> LogsPane:
    return console.app.console_screen.query_one(LogsPane)


def says(console: Console) -> str:
    pane = pane_of(console)
    return f"{pane.border_title} {pane.border_subtitle}"


def add(path: Path, *lines: str) -> None:
    with path.open("a") as handle:
        handle.write("".join(f"{line}\n" for line in lines))


async def loaded(console: Console, rows: int) -> LogView:
    view = view_of(console)
    await console.until(lambda: view.model and view.model.rows == rows, f"{rows} rows")
    await console.until(lambda: view.virtual_size.height >= min(rows, view.size.height))
    return view


async def test_the_log_follows_only_at_the_bottom(engine: FakeEngine, log: Path) -> None:
    async with opened(engine) as console:
        view = await loaded(console, 82)
        assert view.scroll_y == view.max_scroll_y > 0
        await console.pilot.press("3", "home")
        await console.until(lambda: view.scroll_y == 0 and not view.following)
        add(log, *(f"line {number}" for number in range(50)))
        await loaded(console, 132)
        await console.until(lambda: "50 new" in says(console))
        assert view.scroll_y == 0
        await console.pilot.press("G")
        await console.until(lambda: view.scroll_y == view.max_scroll_y and view.following)
        add(log, "one more")
        await loaded(console, 133)
        await console.until(lambda: view.scroll_y == view.max_scroll_y and "one more" in console.text())


@pytest.mark.parametrize("lines", [0, 3, 300])
async def test_another_log_is_followed_from_its_end_whatever_was_shown_before(
    engine: FakeEngine, log: Path, tmp_path: Path, lines: int
) -> None:
    """From the second step on nothing was followed: the old log's length said where the new one's end was."""
    other = tmp_path / "other.txt"
    other.write_text("".join(f"row {number}\n" for number in range(lines)))
    async with opened(engine) as console:
        view = await loaded(console, 82)
        view.open(other)
        await loaded(console, lines)
        assert view.following
        add(other, *(f"more {number}" for number in range(100)))
        await loaded(console, lines + 100)
        await console.until(lambda: view.scroll_y == view.max_scroll_y > 0 and "more 99" in console.text())
        assert view.following and view.behind == 0 and "new" not in says(console)


async def test_a_width_that_is_set_late_takes_no_lines_away(
    engine: FakeEngine, log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Painting asks for room for the widest line; lines that came before it was given were beyond the end for good."""
    other = tmp_path / "other.txt"
    other.write_text("".join(f"row {number}\n" for number in range(3)))
    async with opened(engine) as console:
        view = await loaded(console, 82)
        late: list[Callable[[], object]] = []
        monkeypatch.setattr(view, "call_later", lambda callback, *args: late.append(partial(callback, *args)))
        view.open(other)
        await loaded(console, 3)
        await console.until(lambda: late, "the view asks for room")
        add(other, *(f"more {number}" for number in range(100)))
        await loaded(console, 103)
        for callback in late:
            callback()
        await console.pilot.pause()
        assert view.scroll_y == view.max_scroll_y > 0 and "more 99" in console.text()


async def test_what_the_view_does_itself_changes_nothing_of_what_is_followed(engine: FakeEngine, log: Path) -> None:
    async with opened(engine) as console:
        view = await loaded(console, 82)
        await console.pilot.press("3")
        for keys in (("w",), ("w",), ("f",), ("f",), ("t",)):
            await console.pilot.press(*keys)
            await console.pilot.pause()
            assert view.following, keys
        await console.pilot.press("home")
        await console.until(lambda: not view.following)
        await console.pilot.resize_terminal(120, 400)
        await console.until(
            lambda: view.following and view.max_scroll_y == 0, "all of it is on the screen: nothing is left below"
        )


async def test_scrolling_up_by_a_line_stays_put_while_lines_arrive(engine: FakeEngine, log: Path) -> None:
    async with opened(engine) as console:
        view = await loaded(console, 82)
        await console.pilot.press("3", "k", "k")
        place = view.scroll_y
        assert place == view.max_scroll_y - 2 and not view.following
        for round_ in range(3):
            add(log, *(f"line {round_} {number}" for number in range(20)))
            await loaded(console, 82 + 20 * (round_ + 1))
        assert view.scroll_y == place
        for _ in range(3):
            await console.pilot.press("pagedown")
        await console.pilot.press("end")
        await console.until(lambda: view.following)


async def test_a_line_that_is_not_finished_is_shown_and_redrawn(engine: FakeEngine, log: Path) -> None:
    async with opened(engine) as console:
        await loaded(console, 82)
        with log.open("a") as handle:
            handle.write(" 10%|#   |")
        await console.until(lambda: "10%|#   |" in console.text())
        with log.open("a") as handle:
            handle.write("\r 20%|##  |")
        await console.until(lambda: "20%|##  |" in console.text() and "10%" not in console.text())
        assert view_of(console).model.rows == 83


async def test_a_log_that_is_cut_or_replaced_or_gone_is_read_anew(engine: FakeEngine, log: Path) -> None:
    async with opened(engine) as console:
        await loaded(console, 82)
        log.write_text("fresh start\n")
        await console.until(lambda: "fresh start" in console.text() and "loss" not in pane_text(console))
        log.unlink()
        await console.until(lambda: view_of(console).model.rows == 0 and "empty so far" in says(console))
        log.write_text("back again\n")
        await console.until(lambda: "back again" in console.text())


def pane_text(console: Console) -> str:
    view = view_of(console)
    return "\n".join(view.render_line(y).text for y in range(view.size.height))


async def test_a_search_goes_to_its_hits_and_counts_them(engine: FakeEngine, log: Path) -> None:
    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_text("".join(f"step {number} {'NEEDLE' if number % 100 == 50 else 'hay'}\n" for number in range(1000)))
    async with opened(engine) as console:
        view = await loaded(console, 1000)
        await console.pilot.press("3", "home")
        await console.until(lambda: not view.following)
        await console.pilot.press("slash", *"needle")
        await console.until(lambda: view.model.mark == 50, "the first hit")
        await console.until(lambda: "1 of 10 hits" in says(console))
        await console.pilot.press("enter")
        await console.until(lambda: view.has_focus)
        await console.pilot.press("n", "n")
        assert view.model.mark == 250 and "step 250 NEEDLE" in pane_text(console)
        await console.pilot.press("N")
        assert view.model.mark == 150 and not view.following
        add(log, "late NEEDLE")
        await console.until(lambda: "of 11 hits" in says(console), "hits in lines that come later")
        assert view.model.mark == 150
        await console.pilot.press("escape")
        await console.settle()
        assert view.model.search is None and "hits" not in says(console)
        await console.pilot.press("slash", *"Needle")
        await console.until(lambda: view.model.search.is_done and "0 hits" in says(console))


async def test_leaving_the_search_line_ends_the_search(engine: FakeEngine, log: Path) -> None:
    async with opened(engine) as console:
        view = await loaded(console, 82)
        await console.pilot.press("3", "slash", *"loss", "escape")
        await console.until(lambda: view.has_focus and view.model.search is None)
        assert not console.app.console_screen.query("#log-search")


async def test_letters_in_the_search_line_are_text(engine: FakeEngine, log: Path) -> None:
    async with opened(engine) as console:
        await loaded(console, 82)
        await console.pilot.press("3", "slash", *"qpmwz123")
        await console.settle()
        assert view_of(console).model.search.needle == "qpmwz123"
        assert not engine.sent("pause") and not engine.sent("mode") and console.app.is_running


async def test_only_warnings_and_errors(engine: FakeEngine, log: Path) -> None:
    add(log, "x.py:1: UserWarning: careful", "fine", "ERROR it broke", "fine again")
    async with opened(engine) as console:
        view = await loaded(console, 86)
        await console.pilot.press("3", "f")
        await loaded(console, 2)
        text = pane_text(console)
        assert "!  x.py:1" in text.replace("! x", "!  x") and "✗ ERROR it broke" in text.replace("✗  ", "✗ ")
        assert "fine" not in text and "problems only" in says(console)
        add(log, "ERROR again", "fine")
        await loaded(console, 3)
        assert view.following
        await console.pilot.press("f")
        await loaded(console, 88)
        assert view.following


async def test_wrapping_folds_long_lines_and_ends_at_the_end(engine: FakeEngine, log: Path) -> None:
    add(log, "a" * 500 + "MIDDLE" + "b" * 500 + "END")
    async with opened(engine, (80, 24)) as console:
        view = await loaded(console, 83)
        await console.pilot.press("3")
        await console.settle()
        assert "END" not in pane_text(console)
        await console.pilot.press("w")
        await console.settle()
        assert "END" in pane_text(console) and "MIDDLE" in pane_text(console).replace("\n", "").replace("  ", "")
        assert view.following
        add(log, *["short"] * 40)
        await loaded(console, 123)
        await console.pilot.press("home")
        seen: set[int] = set()
        for _ in range(30):
            seen |= {piece.number for piece in view.page()}
            await console.pilot.press("pagedown")
        assert seen == set(range(123)), "no line is skipped"
        for _ in range(30):
            await console.pilot.press("pageup")
        assert view.scroll_y == 0


async def test_times_are_shown_where_the_log_has_them(engine: FakeEngine, log: Path) -> None:
    add(log, "2026-11-24T20:19:05Z with a time")
    async with opened(engine) as console:
        view = await loaded(console, 83)
        assert "20:19:05" not in console.text() and "with a time" in console.text()
        await console.pilot.press("3", "t")
        await console.until(lambda: " 20:19:05 with a time" in pane_text(console))
        add(log, "no time of its own")
        await loaded(console, 84)
        line = next(view.render_line(y).text for y in range(view.size.height) if "no time" in view.render_line(y).text)
        assert line.strip().startswith("~"), line


async def test_the_chooser_has_every_step_and_process(engine: FakeEngine, log: Path, run_dir: Path) -> None:
    (run_dir / "engine.log").write_text("engine says hello\n")
    (run_dir / "planner.log").write_text("planner says \x1b]0;title\x07hello\n")
    (run_dir / "steps" / "3/1").mkdir(parents=True)
    (run_dir / "steps" / "3/1" / "log.txt").write_text("an older step\n")
    async with opened(engine) as console:
        await loaded(console, 82)
        await console.pilot.press("l")
        await console.until(lambda: isinstance(console.app.screen, PickScreen))
        assert "newest step" in console.text() and "the planner's server" in console.text()
        assert "▶ 7/1" in console.text() and "step host" not in console.text()
        await console.pilot.press(*"engine", "enter")
        await console.until(lambda: "engine says hello" in console.text())
        await console.pilot.press("l", *"planner", "enter")
        await console.until(lambda: "planner says ␛]0;title␇hello" in console.text())
        await console.pilot.press("l", *"3/1", "enter")
        await console.until(lambda: "an older step" in console.text() and "step 3/1" in says(console))
        await console.pilot.press("right_square_bracket", "right_square_bracket")
        await console.settle()
        assert "step 3/1" not in says(console)


async def test_a_failed_step_says_why_and_where(engine: FakeEngine, log: Path) -> None:
    add(log, *["noise"] * 50, "Traceback (most recent call last):", "  File x", "ValueError: bad rows", *["after"] * 50)
    async with opened(engine) as console:
        await loaded(console, 185)
        error = {"class": "data", "message": "bad \x1b[2Jrows\nin two lines"}
        engine.emit("step.ended", step=KEY, status="failed", cached=False, seconds={"execute": 1.0}, error=error)
        await console.until(lambda: "step 7/1 failed" in console.text(), "the toast")
        assert "data: bad ␛[2Jrows in two lines" in console.text()
        await console.pilot.press("E")
        view = view_of(console)
        await console.until(lambda: view.model.mark == 132, "the traceback")
        assert "Traceback (most" in pane_text(console)
        await console.pilot.press("e")
        assert view.model.mark == 134
        await console.pilot.press("e")
        assert view.model.mark == 132, "round and round"


async def test_failures_of_the_past_raise_no_toast(engine: FakeEngine, log: Path) -> None:
    engine.add("step.ended", step=KEY, status="failed", cached=False, seconds={}, error={"class": "nan", "message": "loss"})
    async with opened(engine) as console:
        assert "✗ nan: loss" in console.text()
        assert "E shows its log" not in console.text()


async def test_copying_takes_the_selection_else_the_row(engine: FakeEngine, log: Path, home: Path) -> None:
    add(log, "the last line")
    copied = home / "state" / "copied.txt"
    async with opened(engine) as console:
        view = await loaded(console, 83)
        await console.pilot.press("3", "y")
        await console.until(copied.exists)
        await console.until(lambda: copied.read_text() == "the last line")
        await console.until(lambda: "13 characters" in console.text(), "a toast that says where")
        first, second = (piece.line.text for piece in view.page()[1:3])
        # Not where the toast lies.
        x, y = view.region.x + GUTTER, view.region.y + 1
        await console.pilot.mouse_down(offset=(x + 5, y))
        await console.pilot.hover(offset=(x + 3, y + 1))
        await console.pilot.mouse_up(offset=(x + 3, y + 1))
        await console.until(lambda: console.app.screen.get_selected_text())
        await console.pilot.press("y")
        await console.until(lambda: copied.read_text() != "the last line")
        begin, end = copied.read_text().split("\n")
        assert begin == first[5:] and end and second.startswith(end) and len(end) <= 4
        assert view.model.mark is None, "selecting is not pointing"


async def test_y_copies_in_every_pane(engine: FakeEngine, log: Path, home: Path) -> None:
    copied = home / "state" / "copied.txt"
    async with opened(engine) as console:
        for pane, part in (("1", "base"), ("2", "step 7/1"), ("4", "step 7/1")):
            copied.unlink(missing_ok=True)
            await console.pilot.press(pane)
            await console.settle()
            await console.pilot.press("y")
            await console.until(copied.exists, f"a copy of pane {pane}")
            await console.settle()
            assert part in copied.read_text()
        copied.unlink()
        await console.pilot.press("2", "home", "enter")
        await console.until(lambda: console.app.screen.query(".dialog"))
        await console.pilot.press("y")
        await console.until(copied.exists, "a copy of a text that is read")


class Terminal:
    """Stands in for a terminal that can be handed over."""

    def __init__(self) -> None:
        self.ran: list[list[str]] = []

    @contextmanager
    def suspend(self) -> Iterator[None]:
        yield

    def run(self, command: list[str]) -> None:
        self.ran.append(command)


async def test_the_pager_gets_the_file(engine: FakeEngine, log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(ConsoleApp, "suspend", lambda _: terminal.suspend())
    monkeypatch.setattr(pager, "run_pager", terminal.run)
    monkeypatch.setattr(pager.shutil, "which", lambda name: f"/bin/{name}")
    monkeypatch.delenv("PAGER", raising=False)
    async with opened(engine) as console:
        view = await loaded(console, 82)
        await console.pilot.press("3", "o")
        await console.until(lambda: terminal.ran)
        assert terminal.ran[-1] == ["less", "+F", "--", str(log)]
        await console.pilot.press("home")
        await console.until(lambda: not view.following)
        await console.pilot.press("down", "o")
        await console.until(lambda: len(terminal.ran) == 2)
        assert terminal.ran[-1] == ["less", "+2", "--", str(log)]


async def test_a_screen_that_cannot_be_handed_over_names_the_file(engine: FakeEngine, log: Path) -> None:
    async with opened(engine) as console:
        await loaded(console, 82)
        await console.pilot.press("3", "o")
        await console.until(lambda: "can't be opened" in console.text() or "log.txt" in console.text())


async def test_no_pager_is_one_clear_error(engine: FakeEngine, log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PAGER", "no-such-pager-here")
    async with opened(engine) as console:
        await loaded(console, 82)
        await console.pilot.press("3", "o")
        await console.until(lambda: "no-such-pager-here" in console.text())


async def test_a_click_points_at_a_line(engine: FakeEngine, log: Path) -> None:
    async with opened(engine) as console:
        view = await loaded(console, 82)
        await console.pilot.click(view, offset=(10, 2))
        await console.until(lambda: view.model.mark is not None)
        assert view.model.mark == view.page()[2].number
        assert "▸" in view.render_line(2).text


@pytest.mark.parametrize("size", [(40, 10), (80, 24), (200, 60)])
async def test_hostile_lines_reach_no_strip(engine: FakeEngine, log: Path, size: tuple[int, int]) -> None:
    with log.open("ab") as handle:
        handle.write(b"\x1b[2J\x07\x9b31m\xff\xfe\n\xe2\x80\xae reversed\n\tTab\x00\n" + b"\x1b]52;c;aGk=\x07" * 50 + b"\n" * 5)
    async with opened(engine, size) as console:
        view = view_of(console)
        await console.pilot.press("3", "w", "t", "f", "f", "z")
        await console.settle()
        for y in range(view.size.height):
            assert is_safe(view.render_line(y).text) and "\t" not in view.render_line(y).text


@settings(deadline=None, max_examples=60)
@given(st.binary(max_size=400), st.booleans(), st.booleans(), st.integers(1, 12), st.integers(1, 60), st.integers(0, 20))
def test_any_file_fills_a_page_of_safe_text(data: bytes, wrap: bool, problems: bool, height: int, width: int, top: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "log.txt"
        path.write_bytes(data)
        model = LogModel(path)
        model.wrap, model.only_problems = wrap, problems
        model.look()
        while model.work():
            pass
        top = min(top, model.last_top(height, width))
        for page in (model.page(top, height, width), model.last_page(height, width)):
            assert len(page) <= height
            assert all(is_safe(piece.line.text) for piece in page)
        pieces = model.last_page(height, width)
        assert not model.rows or pieces[-1].row == model.rows - 1
        assert not pieces or pieces[-1].end == len(pieces[-1].line.text)


@given(st.text(max_size=80), st.integers(2, 20))
def test_folds_cover_the_text_once(text: str, width: int) -> None:
    parts = folds(text, width)
    assert "".join(text[begin:end] for begin, end in parts) == text
    assert all(before[1] == after[0] for before, after in pairwise(parts))


def test_a_hostile_pager_setting_is_one_clear_error(tmp_path: Path) -> None:
    path = tmp_path / "log.txt"
    path.write_text("x")
    with pytest.raises(pager.LamdatuiError, match="can't be read"):
        pager.pager_command(path, {"PAGER": "less 'unclosed"})
    with pytest.raises(pager.LamdatuiError, match="no file yet"):
        pager.pager_command(tmp_path / "none", {})
    assert os.path.isabs(pager.pager_command(path, {"PAGER": "cat"})[-1])
