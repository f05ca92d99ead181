"""Wrong frames for their readers: what a console gets and draws, what an engine is asked, what a headless client hears, what a step and its host say."""

from __future__ import annotations

import asyncio
import copy
import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from lamdatui.base.jsonio import Damaged, canonical, sealed
from lamdatui.base.text import FORBIDDEN
from lamdatui.cli.headless import Headless
from lamdatui.domain.budget import ledgers
from lamdatui.domain.choice import Proposal
from lamdatui.domain.events import check_fields, event_from_json
from lamdatui.domain.planner_report import worth
from lamdatui.domain.state import RunState
from lamdatui.engine.answers import Answers
from lamdatui.engine.approval import Approvals
from lamdatui.engine.people import People
from lamdatui.engine.server import Peer, Server
from lamdatui.engine.steps import is_out_of_memory, was_killed
from lamdatui.step.files import CLAIM, METRICS, OUTCOME, read_claim, read_outcome
from lamdatui.store.journal import Journal, read_state
from lamdatui.ui.card.text import facts, grounds, queue_lines, title
from lamdatui.ui.console.activity import row_content
from lamdatui.ui.console.result import result_lines
from lamdatui.ui.hardware.text import hardware_lines
from lamdatui.ui.kit.paint import paint_lines
from lamdatui.ui.kit.status import fields
from lamdatui.ui.lineage.forest import Forest
from lamdatui.ui.lineage.rows import columns, header, row_line
from lamdatui.ui.node.text import action_lines, data_lines, head_line, lineage_lines, score_lines, story_lines
from lamdatui.ui.planner.text import choice_lines, memory_lines, report_lines, said
from lamdatui.ui.progress.results import results
from lamdatui.ui.progress.text import overview_lines
from lamdatui.ui.view.reduce import reduce
from lamdatui.ui.view.state import ViewState
from lamdatui.ui.view.stepfiles import read_metrics
from lamdatui.ui.view.subject import subject
from lamdatui.wire.client import Client
from lamdatui.wire.protocol import COMMANDS, encode, read_frame
from lamdatui.wire.snapshot import Snapshots
from lamdatui.wire.validation import check
from tests.fuzz import Make, Read, Target
from tests.hostile import Disguise, strings
from tests.landed import unpack
from tests.mutators import dumped, mutate, reshape, wrong_json
from tests.test_approval import proposal
from tests.test_candidates import MACHINE, TYPES, model, pool
from tests.test_journal import fill
from tests.ui.fake_engine import FakeEngine
from tests.ui.script import add_choices, add_end, add_history, add_weighed, hardware
from tests.ui.test_hostile import late_events

Json = dict[str, Any]
SHOWN_ELSE = (KeyError, TypeError, ValueError, AttributeError)
"""What `lamdatui.ui.kit.stack.attempt` tells as a part that can't be shown."""


# --- the console -----------------------------------------------------------------------------------------------------


