"""The start screen: paints at once, fills in, starts and opens runs; what is wrong is said with its fix."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pexpect
import pytest
from rich.cells import cell_len
from textual.events import Key
from textual.pilot import Pilot
from textual.screen import Screen
from textual.widgets import Footer, Input, Static

from lamdatui.base.errors import CONFIRM_TITLE, EXIT_FAILED, UNCONFIRMED
from lamdatui.base.paths import config_dir, state_dir
from lamdatui.cli.launcher import start_command
from lamdatui.ui.app.consoleapp import ConsoleApp
from lamdatui.ui.app.help import HelpScreen
from lamdatui.ui.app.shell import ShellApp
from lamdatui.ui.app.startapp import StartApp
from lamdatui.ui.console.screen import ConsoleScreen
from lamdatui.ui.keys.table import KEYS
from lamdatui.ui.kit import commandline
from lamdatui.ui.kit.commandline import Ended
from lamdatui.ui.kit.dialogs import ConfirmScreen
from lamdatui.ui.start.busy import BusyScreen
from lamdatui.ui.start.newrun import NewRunScreen
from lamdatui.ui.start.screen import StartScreen
from lamdatui.ui.start.text import STATES, finding_lines, merged, run_line, runs_of, shown_findings

RUNS: list[dict[str, Any]] = [
    {"run": "lab-3", "status": "done", "trials": 12, "max_trials": 12.0, "mode": "auto", "profile": "lab", "winner": "m7",
     "beats_base": True, "engine": None, "path": "/r/lab-3"},
    {"run": "lab-2", "status": "running", "trials": 4, "max_trials": 12.0, "mode": "ask", "profile": "lab", "winner": None,
     "beats_base": None, "engine": 7, "path": "/r/lab-2"},
    {"run": "lab-1", "status": "interrupted", "trials": 2, "max_trials": None, "mode": "ask", "profile": "lab", "winner": None,
     "beats_base": None, "engine": None, "path": "/r/lab-1"},
    {"run": "old", "status": "unreadable", "trials": 0, "winner": None, "path": "/r/old", "problem": "not a\x1b[2J journal"},
]  # fmt: skip
DOCTOR = [
    {"status": "ok", "subject": "torch", "detail": "2.13.0", "fix": ""},
    {"status": "bad", "subject": "optuna", "detail": "not installed", "fix": "make install"},
    {"status": "info", "subject": "GPU", "detail": "no NVIDIA driver; steps run on the CPU", "fix": ""},
    {"status": "info", "subject": "smollm2", "detail": "not fetched", "fix": "lamdatui models fetch smollm2"},
    {"status": "ok", "subject": "planner servers", "detail": "http://127.0.0.1:8080/v1 (llama-server)", "fix": ""},
]
CHECK = [
    {"status": "ok", "subject": "profile", "detail": "lab: 12 trials, mode ask", "fix": ""},
    {"status": "warn", "subject": "disk", "detail": "little is free", "fix": "free some space"},
]


class Commands:
    """Stands for lamdatui's commands: what each says, and which were run."""

    def __init__(self) -> None:
        self.ran: list[tuple[str, ...]] = []
        self.says: dict[str, Any] = {"runs": RUNS, "doctor": DOCTOR, "check": CHECK}
        self.ends: dict[str, Ended] = {}
        self.held = asyncio.Event()
        self.held.set()

    async def ask(self, *arguments: str) -> Any:
        from lamdatui.base.text import clean_json

        self.ran.append(arguments)
        await self.held.wait()
        return clean_json(self.says[arguments[0]])

    async def run(self, *arguments: str, said: Callable[[str], object] | None = None) -> Ended:
        self.ran.append(arguments)
        ended = self.ends.get(arguments[0], Ended(0, "/r/made", ()))
        for line in ended.errors or ("making the lab's bases",):
            if said:
                said(line)
        await self.held.wait()
        return ended

    def of(self, name: str) -> list[tuple[str, ...]]:
        return [arguments for arguments in self.ran if arguments[0] == name]


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> Commands:
    found = Commands()
    monkeypatch.setattr(commandline, "ask", found.ask)
    monkeypatch.setattr(commandline, "run", found.run)
    return found


class Start:
    """A start screen under test."""

    def __init__(self, app: StartApp, pilot: Pilot[Any]) -> None:
        self.app, self.pilot = app, pilot

    async def until(self, condition: Callable[[], object], what: str, seconds: float = 10) -> None:
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, f"{what} never came true"
            await self.pilot.pause(0.02)

    def text(self) -> str:
        return "\n".join("".join(part.text for part in strip) for strip in self.app.screen._compositor.render_strips())


