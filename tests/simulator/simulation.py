"""One run, from its first engine to its end, as a seed has it."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import errno
import fcntl
import json
import random
import signal
from collections import Counter
from collections.abc import Callable
from contextvars import Context, copy_context
from pathlib import Path
from typing import Any

from lamdatui.base import faults
from lamdatui.base.errors import LamdatuiError
from lamdatui.base.faults import fault
from lamdatui.base.jsonio import read_record, write_json
from lamdatui.config.resources import load_registry
from lamdatui.engine.__main__ import Engine
from lamdatui.engine.world import World
from lamdatui.step.files import DATA, METRICS, REQUEST, TRAINED, claim, write_outcome
from lamdatui.step.request import stored_inputs
from lamdatui.store.artifacts import Store
from lamdatui.store.journal import Journal, projection, read_state
from lamdatui.wire.rundir import prepare_run
from tests.simulator.machine import Killed, SimulatedHost, SimulatedProcess, SimulatedProcesses, current
from tests.simulator.spaces import Variant, truth
from tests.simulator.virtual import SimulatedClock, Stuck, VirtualLoop

REGISTRY = load_registry()
LIVES = 60
"""A run that is not at its end after as many engines does not get there."""


class Wrong(AssertionError):
    """Something that must hold does not."""


class Simulation:
    """One run, from its first engine to its end, as a seed has it."""

    def __init__(self, seed: int, variants: list[Variant], folder: Path, say: Callable[[str], None] = lambda _: None) -> None:
        self.seed = seed
        self.draw = random.Random(seed)
        self.variant = self.draw.choice(variants)
        self.trouble = self.draw.choice([0.0, 1.0, 1.0, 3.0])
        """How often faults come."""
        self.busy = self.draw.choice([0.0, 0.0, 1.0, 3.0])
        """How often people act."""
        self.loop = VirtualLoop()
        self.loop.set_task_factory(self._task)
        self.clock = SimulatedClock(self.loop, self.draw)
        self.processes = SimulatedProcesses()
        self.say = lambda text: say(f"{self.loop.time() - 1000:10.2f} {text}")
        self.run_dir = prepare_run(self.variant.profile, "run", folder)
        self.store = Store(folder / "store")
        self.engine: SimulatedProcess | None = None
        self.acknowledged: tuple[int, str] = (0, "")
        """The last event whose commit returned, and its hash."""
        self.done: dict[int, str] = {}
        """Trial → digest of trials that were seen done."""
        self.published = Counter[str]()
        self.begun = Counter[str]()
        self.at_work: dict[str, SimulatedProcess] = {}
        self.approved: set[str] = set()
        self.harmed: set[str] = set()
        """Digests of objects that were damaged or dropped: made again."""
        self.counts = Counter[str]()
        self.lives = 0

    def _task(self, loop: Any, coroutine: Any, context: Context | None = None) -> asyncio.Task[Any]:
        task = asyncio.Task(coroutine, loop=loop, context=context)
        process = (context or copy_context()).get(current)
        if process is not None:
            process.tasks.append(task)
        return task

    # --- faults

    def passed(self, name: str) -> None:
        """At a fault point: the dead go no further, and the living may die."""
        process = current.get()
        if process is None:
            return
        if not process.alive:
            raise Killed(name)
        chance = self.draw.random()
        if chance < 0.006 * self.trouble:
            self.counts[f"killed at {name}"] += 1
            self.say(f"{process.what} is killed at {name}")
            process.kill()
            raise Killed(name)
        # A commit that fails ends the engine; one that fails twice at a step's end leaves no outcome.
        if chance > 1 - 0.0015 * self.trouble and name.startswith(("journal.before", "store.")):
            self.counts[f"disk full at {name}"] += 1
            self.say(f"the disk of {process.what} is full at {name}")
            raise OSError(errno.ENOSPC, "No space left on device", str(self.run_dir))

    # --- a step

    def start_step(self, directory: Path, host: SimulatedHost) -> SimulatedProcess:
        """Start a step's process; whoever started it hears of its end while it lives itself."""
        process = SimulatedProcess(
            100 + len(self.processes.by_pid), f"step {directory.parent.name}/{directory.name}", self.loop
        )
        self.processes.by_pid[process.pid] = process
        parent = current.get()

        async def live() -> None:
            with contextlib.suppress(Killed, asyncio.CancelledError):
                process.exit_status = await self._step(process, directory)
            self.at_work = {digest: worker for digest, worker in self.at_work.items() if worker is not process}
            process.alive = False
            if parent is not None and parent.alive:
                host.exits[process.pid] = process.exit_status if process.exit_status is not None else -signal.SIGKILL

        process.spawn(live())
        return process

    async def _step(self, process: SimulatedProcess, directory: Path) -> int:
        draw = self.draw
        await asyncio.sleep(draw.choice([0.01, 0.1, 0.5]))
        fault("step.before-claim")
        if not claim(directory, "step", process.identity()):
            return 0
        request = read_record(directory / REQUEST)
        outcome: dict[str, Any] = {"status": "failed", "cached": False, "seconds": {}, "error": None}
        began = self.loop.time()
        try:
            outcome["cached"] = await self._work(process, directory, request)
            outcome |= {"status": "ok", "seconds": {"execute": round(self.loop.time() - began, 3), "evaluate": 0.0}}
        except Failure as error:
            outcome["error"] = {"class": error.kind, "message": f"simulated: {error.kind}"}
        except OSError as error:
            outcome["error"] = {"class": "disk" if error.errno == errno.ENOSPC else "bug", "message": str(error)}
        fault("step.before-outcome")
        write_outcome(directory, outcome)
        fault("step.after-outcome")
        return 0 if outcome["status"] == "ok" else 1

    async def _work(self, process: SimulatedProcess, directory: Path, request: dict[str, Any]) -> bool:
        digest, action = request["digest"], request["action"]
        async with self._held(digest):
            if digest in self.at_work and self.at_work[digest].alive:
                raise Wrong(f"{digest[:12]} is worked at twice at once")
            self.at_work[digest] = process
            if self.store.problem(digest):
                self.store.put_aside(digest)
            cached = action is not None
            with self.store.using(stored_inputs(request)):
                if cached and self.store.find(digest) is None:
                    cached = False
                    self._inputs_are_there(request)
                    await self._execute(process, directory, request)
                await self._evaluate(process, request)
            del self.at_work[digest]
        return cached

    @contextlib.asynccontextmanager
    async def _held(self, digest: str) -> Any:
        """`Store.lock`, without keeping the other simulated processes from going on."""
        with (self.store.root / "locks" / digest).open("w") as handle:
            while True:
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    await asyncio.sleep(0.05)
            yield

    def _inputs_are_there(self, request: dict[str, Any]) -> None:
        for digest in stored_inputs(request):
            if self.store.problem(digest) or self.store.find(digest) is None:
                raise Failure("damaged")

    async def _execute(self, process: SimulatedProcess, directory: Path, request: dict[str, Any]) -> None:
        action, draw = request["action"], self.draw
        if request["purpose"] == "trial" and action["digest"] not in self.approved:
            raise Wrong(f"{action['digest'][:12]} is executed and was never approved")
        write_json(directory / TRAINED, {"digest": action["digest"], "pid": process.pid})
        self.begun[action["digest"]] += 1
        fate = draw.choices(
            ["ok", "oom-train", "bug", "stopped", "hangs"], [100, 3 * self.trouble, 3 * self.trouble, 1, self.trouble]
        )[0]
        for number in range(draw.choice([1, 2, 4])):
            with (directory / METRICS).open("a") as metrics:
                metrics.write(json.dumps({"step": number, "loss": 1.0}) + "\n")
            await self._wait(process, draw.choice([0.01, 0.1, 0.8]))
            fault("step.train-step")
        if fate == "stopped":
            process.is_stopped = True
            self.say(f"{process.what} is stopped by a signal")
        while process.is_stopped or fate == "hangs":
            await self._wait(process, 1.0, deaf=process.is_stopped)
        if fate in ("oom-train", "bug"):
            raise Failure(fate)
        with self.store.staging() as staged:
            about = self._result(staged, request)
            fault("step.before-save")
            self.store.publish(staged, action["digest"], {**about, "action": action})
        self.published[action["digest"]] += 1
        self.say(f"{process.what} has published {action['digest'][:12]}")

    def _result(self, staged: Path, request: dict[str, Any]) -> dict[str, Any]:
        """Write what the action makes; what its manifest says of it."""
        kind = REGISTRY.get(request["action"]["type"]).type
        if kind.output == "model":
            (staged / "model.safetensors").write_text(f"the weights of {request['digest']}")
            return {"kind": "full"}
        (staged / DATA).write_text(f"the rows of {request['digest']}")
        first = next(data for found in request["datasets"].values() for data in found)
        return {"kind": "dataset", **{name: first[name] for name in ("format", "rows", "chars", "longest")}}

    async def _wait(self, process: SimulatedProcess, seconds: float, deaf: bool = False) -> None:
        """Work; raises Failure once the process is asked to end."""
        await asyncio.sleep(seconds)
        if process.asked and not deaf:
            raise Failure("killed")

    async def _evaluate(self, process: SimulatedProcess, request: dict[str, Any]) -> None:
        for wanted in request["evaluations"]:
            if self.store.evaluation(wanted["key"]) is not None:
                continue
            await self._wait(process, self.draw.choice([0.01, 0.2]))
            fault("step.before-evaluate")
            rows = self.variant.rows(wanted["task"], wanted["split"])
            given = [
                {"id": row["id"], "score": truth(request["digest"], row["id"]), "completion": "", "ended": True} for row in rows
            ]
            told = {"key": wanted["key"], "task": wanted["task"], "split": wanted["split"], "rows": given, "seconds": 0.1}
            self.store.record_evaluation(wanted["key"], {"model": request["digest"], **told})

    # --- people

    async def _people(self, engine: Engine) -> None:
        """Who answers, and who meddles."""
        draw = self.draw
        while True:
            await asyncio.sleep(draw.choice([0.02, 0.1, 0.5, 5.0]) / max(self.busy, 0.5))
            loop = engine.loop
            if loop is None or loop.state.status != "running":
                continue
            with contextlib.suppress(LamdatuiError):
                if loop.state.phase == "waiting":
                    self._answer(engine)
                elif loop.state.paused:
                    # Also where the run waits for room: the disk was full for a moment.
                    engine.command("resume", {}, "console")
                elif self.busy and draw.random() < 0.25:
                    self._meddle(engine)

    def _answer(self, engine: Engine) -> None:
        assert engine.loop is not None
        trial = engine.loop.state.open_trial
        if trial is None or trial.action is None:
            return
        verdict = self.draw.choices(["approve", "veto", "skip"], [8, 2, 1])[0]
        told = {"number": trial.number, "digest": trial.action["digest"], "verdict": verdict, "reason": "so", "remember": False}
        told["remember"] = self.draw.random() < 0.1
        self.say(f"a person says {verdict} to trial {trial.number}")
        self._asked(engine, "decide", told)

    def _meddle(self, engine: Engine) -> None:
        draw = self.draw
        assert engine.loop is not None
        state = engine.loop.state
        what = draw.choice(
            ["pause", "suspend", "mode", "cancel", "propose", "withdraw", "more", "stop", "policy", "hint", "harm"]
        )
        args: dict[str, Any] = {}
        match what:
            case "mode":
                args = {"mode": draw.choice(["ask", "auto", "auto", "ask-risky"])}
            case "cancel":
                args = {"number": state.open_trial.number if state.open_trial else 1}
            case "withdraw":
                args = {"id": next(iter(state.queue), "none")}
            case "more":
                args = {"trials": draw.choice([1, 2])}
            case "stop":
                if draw.random() < 0.8:
                    return
                args = {"when": draw.choice(["after-step", "now"])}
            case "policy":
                args = {"name": "random"}
            case "hint":
                args = {"text": "try merging"}
            case "propose":
                known = [trial.action for trial in state.trials.values() if trial.action]
                if not known:
                    return
                order = draw.choice(known)
                params = (
                    {**order["params"], "max_steps": draw.choice([40, 120, 240])} if order["type"] == "sft" else order["params"]
                )
                args = {"action": {"type": order["type"], "inputs": order["inputs"], "params": params}}
            case "harm":
                self._harm()
                return
        self.say(f"a person asks for {what} {args}")
        self._asked(engine, what, args)

    def _asked(self, engine: Engine, what: str, args: dict[str, Any]) -> None:
        assert self.engine is not None
        self.engine.context.copy().run(engine.command, what, args, "console", "a person")
        self.counts[what] += 1

    def _harm(self) -> None:
        """Flip a byte of a published object that no step works at."""
        objects = sorted((self.store.root / "objects").iterdir())
        idle = [each for each in objects if each.name not in self.at_work]
        if idle:
            victim = self.draw.choice(idle)
            file = self.draw.choice([each for each in sorted(victim.iterdir()) if each.is_file()])
            content = bytearray(file.read_bytes())
            content[self.draw.randrange(len(content))] ^= 1
            file.write_bytes(content)
            self.harmed.add(victim.name)
            self.say(f"{file.name} of {victim.name[:12]} is damaged")

    # --- lives

    def run(self) -> None:
        """The whole run. Raises Wrong, or whatever the engine raises that it must not."""
        before, faults.on_pass = faults.on_pass, self.passed
        asyncio.set_event_loop(self.loop)
        try:
            self.loop.run_until_complete(self._run())
        finally:
            faults.on_pass = before
            for task in asyncio.all_tasks(self.loop):
                task.cancel()
            with contextlib.suppress(Stuck):
                self.loop.run_until_complete(asyncio.sleep(0))
            self.loop.close()
            asyncio.set_event_loop(None)

    async def _run(self) -> None:
        while self.lives < LIVES:
            self.lives += 1
            await self._life()
            state = self.check()
            if state.has_ended and not self._steps_alive():
                break
        else:
            raise Wrong(f"it has not ended after {LIVES} engines")
        self.check_end()

    async def _life(self) -> None:
        """One engine, until it ends or is killed."""
        process = self.engine = SimulatedProcess(10_000 + self.lives, "the engine", self.loop)
        options = argparse.Namespace(
            headless=False, view=False, mode=None, max_trials=None, policy=None, baselines=False, network=None, fake_gpu=None
        )
        world = World(self.clock, self.processes, lambda *_: SimulatedHost(self), lambda *_, **__: self.variant.opened())
        self.say(f"engine {self.lives} starts")
        made: list[Engine] = []

        async def live() -> int:
            engine = Engine(self.run_dir, self.variant.profile, options, world)
            made.append(engine)
            self._watch(engine)
            return await engine.run()

        work = process.spawn(live())
        await asyncio.sleep(0)
        others = [self.loop.create_task(self._people(made[0]))] if made else []
        if self.draw.random() < 0.5 * min(1.0, self.trouble):
            others.append(self.loop.create_task(self._killer(process)))
        try:
            code = await work
            self.say(f"the engine ends with {code}")
        except (Killed, asyncio.CancelledError):
            self.counts["engines killed"] += 1
        except LamdatuiError as error:
            self.say(f"the engine fails: {error.what}")
            self.counts["engines failed"] += 1
        finally:
            process.kill()
            for task in others:
                task.cancel()
            await asyncio.gather(*process.tasks, *others, return_exceptions=True)
            for engine in made:
                engine.journal.close()
                with contextlib.suppress(Exception):
                    await engine.server.close()
        # Steps live on for as long as it takes somebody to start the next engine.
        await asyncio.sleep(self.draw.choice([0.0, 1.0, 60.0, 4_000.0]))

    async def _killer(self, process: SimulatedProcess) -> None:
        """A kill at some moment: of the engine, or of a step."""
        await asyncio.sleep(self.draw.choice([0.01, 0.2, 1.0, 10.0]) * self.draw.random())
        steps = self._steps_alive()
        victim = self.draw.choice([process, *steps])
        self.say(f"{victim.what} is killed")
        self.counts[f"killed at any moment: {victim.what.split()[0]}"] += 1
        victim.kill()

    def _watch(self, engine: Engine) -> None:
        """Hear of what is acknowledged."""
        journal, append = engine.journal, engine.journal.append

        def recorded(*facts: tuple[str, dict[str, Any]]) -> list[Any]:
            for kind, data in facts:
                if kind == "trial.decided" and data["verdict"] in ("approve", "edit"):
                    # Before the commit: the engine may be killed between it and here, and the approval holds.
                    self.approved.add(data["action"]["digest"])
            events = append(*facts)
            self.acknowledged = journal.state.last_seq, journal._hash
            for event in events:
                self.say(f"  {event.seq} {event.kind} {str(event.data)[:150]}")
                if event.kind == "run.resumed":
                    # What nobody needed any more may be needed again by a search that is extended.
                    self.harmed |= {path.stem for path in (self.store.root / "dropped").glob("*.json")}
            return events

        journal.append = recorded  # type: ignore[method-assign]

    def _steps_alive(self) -> list[SimulatedProcess]:
        return [each for each in self.processes.by_pid.values() if each.alive]

    # --- what must hold

    def check(self) -> Any:
        """After each engine: what was acknowledged is on disk, and adds up to one state; nothing done is undone. The state."""
        path = self.run_dir / "run.db"
        state = read_state(path)
        seq, digest = self.acknowledged
        journal = Journal(path)
        try:
            found = next(iter(journal._db.execute("SELECT hash FROM chain WHERE seq = ?", (seq,))), ("",))[0]
            if seq and found != digest:
                raise Wrong(f"event {seq} was acknowledged and is not on disk")
            if projection(journal.state) != projection(state):
                raise Wrong("two readers see different runs")
            kept = journal.projections()
            with contextlib.suppress(Killed):
                journal.rebuild()
            if kept and kept != journal.projections():
                raise Wrong("the projection is not that of the events")
        finally:
            journal.close()
        for number, done in self.done.items():
            trial = state.trials.get(number)
            if trial is None or trial.status != "done" or trial.action["digest"] != done:
                raise Wrong(f"trial {number} was done and is {trial and trial.status}")
        self.done |= {each.number: each.action["digest"] for each in state.trials.values() if each.status == "done"}
        return state

    def check_end(self) -> None:
        """Once the run has ended."""
        state = read_state(self.run_dir / "run.db")
        if open_steps := [key for key, step in state.steps.items() if step.status in ("intended", "running")]:
            # A step's end may be left open where the run was stopped without waiting for it.
            raise Wrong(f"steps are open: {open_steps}")
        if state.open_trial is not None:
            raise Wrong(f"trial {state.open_trial.number} is open")
        if state.counted > state.max_trials:
            raise Wrong(f"{state.counted} trials count, of {state.max_trials}")
        for digest, times in self.published.items():
            if times > 1 and digest not in self.harmed:
                raise Wrong(f"{digest[:12]} was executed to its end {times} times")
        digests = Counter(trial.action["digest"] for trial in state.trials.values() if trial.status == "done" and trial.action)
        if again := [digest for digest, times in digests.items() if times > 1]:
            raise Wrong(f"{again[0][:12]} is the result of {digests[again[0]]} trials")
        vetoed = {trial.action["digest"] for trial in state.trials.values() if trial.status == "vetoed" and trial.action}
        if wrong := vetoed & set(self.begun) - self.approved:
            raise Wrong(f"{wrong} was vetoed and executed")
        for model, tasks in state.scores.items():
            digest = state.pool.model(model).digest
            for task, splits in tasks.items():
                for split, score in splits.items():
                    if abs(score["mean"] - self.variant.mean(digest, task, split)) > 1e-9:
                        raise Wrong(f"{model} has another score on {task} ({split}) than it was given")
        if state.status == "done" and state.winner is None and self.done:
            raise Wrong("a run with results has no winner")
        self.counts[f"ended: {state.status}"] += 1


class Failure(Exception):
    """How a simulated step's work fails: an error's class."""

    def __init__(self, kind: str) -> None:
        super().__init__(kind)
        self.kind = kind
