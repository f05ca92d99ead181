"""Hostile text by every way that text gets to a widget, a real console on a pseudo-terminal, every byte looked at.

`tests.tty.OURS` says what a console writes; all else is text that acts.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
import select
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pexpect
import pytest

from lamdatui.cli.launcher import console_command
from lamdatui.domain.events import EVENTS
from tests.hostile import Disguise, strings
from tests.tty import Watch, acting, modes_left_on
from tests.ui.fake_engine import FakeEngine, in_thread
from tests.ui.script import add_history, add_trial, add_waiting, gain, hardware, scores, sft

Json = dict[str, Any]

SMALL, LARGE = (50, 160), (160, 240)
"""Rows and columns: quick to draw, and with room for many strings at a time."""
TRIALS, LOG_LINES = 45, 1200
QUIET_SECONDS, LONG_SECONDS = 0.1, 30.0
NAME = re.compile(rb"h(\d{6})")
ESCAPE, ENTER, TAB, PALETTE = "\x1b", "\r", "\t", "\x10"
PAGE_DOWN, HOME = "\x1b[6~", "\x1b[H"
F1, F2, F3, F4, F5, F6, F10, F11 = "\x1bOP", "\x1bOQ", "\x1bOR", "\x1bOS", "\x1b[15~", "\x1b[17~", "\x1b[21~", "\x1b[23~"
TOUR: dict[str, tuple[str, ...]] = {
    "card": (F2, " ", " "),
    "veto": ("d", ESCAPE),
    "rule": ("A", ESCAPE),
    "edit": ("e", ESCAPE),
    "refused": ("s", ESCAPE),
    "node": (F3, "j", "y", ENTER, ESCAPE),
    "activity": (F4, "\x1b[A", "y", ENTER, ESCAPE),
    "hardware": (F6, "v", "v", "v"),
    "logs": (F5, "/", "h0", ENTER, "n", "e", "f", "f", "w", "t", "y", ESCAPE),
    "choose a log": ("l", "j", ESCAPE, "E", ESCAPE),
    "progress": (F11, "]", "]", "]", "t", ESCAPE),
    "planner": (F10, ENTER, ESCAPE, TAB, ENTER, ESCAPE, TAB, TAB, ENTER, ESCAPE, "e", ESCAPE, "p", ESCAPE, ESCAPE),
    "help": (F1, ESCAPE),
    "palette": (PALETTE, ESCAPE),
}
"""Screens and widgets, in the order in which they are opened; each ends where the next one begins."""

LISTS: dict[str, tuple[str, ...]] = {
    "all of the log": (F5, "z", "g", *[PAGE_DOWN] * 9, "z"),
    "all of the activity": (F4, "z", HOME, *[PAGE_DOWN] * 3, "z"),
}
"""What has the most strings at a time, page by page."""

UNCLEANED = """
import re, sys
from lamdatui.base import text
text.FORBIDDEN = re.compile("(?!)")
text._MARKS = re.compile("(?!)()")
from lamdatui.ui.__main__ import main
sys.exit(main(sys.argv[1:]))
"""


class RawEngine(FakeEngine):
    """Sends what no encoder of ours would: lone surrogates, as any JSON may hold them."""

    sent_frames = 0

    def send(self, frame: Json) -> None:
        self.sent_frames += 1
        data = json.dumps(frame).encode() + b"\n"
        with contextlib.suppress(UnicodeEncodeError):
            if self.sent_frames % 2:
                # As the engine writes them: only what JSON must escape is escaped.
                data = json.dumps(frame, ensure_ascii=False).encode() + b"\n"
        assert self._server is not None
        self._server.get_loop().call_soon_threadsafe(lambda: [writer.write(data) for writer in self._writers])


class Session:
    """A console on a terminal of its own; everything that it writes is watched."""

    def __init__(self, engine: RawEngine, command: list[str], size: tuple[int, int]) -> None:
        self.engine = engine
        self.watch = Watch()
        self.raw = b""
        self.fed = 0
        self.seen: set[bytes] = set()
        """Names of the hostile strings that got to the terminal."""
        launch = "import json, sys; from lamdatui.cli.launcher import run; sys.exit(run(json.loads(sys.argv[1])))"
        # No tool of a desktop, which would take what is copied.
        alone = dict.fromkeys(("TMUX", "STY", "DISPLAY", "WAYLAND_DISPLAY"), "")
        environment = {**os.environ, "TERM": "xterm-256color", "COLORTERM": "truecolor", **alone}
        self.child = pexpect.spawn(sys.executable, ["-c", launch, json.dumps(command)], env=environment, dimensions=size)

    def settle(self, until: Callable[[], object] = lambda: True) -> None:
        """Take in what is written, until nothing more comes and the condition holds."""
        end, quiet = time.monotonic() + LONG_SECONDS, time.monotonic()
        while time.monotonic() < end:
            if select.select([self.child.child_fd], [], [], 0.02)[0]:
                with contextlib.suppress(OSError):
                    data = os.read(self.child.child_fd, 1 << 20)
                    if data:
                        self.watch.feed(data)
                        self.seen.update(NAME.findall(self.raw[-6:] + data))
                        self.raw = (self.raw + data)[-4_000_000:]
                        quiet = time.monotonic()
                        continue
                return
            if time.monotonic() - quiet > QUIET_SECONDS and until():
                return

    def press(self, keys: tuple[str, ...]) -> None:
        """Type, one key after the other."""
        for key in keys:
            self.child.send(key)
            self.settle()

    def leave(self) -> None:
        """End the console by its own way out and take in the rest."""
        self.press((ESCAPE, ESCAPE, "\x11", ENTER))
        self.settle(lambda: not self.child.isalive())
        self.child.close(force=True)


def journal(run_dir: Path) -> list[Json]:
    """The events of a run with every kind of event and many names, texts and errors."""
    script = FakeEngine(run_dir)
    add_history(script)
    for number in range(7, 7 + TRIALS):
        error = {"class": f"class {number}", "message": f"message {number}"} if number % 3 == 0 else None
        act = sft(f"m{number - 1}" if (number - 1) % 3 else "base", f"data {number}", **{f"param {number}": f"value {number}"})
        told = {"chooser": "planner", "planner": f"planner {number}", "style": f"style {number}", "expected": 0.3, "std": 0.1}
        add_trial(script, number, act, f"reason {number}", "failed" if error else "done", scores(0.3, 0.4), by=f"who {number}",
                  error=error, gain=gain(0.1), objective=0.3, details=told)  # fmt: skip
        script.add("hint.added", id=f"h{number}", text=f"hint {number}", by=f"person {number}", trial=number)
        script.add("constraint.added", id=f"k{number}", text=f"constraint {number}", match={}, by="p", trial=number)
        script.add("rule.added", id=f"r{number}", text=f"rule {number}", match={}, by="p", trial=number)
        script.add("planner.answered", number=number, call=f"call {number}", answer=f"answer {number}", tokens=3, seconds=0.1)
        script.add("problem.noted", where=f"where {number}", message=f"problem {number}")
    script.add("memory.updated", text="memory text", by="memory author")
    script.add("policy.changed", name="policy name", by="policy author")
    script.add("run.paused", by="pauser")
    add_waiting(script, 7 + TRIALS)
    return [event.to_json() for event in script.events]


def late_events(disguise: Disguise, seq: int) -> Iterator[Json]:
    """The kinds of events that the journal has not, with hostile text in every field that holds text."""
    text = disguise.fresh
    act = disguise.value(sft("m1"))
    told: dict[str, Json] = {
        "shadows.recorded": {"number": 7, "shadows": [
            {"policy": text(), "action": text(), "digest": text(), "expected": 0.1, "seconds": 0.1}]},
        "mode.changed": {"mode": text(), "by": text()},
        "run.unpaused": {"by": text()},
        "run.stopping": {"when": text(), "by": text()},
        "hint.revoked": {"id": "h9", "by": text()},
        "constraint.revoked": {"id": text(), "by": text()},
        "rule.revoked": {"id": "r9", "by": text()},
        "action.queued": {"id": text(), "action": act, "note": text(), "by": text()},
        "action.withdrawn": {"id": text(), "by": text()},
        "budget.changed": {"max_trials": 99, "by": text()},
        "run.resumed": {"max_trials": 99},
        "run.forked": {
            "name": text(), "profile": {}, "profile_digest": text(), "seed": 1, "mode": text(), "policy": text(), "max_trials": 99,
            "wall_seconds": None, "forked_from": {"run": text(), "at": 2}, "looks": [text()]},
        "engine.stopped": {"reason": text()},
        "object.lost": {"id": text(), "reason": text()},
        "object.dropped": {"id": text(), "bytes": 2**40},
        "object.restored": {"id": text()},
        "task.added": {"name": text(), "path": text(), "digest": text()},
        "search.ended": {"status": text(), "reason": text(), "winner": text(), "beats_base": True, "gain": {"sealed": {"objective": gain(0.1), "tasks": {}}}},
        "baseline.recorded": {"name": text(), "baseline": {
            "model": text(), "digest": text(), "what": text(), "scores": {}, "keys": {}, "gain": {"objective": gain(0.1), "tasks": {}},
            "winner_gain": gain(-0.1), "tried": 1, "of": 4, "length": 0.5}},
        "baseline.planned": {"name": text(), "plan": {"actions": [act], "length": 0.5}},
        "baseline.missing": {"name": text(), "reason": text()},
        "replicates.recorded": {"model": text(), "replicates": {"made": [], "gain": {
            split: {"objective": {"mean": 0.5, "interval": [0.1, 0.9]}, "tasks": {}, "each": [0.5, 0.4]} for split in ("search", "sealed")
        }}},
        "replicates.missing": {"model": text(), "reason": text()},
        "baselines.asked": {"by": text()},
        "run.ended": {"status": text(), "reason": text(), "winner": text(), "beats_base": None, "gain": {text(): {"objective": gain(0.1), "tasks": {}}}},
    }  # fmt: skip
    for kind, data in told.items():
        assert set(data) == set(EVENTS[kind].__required_keys__), kind
        seq += 1
        yield {"seq": seq, "kind": kind, "wall": 1.76e9, "mono": 1.0, "data": data}


def write_logs(run_dir: Path, key: str, disguise: Disguise, count: int) -> None:
    """The logs of the step, the engine and the planner: a hostile string a line."""
    folder = run_dir / "steps" / key
    folder.mkdir(parents=True, exist_ok=True)
    for path, length in ((folder / "log.txt", count), (run_dir / "engine.log", 99), (run_dir / "planner.log", 99)):
        lines = [disguise.fresh().replace("\n", " ").encode("utf-8", "surrogatepass") for _ in range(length)]
        lines[0] += b"\x9b31m \x9d0;t\x9c \xff\xfe \xc0\x80 \xed\xa0\x80"
        path.write_bytes(b"\n".join(lines) + b"\n")


def batch(session: Session, events: list[Json], disguise: Disguise, run_dir: Path, log_lines: int) -> None:
    """One run, told anew: hello, every event, live, hardware and metrics; then every screen."""
    frames: list[Json] = [{"type": "hello", "protocol": 1, "run": disguise.fresh(), "pid": 1, "seq": 0}]
    frames += [{"type": "event", "event": {**event, "data": disguise.value(event["data"])}} for event in events]
    running = next(e["data"]["step"] for e in reversed(events) if e["kind"] == "step.intended")
    frames += [{"type": "live"}, disguise.value(hardware(3)) | {"type": "hardware"}]
    frames += [{"type": "metric", "step": running, "metric": {"phase": disguise.fresh(), "total": 9, "task": disguise.fresh()}}]
    frames += [disguise.value(hardware(0)) | {"type": "hardware"}]
    write_logs(run_dir, running, disguise, log_lines)
    refusal = disguise.fresh().encode("utf-8", "replace").decode()
    session.engine.refusals = dict.fromkeys(("decide", "attach", "mode", "hint"), refusal)
    for frame in frames:
        session.engine.send(frame)
    session.settle()


def show(
    command: list[str],
    run_dir: Path,
    size: tuple[int, int],
    enough: Callable[[Session], bool],
    *,
    lists: bool = False,
    odd: bool = True,
    stops: Sequence[tuple[str, ...]] = tuple(TOUR.values()),
) -> Session:
    """Tell hostile runs until it is enough. The last one gets all stops; with `lists`, each gets one and pages through lists.

    `odd`: words of ours (states, kinds) are hostile in every fourth run.
    """
    engine, source = RawEngine(run_dir), strings(10**9)
    events = journal(run_dir)
    with in_thread(engine):
        session = Session(engine, command, size)
        # Who is not attached hears nothing of the first run.
        session.settle(lambda: b"Pipeline" in session.raw and any(name == "attach" for name, _ in engine.commands))
        for turn in itertools.count():
            disguise = Disguise(source, everything=odd and turn % 4 == 3)
            batch(session, events, disguise, run_dir, 250 if not lists else LOG_LINES)
            session.fed += disguise.used
            last = enough(session)
            chosen = [stops[turn % len(stops)], *LISTS.values()] if lists else stops if last else [stops[0]]
            for keys in (*chosen, (ESCAPE, ESCAPE)):
                session.press(keys)
            for event in late_events(disguise, events[-1]["seq"]):
                session.engine.send({"type": "event", "event": event})
            session.settle()
            assert session.child.isalive(), session.raw[-3000:].decode(errors="replace")
            if last:
                break
        session.leave()
    return session


def report(session: Session) -> str:
    """One line for people."""
    found = session.watch.strange
    written = sum(session.watch.forms.values())
    return (
        f"{session.fed} hostile strings told, {len(session.seen)} seen on the terminal by their names, in {written} sequences and "
        f"runs of text; forbidden: {found.total()} {dict(found.most_common(9)) or ''}"
    )


def test_hostile_text_reaches_the_terminal_as_text(run_dir: Path) -> None:
    session = show(console_command(run_dir), run_dir, SMALL, lambda session: session.fed >= 2000)
    print(report(session))
    assert session.watch.strange == {}, report(session)
    # How many are painted depends on how fast the machine is: 200 to 300 of them, mostly.
    assert len(session.seen) > 100, report(session)
    assert modes_left_on(session.raw) == set()


def test_without_the_boundary_the_same_session_is_full_of_it(run_dir: Path) -> None:
    command = [sys.executable, "-c", UNCLEANED, str(run_dir)]
    session = show(command, run_dir, SMALL, lambda _: True, odd=False, stops=[TOUR["card"]])
    assert session.watch.strange.total() > 50, report(session)


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_a_hundred_thousand_hostile_strings(run_dir: Path) -> None:
    session = show(console_command(run_dir), run_dir, LARGE, lambda session: session.fed >= 100_000, lists=True)
    print(report(session))
    assert session.watch.strange == {}, report(session)
    assert len(session.seen) > 25_000, report(session)


@pytest.mark.parametrize(
    ("stream", "form"),
    [
        (b"\x1b[31mred", "csi ?31m"),
        (b"\x1b[38;2;1;2;999mred", "csi 38;2;1;2;999m"),
        (b"\x1b[2J", "csi NJ"),
        (b"a\nb", "c0 b'\\n', then text"),
        (b"a\tb", "c0 b'\\t'"),
        (b"\x1b]0;title\x07", "osc 0;TEXT"),
        (b"\x1b]2;a\xc2\x9bb\x07", "osc 2;acting"),
        (b"\x1b]52;c;?\x07", "osc 52;not base64"),
        (b"\x1b]8;;http://x\x1b\\", "osc b'8;;http://x'"),
        (b"\x1bPq\x1b\\", "dcs b'q'"),
        (b"\x1bc", "esc b'c'"),
        (b"a\x08b", "c0 b'\\x08'"),
        (b"\x1b[\x1b[0m", "c0 b'\\x1b'"),
        ("a\u202eb".encode(), "text with U+202E"),
        ("a\x9bb".encode(), "text with U+009B"),
        (b"a\x9bb", "text with bytes"),
    ],
)
def test_the_watch_finds_what_acts(stream: bytes, form: str) -> None:
    clean, hostile = Watch(), Watch()
    clean.feed(b"\x1b[0m\x1b[38;2;1;2;3;48;2;0;0;0;1mtext \xe4\xb8\xad\x1b[1;1H\x1b[?25l\r\n\x1b[2;1H")
    for place in range(len(stream) + 20):
        hostile.feed((stream + b" " * 20)[place : place + 1])
    assert any(found.startswith(form) for found in hostile.strange), hostile.strange
    assert clean.strange == {}


def test_a_stream_in_pieces_is_the_same_stream() -> None:
    stream = "\x1b[38;2;1;2;3mäö中👍\x1b[0m\x1b]22;text\x07 end \x1b[12;40H".encode()
    whole, pieces = Watch(), Watch()
    whole.feed(stream)
    for place in range(len(stream)):
        pieces.feed(stream[place : place + 1])
    assert whole.found == pieces.found == {}
    assert set(whole.forms) == set(pieces.forms)


def test_the_generator_has_every_control_character_and_never_repeats_itself() -> None:
    found = list(strings(3000))
    assert len(set(found)) == 3000
    text = "".join(found)
    assert set(map(chr, [*range(0x20), *range(0x7F, 0xA0)])) <= set(text)
    assert {"\ud800", "\u202e", "\U000e0041", "[@click=app.quit]x[/]"} <= {
        part for part in ("\ud800", "\u202e", "\U000e0041", "[@click=app.quit]x[/]") if part in text
    }
    assert acting("\u200b".encode()) == ["U+200B"]


@pytest.mark.parametrize(
    ("stream", "left"),
    [
        (
            b"\x1b[?1049h\x1b[?25l\x1b[?7l\x1b[31m\x1b[>1u\x1b]22;text\x07",
            {"?1049h", "?25l", "?7l", "colour", "keyboard", "pointer"},
        ),
        (b"\x1b[?1049h\x1b[?25l\x1b[?1049l\x1b[?25h", set()),
    ],
)
def test_modes_that_are_left_on_are_found(stream: bytes, left: set[str]) -> None:
    assert modes_left_on(stream) == left


def test_no_kind_of_event_is_forgotten(run_dir: Path) -> None:
    early = {event["kind"] for event in journal(run_dir)}
    late = {event["kind"] for event in late_events(Disguise(strings(10**9), everything=False), 1)}
    assert early | late == set(EVENTS)