@asynccontextmanager
async def started(tmp_path: Path, size: tuple[int, int] = (120, 40), runs: Path | None = None) -> AsyncIterator[Start]:
    app = StartApp(runs or tmp_path / "runs")
    async with app.run_test(size=size, notifications=True) as pilot:
        yield Start(app, pilot)


def test_runs_are_listed_going_first_then_unfinished() -> None:
    assert [run.name for run in runs_of(RUNS)] == ["lab-2", "lab-1", "lab-3", "old"]
    assert [run.mark.word for run in runs_of(RUNS)] == ["going", "unfinished", "done", "unreadable"]


@pytest.mark.parametrize("width", [20, 40, 78, 120])
def test_lines_are_as_wide_as_the_pane(width: int) -> None:
    for run in runs_of(RUNS):
        assert sum(cell_len(text) for text, _ in run_line(run, width)) == width


def test_states_differ_without_colour() -> None:
    assert len({(mark.glyph, mark.word) for mark in STATES.values()}) == len(STATES)


def test_problems_come_first_and_versions_of_packages_are_left_out() -> None:
    assert [item["subject"] for item in shown_findings(DOCTOR)] == ["optuna", "planner servers", "GPU", "smollm2"]
    lines = ["".join(text for text, _ in line) for line in finding_lines(DOCTOR[1], 60)]
    assert lines == ["✗ broken optuna: not installed", "  fix: make install"]


def test_findings_with_one_fix_are_one() -> None:
    lab = {"status": "bad", "subject": "model llama", "detail": "not here", "fix": "lamdatui models fetch lab-bases"}
    found = merged([lab, {**lab, "subject": "model phi"}, CHECK[0]])
    assert [item["detail"] for item in found] == ["not here (and 1 more with the same fix)", CHECK[0]["detail"]]


async def test_it_paints_before_anything_slow_is_known(commands: Commands, tmp_path: Path) -> None:
    commands.held.clear()
    async with started(tmp_path) as start:
        await start.until(lambda: start.app.screen.query(Footer), "the footer")
        assert "looking for runs" in start.text() and "quickstart" in start.text()
        commands.held.set()
        await start.until(lambda: "lab-2" in start.text() and "optuna" in start.text(), "runs and machine")
        assert "1 going" in start.text() and "1 to look at" in start.text() and "make install" in start.text()
        assert "\x1b" not in start.text()


async def test_an_empty_folder_says_what_to_do(commands: Commands, tmp_path: Path) -> None:
    commands.says["runs"] = []
    async with started(tmp_path) as start:
        await start.until(lambda: "No run in this folder yet" in start.text(), "the word")
        assert start.app.focused is not None and start.app.focused.id == "start-profiles"


async def test_enter_on_a_run_opens_it(commands: Commands, tmp_path: Path) -> None:
    commands.ends["attach"] = Ended(0, "/r/lab-2", ())
    async with started(tmp_path) as start:
        await start.until(lambda: start.app.focused is not None and start.app.focused.id == "start-runs", "the focus on runs")
        await start.pilot.press("enter")
        await start.until(lambda: not start.app.is_running or start.app.return_value, "the choice")
        assert start.app.return_value == Path("/r/lab-2")
        assert commands.of("attach") == [("attach", "/r/lab-2", "--no-console", "--runs-dir", str(tmp_path / "runs"))]


async def test_a_run_that_can_not_be_opened_says_why_and_leaves_the_screen(commands: Commands, tmp_path: Path) -> None:
    commands.ends["attach"] = Ended(2, "", ("error: the engine failed", "  fix:   look at engine.log"))
    async with started(tmp_path) as start:
        await start.until(lambda: start.app.focused is not None and start.app.focused.id == "start-runs", "the focus on runs")
        await start.pilot.press("enter")
        await start.until(lambda: "look at engine.log" in start.text(), "the error with its fix")
        assert "failed" in start.text()
        await start.pilot.press("escape")
        await start.until(lambda: start.app.screen.id == "start", "the start screen")
        assert start.app.return_value is None


async def form(start: Start) -> NewRunScreen:
    await start.until(lambda: "lab-2" in start.text(), "the runs")
    await start.pilot.press("n")
    await start.until(lambda: isinstance(start.app.screen, NewRunScreen), "the form")
    screen = start.app.screen
    assert isinstance(screen, NewRunScreen)
    return screen