def consoles(folder: Path) -> tuple[Make, Read]:
    """A console that gets a run as a snapshot or as events, with wrong frames among them, and draws all of it."""
    stories = [_told(folder, add_history, add_end), _told(folder, add_choices, lambda script: add_weighed(script, 9))]
    late = list(late_events(Disguise(strings(10**9), everything=False), 1))

    def make(dice: random.Random) -> list[bytes]:
        events = dice.choice(stories)
        seq = events[-1]["seq"]
        frames: list[Any] = (
            _snapshot(events) if dice.random() < 0.4 else [{"type": "event", "event": event} for event in events]
        )
        frames = [{"type": "hello", "protocol": 2, "run": "lab", "pid": 1, "seq": seq}, *frames, {"type": "live"}]
        more = [
            *({"type": "event", "event": {**event, "seq": 0}} for event in [*late, *events]),
            hardware(2),
            {"type": "hardware", **hardware(0)},
        ]
        more += [
            {
                "type": "metric",
                "step": "7/1",
                "metric": {"step": 1, "max_steps": 9, "loss": 0.5, "phase": "train", "total": 3, "done": 1, "seconds": 2.0},
            }
        ]
        more += [{"type": "link", "status": "lost", "detail": "x"}, {"type": "past", "event": events[3]}]
        for _ in range(dice.choice((1, 2, 4))):
            seq += 1
            frame = copy.deepcopy(dice.choice(more))
            if "event" in frame and frame["type"] == "event":
                frame["event"]["seq"] = seq
            frames.append(frame)
        wrong = {
            dice.randrange(1, len(frames)) if dice.random() < 0.4 else len(frames) - 1 for _ in range(dice.choice((1, 1, 2)))
        }
        told = []
        for place, frame in enumerate(frames):
            shaped = reshape(dice, frame, [frame]) if place in wrong else frame
            line = dumped(shaped, ascii_only=dice.random() < 0.5).encode("utf-8", "surrogatepass")
            told.append(mutate(dice, line) if place in wrong and dice.random() < 0.2 else line)
        return told

    def read(lines: list[bytes]) -> None:
        view, forest = ViewState(), Forest()
        for line in lines:
            try:
                frame = read_frame(line)
            except ValueError:
                continue
            reduce(view, frame)
        for text in _drawn(view, forest):
            if FORBIDDEN.search(text):
                raise AssertionError(f"drawn: {text[:80]!r}")

    return make, read


def _told(folder: Path, *parts: Callable[[FakeEngine], Any]) -> list[Json]:
    script = FakeEngine(folder)
    for part in parts:
        part(script)
    return json.loads(json.dumps([event.to_json() for event in script.events]))


def _snapshot(events: list[Json]) -> list[Json]:
    state, source = RunState(), Snapshots()
    for event in events:
        state.apply(event_from_json(event))
    return [json.loads(line) for line in source.write(source.take(state, set()))]


def _drawn(view: ViewState, forest: Forest) -> Iterator[str]:
    """All that is on the screens of a run. Rows and the status are drawn by themselves; elsewhere a screen tells what it can't show."""
    run = view.run
    yield "".join(text for text, _ in fields(view))
    for row in view.activity:
        yield row_content(row).plain
    forest.take(view)
    found = columns(forest.tasks, 90, forest.depth)
    yield header(found, 90, "left")
    for row in forest.rows:
        yield "".join(text for text, _ in row_line(row, forest, found, 90))
    nodes = [node for row in forest.rows[-3:] if (node := subject(run, row.key)) is not None]
    parts: list[Callable[[], Any]] = [
        lambda: result_lines(run),
        lambda: hardware_lines(view, 90, 40),
        lambda: overview_lines(view, ledgers(run, None), results(run), 90),
        lambda: choice_lines(view),
        lambda: memory_lines(run),
        lambda: [one.line for one in said(run)],
        lambda: report_lines([("a", worth(run).difference.sign)], "=") and (),
        *(lambda node=node: [head_line(run, node, False)] for node in nodes),
        *(lambda node=node: action_lines(run, node) for node in nodes),
        *(lambda node=node: [*score_lines(run, node), *lineage_lines(run, node), *data_lines(run, node)] for node in nodes),
        *(lambda node=node: story_lines(run, node, None) for node in nodes),
    ]
    if (trial := view.waiting) is not None and trial.proposal is not None:
        told = trial.proposal
        parts += [lambda: [*facts(run, told, None), *grounds(told), *queue_lines(run), ((title(1, told, None), "plain"),)]]
    for part in parts:
        try:
            yield paint_lines(part()).plain
        except SHOWN_ELSE:
            continue


# --- the engine ------------------------------------------------------------------------------------------------------


