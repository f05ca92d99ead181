"""A run's own loop, policy, session, client and approvals before a server that lies; what would be executed is noted in place of being done."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any

from lamdatui.base.clock import SystemClock
from lamdatui.base.errors import LamdatuiError
from lamdatui.config.resources import load_prompt, load_registry
from lamdatui.domain.actions import BoundType
from lamdatui.domain.decisions import VERDICTS
from lamdatui.domain.objects import DatasetFormat, DatasetObject, ModelObject, object_to_json
from lamdatui.domain.schemes import SCHEME
from lamdatui.engine.closing import Closing
from lamdatui.engine.judging import Known
from lamdatui.engine.loop import Loop
from lamdatui.engine.machine import Machine
from lamdatui.engine.selection import Selection
from lamdatui.engine.steps import Slots
from lamdatui.engine.upkeep import SearchEnded
from lamdatui.inputs.profile import load_profile
from lamdatui.inputs.workspace import Workspace
from lamdatui.planner import client
from lamdatui.planner.settings import PlannerSettings
from lamdatui.policy import Ingredients, make_policy
from lamdatui.store.artifacts import Store
from lamdatui.store.journal import Journal
from tests.conftest import CHECKOUT
from tests.corpus.answers import AnswerCase, answer_cases, chooses
from tests.corpus.canaries import Canaries

MACHINE = Machine("cpu", "float32", 2**34)
MODES = ("ask", "auto")
PERSON = "ana@pts/3"
KEPT = (
    "mode",
    "seed",
    "max_trials",
    "policy",
    "queue",
    "rules",
    "constraints",
    "hints",
    "tasks",
    "paused",
    "stopping",
    "objective",
)
"""Of a run's state: what no planner changes."""
KINDS = frozenset(
    (
        "trial.opened", "candidates.listed", "phase.changed", "planner.answered", "problem.noted", "trial.proposed", "trial.decided", "trial.closed", "memory.updated",
    )
)  # fmt: skip
"""Events of a trial in which nobody but one person acts, who decides."""
FIELD_CHARS = 4000
Json = dict[str, Any]