async def test_a_run_is_started_with_name_mode_and_trials(commands: Commands, tmp_path: Path) -> None:
    async with started(tmp_path) as start:
        await form(start)
        await start.until(lambda: "little is free" in start.text(), "what the check found")
        assert "(•) ask " in start.text() and "( ) auto" in start.text()
        await start.pilot.press(*"mine", "tab", "right", "right", "tab", *"7", "enter")
        await start.until(lambda: start.app.return_value, "the run")
        assert start.app.return_value == Path("/r/made")
        [ran] = commands.of("run")
        assert ran[:8] == ("run", "lab", "--mode", "auto", "--name", "mine", "--max-trials", "7")
        assert "--no-console" in ran


async def test_a_run_is_named_by_what_is_typed_behind_the_key_of_the_form(commands: Commands, tmp_path: Path) -> None:
    async with started(tmp_path) as start:
        await start.until(lambda: "lab-2" in start.text(), "the runs")
        for key in ("n", *"xqr"):
            start.app.post_message(Key(key, key))
        await start.until(lambda: isinstance(start.app.focused, Input) and start.app.focused.value == "xqr", "the name")
        assert isinstance(start.app.screen, NewRunScreen) and not commands.of("stop")


async def test_enter_before_the_check_has_ended_waits_for_it(commands: Commands, tmp_path: Path) -> None:
    async with started(tmp_path) as start:
        await start.until(lambda: "lab-2" in start.text(), "the runs")
        commands.held.clear()
        await start.pilot.press("n", "enter")
        await start.until(lambda: "starts when nothing is broken" in start.text(), "the word")
        assert not commands.of("run")
        commands.held.set()
        await start.until(lambda: commands.of("run"), "the run")
        assert commands.of("run")[0][:4] == ("run", "lab", "--mode", "ask")


async def test_a_broken_profile_is_shown_and_takes_a_second_enter(commands: Commands, tmp_path: Path) -> None:
    commands.says["check"] = [{"status": "bad", "subject": "model x", "detail": "no such folder", "fix": "name another"}]
    async with started(tmp_path) as start:
        await form(start)
        await start.until(lambda: "no such folder" in start.text() and "name another" in start.text(), "the finding")
        await start.pilot.press("enter")
        await start.until(lambda: "again to start anyway" in start.text(), "the warning")
        assert not commands.of("run")
        await start.pilot.press("enter")
        await start.until(lambda: commands.of("run"), "the run")


@pytest.mark.parametrize(("keys", "word"), [(["/", "enter"], "a name has"), (["tab", "tab", "0", "enter"], "1 or more")])
async def test_a_value_that_is_wrong_is_told_and_nothing_starts(
    commands: Commands, tmp_path: Path, keys: list[str], word: str
) -> None:
    async with started(tmp_path) as start:
        await form(start)
        await start.until(lambda: "little is free" in start.text(), "what the check found")
        await start.pilot.press(*keys)
        await start.until(lambda: word in start.text(), "the word")
        assert not commands.of("run")


async def test_what_a_start_says_is_shown_and_escape_gives_it_up(commands: Commands, tmp_path: Path) -> None:
    async with started(tmp_path) as start:
        await form(start)
        await start.until(lambda: "little is free" in start.text(), "what the check found")
        commands.held.clear()
        await start.pilot.press("enter")
        await start.until(lambda: isinstance(start.app.screen, BusyScreen), "the wait")
        await start.until(lambda: "making the lab's bases" in start.text(), "what it says")
        await start.pilot.press("escape")
        await start.until(lambda: start.app.screen.id == "start", "the start screen")
        assert start.app.return_value is None


async def test_a_missing_model_is_fetched_after_a_question(commands: Commands, tmp_path: Path) -> None:
    async with started(tmp_path) as start:
        await start.until(lambda: "optuna" in start.text(), "the machine")
        start.app.screen.query_one("#start-machine").focus()
        await start.pilot.press("down", "down", "down", "enter")
        await start.until(lambda: start.app.screen.has_class("choice-screen"), "the question")
        await start.pilot.press("down", "enter")
        await start.until(lambda: commands.of("models"), "the command")
        assert commands.of("models") == [("models", "fetch", "smollm2")]