class _Writer:
    """Takes what the server sends."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []

    def write(self, data: bytes) -> None:
        self.sent.append(data)

    def close(self) -> None:
        self.sent.append(b"")


def commands(folder: Path) -> tuple[Make, Read]:
    """An engine's end of the socket: each command is refused or gets a reply that fits into a frame."""
    journal = Journal(folder / "run.db")
    fill(journal)
    place = unpack(folder)
    finished = read_state(place / "runs" / "finished" / "run.db")
    told = Answers(place / "runs" / "finished")
    state = pool(model("base"), model("m1", trial=1), model("m2", trial=2))
    state.hints["h1"] = {"id": "h1", "text": "t", "by": "p", "trial": 1}
    offered: Proposal = proposal(state)
    sample: Json = {
        "role": "console", "name": "me@pts/1", "after": 3, "snapshot": True, "number": 1, "model": "base", "against": "m1", "task": "copy", "split": "search", "row": 0,
        "digest": offered.action.digest, "verdict": "approve", "action": offered.action.to_json(), "reason": "r", "remember": True, "type": "sft", "seed": 3,
        "inputs": {"model": ["base"], "dataset": ["calls"]}, "params": {"learning_rate": 0.001, "rank": 4}, "note": "n", "id": "h1", "trials": 2, "mode": "ask", "text": "t",
        "when": "after-step",
    }  # fmt: skip

    def loop() -> Any:
        def record(*found: tuple[str, Json]) -> None:
            for kind, data in found:
                check_fields(kind, data)
                check(kind, json.loads(canonical(data)))

        def prepared(name: str) -> Callable[[], None]:
            return lambda: None

        approvals = Approvals(TYPES, MACHINE)
        approvals._pending = (1, offered.action, asyncio.get_running_loop().create_future())
        ended = SimpleNamespace(cancel=lambda *_: None, suspend=lambda: None, stop=lambda: None)
        found = SimpleNamespace(
            state=copy.deepcopy(state), machine=MACHINE, approvals=approvals, record=record, woken=asyncio.Event(), runner=ended, attempts=SimpleNamespace(is_suspended=False),
            workspace=SimpleNamespace(types=TYPES), selection=SimpleNamespace(prepared=prepared), is_done=lambda _: False, resume=lambda _: None, view=lambda: None,
            forecasts=SimpleNamespace(of=None),
        )  # fmt: skip
        found.decide = lambda args, by: approvals.read(found.state, args, by)[1].verdict
        return found

    def make(dice: random.Random) -> bytes:
        name = dice.choice(list(COMMANDS))
        frame = {"type": "command", "id": 1, "command": name, "args": {key: sample[key] for key in COMMANDS[name]}}
        return wrong_json(dice, [frame])

    async def ask(line: bytes) -> None:
        people = People(loop(), asyncio.Event())

        def handler(command: str, args: Json, role: str, by: str) -> Any:
            if command == "answers":
                return told.told(finished, args)
            if command == "try_action":
                return people._try(args) if str(args.get("type")) not in TYPES else None
            return people.command(command, args, by)

        server, writer = Server(folder / "socket", journal, handler, asyncio.Event()), _Writer()
        peer = Peer(writer)  # type: ignore[arg-type]
        past: list[Any] = []
        peer.sender = None
        server._send = lambda _, frames: _drained(frames, past)  # type: ignore[method-assign]
        await server._command(peer, line)
        if peer.sender is not None:
            await peer.sender
        replies = [json.loads(data) for data in writer.sent]
        while not peer.queue.empty():
            replies.append(json.loads(encode(peer.queue.get_nowait())))
        for reply in replies:
            if not reply["ok"] and reply["error"].startswith("the engine could not do it"):
                raise AssertionError(reply["error"])

    def read(line: bytes) -> None:
        asyncio.run(ask(line))

    return make, read


async def _drained(frames: Iterator[bytes], into: list[Any]) -> None:
    into.extend(frames)


# --- who hears of it -------------------------------------------------------------------------------------------------