class Liar:
    """A server on loopback that answers as the case says which is before the court; it keeps all that it is told."""

    def __init__(self) -> None:
        self.case: AnswerCase | None = None
        self.told: list[bytes] = []
        self.url = ""
        self.turns: list[AnswerCase] = []
        """Cases of which each new choice gets the next, the last one from then on."""
        self._seed: int | None = None

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            head = await reader.readuntil(b"\r\n\r\n")
            length = next(
                (int(line.split(b":")[1]) for line in head.lower().splitlines() if line.startswith(b"content-length")), 0
            )
            body = await reader.readexactly(length)
            self.told += [head, body]
            assert self.case is not None
            for piece in self._pieces(head, body):
                if not piece:
                    await reader.read()
                writer.write(piece)
                await writer.drain()
        writer.close()

    def _pieces(self, head: bytes, body: bytes) -> list[bytes]:
        assert self.case is not None
        if head.startswith(b"POST /v1/chat/completions"):
            request = json.loads(body)
            if chooses(request) and request["seed"] != self._seed and request["seed"] != 1 and self.turns:
                self._seed, self.case = request["seed"], self.turns.pop(0)
            return self.case.reply(request)
        if head.startswith(b"GET /v1/models"):
            listed = json.dumps({"data": [{"id": self.case.model}]}).encode()
            return [b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s" % (len(listed), listed)]
        return [b"HTTP/1.1 404 no\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"]


@contextlib.asynccontextmanager
async def lying() -> AsyncIterator[Liar]:
    """A server for the time of a block."""
    liar = Liar()
    server = await asyncio.start_server(liar.serve, "127.0.0.1", 0, limit=2**20)
    liar.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    waits, client.RETRY_WAITS = client.RETRY_WAITS, (0.0, 0.0)
    try:
        yield liar
    finally:
        client.RETRY_WAITS = waits
        server.close()


@functools.cache
def _types() -> dict[str, BoundType]:
    registry = load_registry()
    return {name: registry.get(name) for name in ("sft", "dpo", "merge_linear")}


class Court(Loop):
    """The engine's loop but for the work itself: a trial that would be executed is an effect."""

    def __init__(self, folder: Path, settings: PlannerSettings, mode: str) -> None:
        profile = load_profile(CHECKOUT / "profiles" / "lab.yaml", ["policy.opening=false", "budget.promotion=0"])
        types = dict(_types())
        models = {
            name: ModelObject(name, f"digest-{name}", "llama", "l", f"/{name}", (), 200_000) for name in ("llama", "other")
        }
        kinds: tuple[tuple[str, DatasetFormat], ...] = (("call", "sft"), ("prefer", "preference"))
        datasets = {name: DatasetObject(name, f"digest-{name}", kind, 900, f"/{name}", chars=40) for name, kind in kinds}
        given = Ingredients(settings, load_prompt, folder / "planner.log")
        self.events: list[Json] = []
        self.effects: list[tuple[int, str, Any]] = []
        self.offered: set[str] = set()
        super().__init__(
            Workspace(profile, models, datasets, {}, types),
            Journal(folder / "run.db", SystemClock()),
            Store(folder / "store"),
            None,  # type: ignore[arg-type]  (nothing is started)
            Slots(["cpu"]),
            Selection(lambda name: make_policy(name, given), "lamdagent", lambda where, message: self.problem(where, message)),
            MACHINE,
            SystemClock(),
            lambda frame: self.events.append(frame["event"]),
        )
        created = {
            "name": "x",
            "profile": profile.model_dump(mode="json"),
            "profile_digest": "",
            "scheme": SCHEME,
            "seed": 1,
            "mode": mode,
        }
        created |= {"policy": "lamdagent", "max_trials": 9, "wall_seconds": None}
        self.record(
            ("run.created", created),
            *(("object.added", {"object": object_to_json(item)}) for item in (*models.values(), *datasets.values())),
        )

    async def _choose(self, number: int) -> Any:
        """As the loop does after the opening, with what was possible."""
        found = await super()._choose(number)
        self.offered = {item.action.digest for group in found[0].candidates.values() for item in group}
        return found

    async def _execute(self, number: int) -> None:
        trial = self.state.trials[number]
        assert trial.action is not None
        self.effects.append((number, trial.action["digest"], trial.decision))
        await self._remember(number, Closing("failed", error={"class": "killed", "message": "nothing is done here"}))

    async def trial(self, verdict: str) -> Iterator[str]:
        """One turn with a person who gives this verdict on what is shown, if asked; what is wrong with it."""
        opened, before, began = self._open(), len(self.effects), len(self.events)
        kept = json.dumps([getattr(self.state, name, None) for name in KEPT], default=str)
        turn = asyncio.create_task(self._turn(opened))
        asked = False
        while not turn.done():
            await asyncio.sleep(0.002)
            if (waiting := self.approvals._pending) is None or waiting[2].done():
                continue
            asked = True
            if len(self.effects) > before or self.state.trials[opened.number].decision is not None:
                break
            shown = self.state.trials[opened.number].proposal
            assert shown is not None
            self.decide({"number": opened.number, "digest": shown["action"]["digest"], "verdict": verdict}, PERSON)
        with contextlib.suppress(SearchEnded):
            await turn
        return self._wrong(opened.number, asked, verdict, self.effects[before:], self.events[began:], kept)

    def _wrong(
        self, number: int, asked: bool, verdict: str, effects: list[Any], events: list[Json], kept: str
    ) -> Iterator[str]:
        trial, mode = self.state.trials[number], self.state.mode
        if trial.proposal is None:
            yield "nothing was proposed"
            return
        shown: Any = trial.proposal["action"]
        author = PERSON if mode == "ask" else "mode auto"
        wanted = verdict == "approve" or mode == "auto"
        if asked != (mode == "ask"):
            yield f"in mode {mode} a person was {'' if asked else 'not '}asked"
        if len(effects) != wanted:
            yield f"{len(effects)} effects after {verdict} in mode {mode}"
        for _, digest, decision in effects:
            if decision is None or decision["by"] != author or decision["verdict"] not in VERDICTS[:2]:
                yield f"an unapproved effect: {decision}"
            if digest != shown["digest"]:
                yield "another action was done than was shown"
        if shown["digest"] not in self.offered:
            yield "an action that code did not enumerate"
        bound = self.workspace.types[shown["type"]]
        made = Known.of(self.state, MACHINE).action(
            bound, shown["inputs"], shown["params"], self.state.pool, seed=shown["seed"], dtype="float32"
        )
        if bound.problems(shown["inputs"], shown["params"], self.state.pool) or made.digest != shown["digest"]:
            yield "an action that is not what its digest says, or not legal"
        if json.dumps([getattr(self.state, name, None) for name in KEPT], default=str) != kept:
            yield "the run's settings were changed"
        yield from (f"an event {event['kind']}" for event in events if event["kind"] not in KINDS)
        if trial.proposed_by != "lamdagent" and not trial.proposed_by.startswith("surrogate (planner failed: "):
            yield f"proposed by {trial.proposed_by!r}"
        for name, text in (("reason", trial.reason), ("memory", self.state.memory)):
            if not text.isprintable() or len(text) > FIELD_CHARS:
                yield f"the {name} is {text[:80]!r}"
        if len(trial.proposed_by) > FIELD_CHARS:
            yield f"an author of {len(trial.proposed_by)} characters"


async def tried(case: AnswerCase, mode: str, liar: Liar, canaries: Canaries, folder: Path) -> list[str]:
    """What is wrong after two trials of a run before this server, in words; empty where nothing is."""
    folder.mkdir()
    liar.case, liar.told[:] = case, []
    settings = PlannerSettings(
        backend="openai", url=liar.url, sleep="never", think_tokens=32, shortlist=3, rotations=2,
        first_token_seconds=0.4, idle_seconds=0.4, total_seconds=3, ready_seconds=5,
    )  # fmt: skip
    court = Court(folder, settings, mode)
    found: list[str] = []
    try:
        async with asyncio.timeout(60):
            await court.selection.start()
            for verdict in ("approve", "skip"):
                found += await court.trial(verdict)
    except LamdatuiError as error:
        found.append(f"it could not be started: {error.what}")
    except TimeoutError:
        found.append("it took longer than a minute")
    finally:
        await court.selection.close()
        court.journal.close()
    written = [path.read_bytes() for path in folder.rglob("*") if path.is_file()]
    return found + canaries.touched([*liar.told, *written])


async def everything(
    canaries: Canaries, folder: Path, cases: Sequence[AnswerCase] | None = None, modes: Sequence[str] = MODES
) -> dict[str, list[str]]:
    """All cases in all modes, or some: what is wrong, by case and mode."""
    folder.mkdir()
    found = {}
    async with lying() as liar:
        for number, case in enumerate(answer_cases(canaries) if cases is None else cases):
            for mode in modes:
                if wrong := await tried(case, mode, liar, canaries, folder / f"{number}-{mode}"):
                    found[f"{case} in mode {mode}"] = wrong
    return found