async def test_a_going_run_is_stopped_after_a_question(commands: Commands, tmp_path: Path) -> None:
    async with started(tmp_path) as start:
        await start.until(lambda: start.app.focused is not None and start.app.focused.id == "start-runs", "the focus on runs")
        await start.pilot.press("x")
        await start.until(lambda: start.app.screen.has_class("choice-screen"), "the question")
        await start.pilot.press("down", "enter")
        await start.until(lambda: commands.of("stop"), "the command")
        assert commands.of("stop") == [("stop", "/r/lab-2")]


async def test_refresh_looks_again(commands: Commands, tmp_path: Path) -> None:
    async with started(tmp_path) as start:
        await start.until(lambda: "lab-2" in start.text() and "optuna" in start.text(), "the first look")
        commands.says["runs"] = RUNS[:1]
        await start.pilot.press("r")
        await start.until(lambda: "lab-2" not in start.text(), "the second look")


async def test_commands_that_fail_are_told_in_their_pane(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from lamdatui.base.errors import LamdatuiError

    async def broken(*arguments: str) -> Any:
        raise LamdatuiError(f"{arguments[0]} can't work here")

    monkeypatch.setattr(commandline, "ask", broken)
    async with started(tmp_path) as start:
        await start.until(lambda: "runs can't work here" in start.text(), "the runs' error")
        await start.until(lambda: "doctor can't work here" in start.text(), "the machine's error")


@pytest.mark.parametrize("size", [(40, 10), (80, 24), (120, 40), (200, 60)], ids=lambda size: f"{size[0]}x{size[1]}")
@pytest.mark.parametrize("keys", [[], ["n"], ["f1"], ["ctrl+p"]], ids=["start", "form", "help", "palette"])
async def test_every_size_in_ascii(
    commands: Commands, tmp_path: Path, size: tuple[int, int], keys: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LAMDATUI_ASCII", "1")
    async with started(tmp_path, size) as start:
        await start.until(lambda: commands.of("doctor"), "the first look")
        await start.pilot.pause(0.2)
        await start.pilot.press(*keys)
        await start.pilot.pause(0.3)
        text = start.text()
        assert text.strip() and {character for character in text if not character.isascii()} == set()


async def test_palette_help_and_quit(commands: Commands, tmp_path: Path) -> None:
    async with started(tmp_path) as start:
        await start.until(lambda: "lab-2" in start.text(), "the runs")
        titles = {command.title for command in start.app.get_system_commands(start.app.screen)}
        assert {key.palette for key in KEYS if key.palette and key.where in ("start", "always")} <= titles
        assert "Pause or go on" not in titles
        await start.pilot.press("question_mark")
        await start.until(lambda: isinstance(start.app.screen, HelpScreen), "help")
        await start.pilot.press("escape", "q")
        await start.until(lambda: not start.app.is_running, "the end")
        assert start.app.return_value is None


@pytest.mark.parametrize("make", [StartApp, ConsoleApp])
async def test_leaving_before_the_rest_of_the_screen_is_made_is_no_error(
    make: type[ShellApp[Any]], commands: Commands, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A key that was typed ahead is handled while the first paint is made; what comes after the paint comes too late."""
    left: list[bool] = []
    for screen in (StartScreen, ConsoleScreen):
        mount_rest = screen._mount_rest

        async def leave_first(self: Screen[Any], mount_rest: Callable[..., Any] = mount_rest) -> None:
            self.app.exit(0)
            await mount_rest(self)
            left.append(True)

        monkeypatch.setattr(screen, "_mount_rest", leave_first)
    app = make(tmp_path)
    assert await app.run_async(headless=True) == 0
    assert (left, app.return_code, commands.ran) == ([True], 0, [])


@pytest.mark.parametrize("key", ["q", "q?"])
def test_a_key_that_was_typed_before_there_was_a_screen_leaves_it(key: str, tmp_path: Path) -> None:
    line = start_command(tmp_path)
    child = pexpect.spawn(line[0], line[1:], cwd=str(tmp_path), dimensions=(40, 120), timeout=30)
    child.send(key)
    child.expect(pexpect.EOF)
    child.close()
    assert (child.exitstatus, b"error" in child.before) == (0, False)


def test_an_interrupt_while_it_is_imported_is_no_traceback(tmp_path: Path) -> None:
    code = """
import os, signal, sys
class Interrupt:
    def find_spec(self, name, path, target=None):
        if name == "textual":
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Interrupt())
from lamdatui.ui.__main__ import main
sys.exit(main(sys.argv[1:]))
"""
    for words in (["--start", str(tmp_path)], [str(tmp_path)]):
        line = [sys.executable, "-c", code, *words]
        done = subprocess.run(
            line, capture_output=True, text=True, preexec_fn=partial(signal.signal, signal.SIGINT, signal.default_int_handler)
        )
        assert (done.returncode, done.stderr) == (-signal.SIGINT, "")


def test_it_imports_nothing_heavy() -> None:
    code = (
        "import sys, lamdatui.ui.app.startapp, lamdatui.ui.__main__; "
        "heavy = {'torch', 'transformers', 'datasets', 'xllamacpp', 'numpy', 'pydantic', 'apsw', 'httpx'} & set(sys.modules); "
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


async def test_a_command_is_a_child_process(tmp_path: Path) -> None:
    assert await commandline.ask("runs", "--runs-dir", str(tmp_path)) == []
    said: list[str] = []
    ended = await commandline.run("attach", "nowhere", "--no-console", "--runs-dir", str(tmp_path), said=said.append)
    assert ended.code == 2 and said[0] == "error: no run 'nowhere'" and ended.errors[0] == said[0]


def test_an_app_that_does_not_end_when_it_is_left_is_ended_and_says_what_it_waited_for(tmp_path: Path) -> None:
    code = """
import asyncio, sys
from lamdatui.ui import __main__
from lamdatui.ui.app import startapp
class Stuck(startapp.StartApp):
    leave_within = 1.0
    async def on_unmount(self):
        await self.for_something_that_never_comes()
    async def for_something_that_never_comes(self):
        await asyncio.Event().wait()
startapp.StartApp = Stuck
sys.exit(__main__.main(sys.argv[1:]))
"""
    child = pexpect.spawn(sys.executable, ["-c", code, "--start", str(tmp_path)], dimensions=(40, 120), timeout=30)
    child.expect("Commands")
    child.send("q")
    child.expect("error: the console was left and did not end within 1 s")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == EXIT_FAILED
    [report] = (state_dir() / "crashes").glob("*.txt")
    assert "for_something_that_never_comes" in report.read_text()


ASKED = (CONFIRM_TITLE, '  planner.executable: "/x/evil.sh" (sha256 ab)', "    This program is run as you.")
UNASKED = Ended(2, "", (*ASKED, f"error: {UNCONFIRMED}: planner.executable", "  where: /x", "  fix:   look at it"))


@pytest.mark.parametrize("size", [(40, 10), (120, 40)], ids=lambda size: f"{size[0]}x{size[1]}")
async def test_what_a_run_names_is_confirmed_in_a_dialog(commands: Commands, tmp_path: Path, size: tuple[int, int]) -> None:
    commands.ends["attach"] = UNASKED
    async with started(tmp_path, size) as start:
        await start.until(lambda: start.app.focused is not None and start.app.focused.id == "start-runs", "the focus on runs")
        await start.pilot.press("enter")
        await start.until(lambda: isinstance(start.app.screen, ConfirmScreen), "the question")
        await start.until(lambda: "No, start nothing" in start.text(), "the answers")
        text = str(start.app.screen.query_one(".dialog-text", Static).content)
        assert text.split("\n") == list(ASKED)
        await start.pilot.press("enter")
        await start.until(lambda: start.app.screen.id == "start", "the start screen")
        assert len(commands.of("attach")) == 1 and start.app.return_value is None
        await start.pilot.press("enter")
        await start.until(lambda: isinstance(start.app.screen, ConfirmScreen), "the question again")
        commands.ends["attach"] = Ended(0, "/r/lab-2", ())
        await start.pilot.press("down", "enter")
        await start.until(lambda: start.app.return_value, "the run")
        assert [words[-1] for words in commands.of("attach")] == [str(tmp_path / "runs")] * 2 + ["--trust"]


async def test_a_project_that_is_not_trusted_is_told(
    commands: Commands, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    async with started(tmp_path) as start:
        await start.until(lambda: "lab-2" in start.text(), "the runs")
        assert "not trusted" not in start.text()
        (tmp_path / ".lamdatui" / "profiles").mkdir(parents=True)
        (tmp_path / ".lamdatui" / "profiles" / "lab.yaml").write_text("# lab: theirs\n")
        await start.pilot.press("r")
        await start.until(lambda: "is not trusted and was not read" in start.text(), "the note")
        assert "theirs" not in start.text()
        config_dir().mkdir(parents=True, exist_ok=True)
        (config_dir() / "trusted").write_text(f"{tmp_path}\n")
        await start.pilot.press("r")
        await start.until(lambda: "in place of lamdatui's own; theirs" in start.text(), "where it comes from")
        assert "not trusted" not in start.text()