def replies(folder: Path) -> tuple[Make, Read]:
    """A headless client: events, and the replies to what it asked."""
    stories = [_told(folder, add_history, add_end), _told(folder, add_choices)]

    def make(dice: random.Random) -> tuple[bytes, bool]:
        events = dice.choice(stories)
        frames: list[Any] = [{"type": "hello", "protocol": 2, "run": "lab", "pid": 10**9, "seq": 9}]
        frames += [{"type": "event", "event": event} for event in events[: dice.randrange(len(events) + 1)]]
        frames += [
            {"type": "reply", "id": 1, "ok": True, "result": None},
            {"type": "reply", "id": 1, "ok": False, "error": "no"},
            {"type": "live"},
        ]
        frames += [{"type": "metric", "step": "1/1", "metric": {"step": 1, "max_steps": 9, "loss": 0.5}}]
        frames += [{"type": "metric", "step": "1/1", "metric": {"phase": "evaluate", "task": "t", "done": 1, "total": 3}}]
        place = dice.choice((dice.randrange(len(frames)), len(frames) - dice.randrange(1, 6)))
        lines = [dumped(frame) for frame in frames]
        lines[place] = dumped(reshape(dice, frames[place], frames), ascii_only=dice.random() < 0.5)
        data = ("\n".join(lines) + "\n").encode("utf-8", "surrogatepass")
        return mutate(dice, data) if dice.random() < 0.2 else data, dice.random() < 0.5

    async def follow(data: bytes, as_json: bool) -> None:
        reader = asyncio.StreamReader()
        reader.feed_data(data)
        reader.feed_eof()
        writer: Any = SimpleNamespace(write=lambda _: None, drain=_nothing, close=lambda: None, wait_closed=_nothing)
        client = Client(reader, writer)
        headless = Headless(folder, as_json)
        headless._say = lambda text: text.encode("utf-8", "backslashreplace") and None  # type: ignore[method-assign]
        asked = asyncio.create_task(client.command("attach", role="headless"))
        await asyncio.sleep(0)
        async for frame in client.frames():
            if headless._take(frame) is not None:
                break
        if not asked.done():
            asked.cancel()
        found = (await asyncio.gather(asked, return_exceptions=True))[0]
        if isinstance(found, Exception) and not isinstance(found, ConnectionError):
            raise found

    def read(case: tuple[bytes, bool]) -> None:
        asyncio.run(follow(*case))

    return make, read


async def _nothing() -> None:
    return


# --- steps and their host --------------------------------------------------------------------------------------------


def steps(folder: Path) -> tuple[Make, Read]:
    """The files of an attempt: claim, outcome and metrics, of this version and of the first one, and with a seal that fits what is wrong."""
    outcome = {
        "status": "failed",
        "cached": False,
        "seconds": {"total": 1.0},
        "error": {"class": "oom-train", "message": "m"},
        "peak_rss": 5,
    }
    claim = {"by": "step", "pid": 10**9, "start_time": 1.0, "boot_id": "b"}
    metrics = [{"step": 1, "max_steps": 9, "loss": 0.5}, {"phase": "train", "task": "t", "done": 1, "total": 3, "seconds": 2.0}]

    def make(dice: random.Random) -> tuple[str, bytes]:
        name, value = dice.choice(((OUTCOME, outcome), (CLAIM, claim), (METRICS, metrics[0]), (METRICS, metrics[1])))
        if name == METRICS or dice.random() < 0.4:
            return name, wrong_json(dice, [value if name == METRICS or dice.random() < 0.5 else sealed(value)])
        shaped = json.loads(json.dumps(reshape(dice, value, [value])))
        return name, json.dumps(sealed(shaped) if isinstance(shaped, dict) else shaped).encode()

    def read(case: tuple[str, bytes]) -> None:
        name, data = case
        (folder / name).write_bytes(data)
        if name == OUTCOME and (found := read_outcome(folder)) is not None:
            canonical([is_out_of_memory(found), was_killed(found), found["status"]])
        if name == CLAIM and (claimed := read_claim(folder)) is not None:
            claimed[1].process()
        if name == METRICS:
            view = ViewState()
            view.take_metrics("1/1", read_metrics(folder / name))
            reduce(view, {"type": "metric", "step": "1/1", "metric": read_metrics(folder / name)})

    return make, read


TARGETS: dict[str, Target] = {
    "frame-console": Target(consoles),
    "frame-command": Target(commands, (ValueError,)),
    "frame-client": Target(replies),
    "frame-step": Target(steps, (Damaged,)),
}
