"""`python -m lamdatui.engine RUN_DIR`: the detached engine of one run."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import errno
import os
import signal
import sys
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import psutil

from lamdatui import __version__
from lamdatui.actionkit.timings import Timings
from lamdatui.base.clock import boot_id
from lamdatui.base.errors import EXIT_FAILED, EXIT_PLANNER, LamdatuiError
from lamdatui.base.interpreter import without_optimization
from lamdatui.base.jsonio import write_atomic
from lamdatui.base.network import OFF, ONLINE
from lamdatui.base.paths import PRIVATE, make_private, measurements_file, socket_path
from lamdatui.config.resources import load_prompt, untrusted
from lamdatui.domain.decisions import MODES
from lamdatui.domain.declarations import declarations
from lamdatui.domain.objects import ObjectPool
from lamdatui.domain.schemes import GENERATORS, SCHEME
from lamdatui.engine.answers import Answers
from lamdatui.engine.approval import PERSON
from lamdatui.engine.fitting import fitted
from lamdatui.engine.integrity import check_promises, promised
from lamdatui.engine.loop import Loop
from lamdatui.engine.machine import Machine, judge_bytes
from lamdatui.engine.people import People, more_trials
from lamdatui.engine.selection import Selection
from lamdatui.engine.server import Server
from lamdatui.engine.steps import Slots, StepRunner
from lamdatui.engine.world import World
from lamdatui.hardware.gpu import read_gpus
from lamdatui.hardware.probe import Probe
from lamdatui.hardware.processes import ENGINE
from lamdatui.hardware.recording import load_recording
from lamdatui.hardware.system import has_fast_bfloat16
from lamdatui.inputs import trust
from lamdatui.inputs.generation import generator, kept
from lamdatui.inputs.profile import Profile, load_profile
from lamdatui.inputs.workspace import planner_settings
from lamdatui.policy import Ingredients, make_policy
from lamdatui.store.artifacts import Store
from lamdatui.store.journal import Journal, JournalFailed
from lamdatui.wire.lastwords import forget, leave
from lamdatui.wire.rundir import LOCKED, take_lock

QUESTIONS = ("actions", "try_action", "answers")
"""Commands that change nothing: a viewer may send them."""
LINGER_SECONDS = float(os.environ.get("LAMDATUI_LINGER", "3"))
"""How long the engine stays after its run has ended and nobody is attached."""


class Engine:
    """Builds the parts, answers commands, ends in an orderly way."""

    def __init__(self, run_dir: Path, profile: Profile, options: argparse.Namespace, world: World | None = None) -> None:
        world = world or World()
        self.run_dir = run_dir
        self.profile = profile
        self.options = options
        self.clock = world.clock
        self.journal = Journal(run_dir / "run.db", self.clock, view=options.view)
        self.journal.on_failure = self._can_not_record
        self.closing = asyncio.Event()
        self.server = Server(socket_path(run_dir), self.journal, self.command, self.closing)
        self.workspace = world.workspace(profile, promised=promised(self.journal.state))
        self.host = world.host(run_dir / "steps.log", self.workspace.threads, profile.device == "cpu", self._online())
        self.runner = StepRunner(run_dir, self.journal, self.host, self.server.publish, profile.steps, world)
        self.loop: Loop | None = None
        self.people: People | None = None
        self.answers = Answers(run_dir)
        self.reopened = asyncio.Event()
        """Set when more trials are asked of a run that is only shown."""

    def _online(self) -> bool:
        """Whether steps may use the network: as this start is told, else as the run was started."""
        return self.journal.state.network == ONLINE if self.options.network is None else self.options.network == ONLINE

    def _can_not_record(self, failure: JournalFailed) -> None:
        """Nothing can be recorded any more, so nothing more is done: leave the reason for whoever watches, then end."""
        leave(self.run_dir, failure)
        self.closing.set()

    async def _machine(self) -> tuple[Machine, list[str]]:
        """What steps run on. Where NVML sees a GPU, the host says whether this torch can use it."""
        gpus, reason = read_gpus()
        if self.profile.device != "cpu" and gpus:
            frame = await self.host.ready()
            if frame["cuda"]:
                # Which of them CUDA_VISIBLE_DEVICES names is not asked: the smallest one bounds them all.
                known = [gpu["memory_total"] - self._taken(gpu) for gpu in gpus if gpu["memory_total"]]
                bf16 = all((gpu["capability"] or (0, 0)) >= (8, 0) for gpu in gpus)
                memory = min(known, default=psutil.virtual_memory().total)
                return self._fit("cuda", bf16, memory), [f"cuda:{i}" for i in range(frame["cuda"])]
            reason = "this build of torch has no CUDA"
        if self.profile.device == "cuda":
            raise LamdatuiError("the profile asks for a GPU and there is none", where=reason, fix="set device: auto")
        return self._fit("cpu", has_fast_bfloat16(), psutil.virtual_memory().total), ["cpu"]

    def _taken(self, gpu: Mapping[str, Any]) -> int:
        """Bytes of a GPU that others use; when a run goes on, what its own planner holds can't be told from that."""
        return 0 if self.journal.state.last_seq else gpu["memory_used"] or 0

    def _fit(self, device: str, fast_bfloat16: bool, memory: int) -> Machine:
        timings = Timings.open(measurements_file())
        begun = self.journal.state
        told = begun.device.get("generator", GENERATORS[0])
        used = kept(self.workspace, told) if begun.last_seq else generator(self.workspace, device)
        dtype = self._dtype(fast_bfloat16)
        judges = judge_bytes(self.workspace.judges, dtype)
        return Machine(device, dtype, memory, self.run_dir.parent, timings, used, judges)

    def _dtype(self, fast_bfloat16: bool) -> str:
        """The dtype of weights that are not trained, and of the results: part of every action's digest, so a run keeps it."""
        if self.profile.dtype != "auto":
            return self.profile.dtype
        if begun_with := self.journal.state.device.get("dtype"):
            return begun_with
        return "bfloat16" if fast_bfloat16 else "float32"

    def _facts_of_start(self, machine: Machine, network: str) -> list[tuple[str, dict[str, Any]]]:
        state, budget = self.journal.state, self.profile.budget
        facts: list[tuple[str, dict[str, Any]]] = []
        trials = self.options.max_trials or (state.max_trials if state.last_seq else budget.trials)
        if not state.last_seq:
            created = {
                "name": self.run_dir.name,
                "profile": self.profile.model_dump(mode="json"),
                "profile_digest": self.profile.search_digest(),
                "scheme": SCHEME,
                "seed": self.profile.seed,
                "mode": self.options.mode or self.profile.mode,
                "policy": self.options.policy or self.profile.policy.name,
                "max_trials": trials,
                "wall_seconds": budget.wall_minutes * 60 if budget.wall_minutes else None,
            }
            facts.append(("run.created", created))
        started = {"pid": os.getpid(), "epoch": state.epoch + 1, "boot_id": boot_id(), "version": __version__, "clock": "mono"}
        started["network"] = network
        if (types := declarations(self.workspace.types)) != state.types:
            started["types"] = types
        device = {"device": machine.device, "dtype": machine.dtype, "generator": machine.generator}
        facts.append(("engine.started", {**started, "device": device}))
        if self.options.baselines:
            facts.append(("baselines.asked", {"by": "command line"}))
        elif state.last_seq and (state.status != "running" or state.paused or state.stopping or trials != state.max_trials):
            facts.append(("run.resumed", {"max_trials": trials}))
        if state.last_seq and self.options.mode and self.options.mode != state.mode:
            facts.append(("mode.changed", {"mode": self.options.mode, "by": "command line"}))
        if state.last_seq and self.options.policy and self.options.policy != state.policy:
            facts.append(("policy.changed", {"name": self.options.policy, "by": "command line"}))
        return facts

    def _selection(self, problem: Callable[[str, str], None]) -> Selection:
        spec = self.profile.policy
        given = Ingredients(
            planner=planner_settings(self.profile, self.workspace.threads),
            load_prompt=load_prompt,
            log_path=self.run_dir / "planner.log",
            share=spec.share,
            adapt=spec.adapt,
            script=[step.model_dump() for step in spec.script],
        )
        name = self.journal.state.policy if self.journal.state.last_seq else spec.name
        return Selection(lambda each: make_policy(each, given), self.options.policy or name, problem)

    async def run(self) -> int:
        """The engine's whole life; its exit code."""
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, self.closing.set)
        if self.options.view and not await self._view():
            return 0
        await self.host.warm()
        machine, devices = await self._machine()
        pool = ObjectPool({**self.workspace.models, **self.workspace.datasets})
        self.workspace.types.update(fitted(self.workspace.types, self.profile.actions, pool, machine))
        check_promises(self.workspace, self.journal.state)
        selection = self._selection(lambda where, message: loop.problem(where, message))
        store = Store(self.run_dir.parent / "store", always=self.profile.verify == "always")
        store.sweep()
        loop = self.loop = Loop(
            self.workspace,
            self.journal,
            store,
            self.runner,
            Slots(devices),
            selection,
            machine,
            self.clock,
            self.server.publish,
        )
        self.people = People(loop, self.closing)
        loop.approvals.unattended = self.options.headless
        loop.record(*self._facts_of_start(machine, await self.host.network()))
        for text in self.workspace.problems:
            loop.problem("trust" if text == untrusted() else "actions", text)
        for text in self.workspace.origins:
            loop.problem("origin", text)
        for text in self.workspace.unasked:
            loop.problem("template", text)
        if not self.options.view:
            await self._serve()
        readings = asyncio.create_task(self._readings())
        code = 0
        try:
            code = await self._work(loop, selection)
        except Exception as error:
            # Before the connections end, so that whoever sees them end finds the reason.
            leave(self.run_dir, told_of(error, self.run_dir))
            raise
        finally:
            self.closing.set()
            readings.cancel()
            await selection.close()
            await self.host.close()
            reason = "the run ended" if self.journal.state.status != "running" else "asked to stop"
            with contextlib.suppress(JournalFailed):
                loop.record(("engine.stopped", {"reason": reason}))
            await self.server.close()
            self.journal.close()
        if self.journal.failure is not None:
            raise self.journal.failure
        return code

    async def _serve(self) -> None:
        """Listen. The run directory says where, before anybody is greeted there."""
        try:
            write_atomic(self.run_dir / "socket", str(socket_path(self.run_dir)))
        except OSError as error:
            # Our own clients know the place without it.
            print(f"the file {error.filename} could not be written: {error.strerror}", file=sys.stderr)
        await self.server.start()

    async def _view(self) -> bool:
        """Show a run that has ended to whoever attaches; nothing is written. True when it is to go on."""
        await self._serve()
        readings = asyncio.create_task(self._readings())
        goes_on = await self._linger(self.reopened.is_set)
        readings.cancel()
        if not goes_on:
            await self.server.close()
            self.journal.close()
        return goes_on

    async def _work(self, loop: Loop, selection: Selection) -> int:
        try:
            await selection.start()
        except LamdatuiError as error:
            loop.problem("planner", f"{error.what} {error.where}".strip())
            if not loop.state.trials:
                ended = {"status": "planner", "reason": error.what, "winner": None, "beats_base": None, "gain": None}
                loop.record(("run.ended", ended))
                await self._linger(lambda: False)
                return EXIT_PLANNER
        closing = asyncio.create_task(self.closing.wait())
        while True:
            work = asyncio.create_task(loop.run())
            await asyncio.wait({work, closing}, return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                # Training outlives the engine: a later one adopts the step.
                work.cancel()
                await asyncio.gather(work, return_exceptions=True)
                return 0
            work.result()
            if not await self._linger(lambda: not loop.state.has_ended):
                return 0

    async def _linger(self, goes_on: Callable[[], bool]) -> bool:
        """Stay while somebody watches the ended run, and a little longer; True as soon as it is to go on."""
        loop = asyncio.get_running_loop()
        idle_since = loop.time()
        while not self.closing.is_set():
            if goes_on():
                return True
            if self.server.peers:
                idle_since = loop.time()
            elif loop.time() - max(idle_since, self.server.last_peer_left or 0.0) >= LINGER_SECONDS:
                break
            await asyncio.sleep(0.1)
        self.closing.set()
        return False

    async def _readings(self) -> None:
        recording = load_recording(self.options.fake_gpu) if self.options.fake_gpu else None
        probe = Probe(self.run_dir, self._owners, recording, recording.title if recording else "")
        while True:
            if self.server.peers:
                self.server.publish(await probe.read())
            await asyncio.sleep(1.0)

    def _owners(self) -> dict[int, str]:
        """This run's processes, for the hardware pane: what else uses a GPU is a stranger's."""
        running = [r for r in self.journal.state.steps.values() if r.status == "running" and r.pid]
        host = {self.host.pid: "step host"} if self.host.pid else {}
        return {os.getpid(): ENGINE, **host, **{r.pid: f"step {r.key}" for r in running if r.pid}}

    # --- commands ------------------------------------------------------------------------------------------------

    def _command_view(self, command: str, args: dict[str, Any]) -> Any:
        """What can be asked of a run that has ended and is only shown."""
        match command:
            case "actions":
                return {"types": declarations(self.workspace.types)}
            case "more":
                trials = self.journal.state.counted + more_trials(args)
                for event in self.journal.append(("run.resumed", {"max_trials": trials})):
                    self.server.publish({"type": "event", "event": event.to_json()})
                self.options.max_trials = trials
                self.reopened.set()
            case "stop":
                self.closing.set()
            case _:
                raise LamdatuiError("this run has ended; ask for more trials first")
        return None

    def command(self, command: str, args: dict[str, Any], role: str, by: str = PERSON) -> Any:
        """Do what a client asks. Raises LamdatuiError when it can't be done."""
        if role == "viewer" and command not in QUESTIONS:
            raise LamdatuiError("a viewer can't steer")
        if command == "answers":
            return asyncio.to_thread(self.answers.told, self.journal.state, args)
        if self.loop is None or self.people is None:
            return self._command_view(command, args)
        if role == "console":
            # Somebody is there now, also when the run was started without a screen.
            self.loop.approvals.unattended = False
        return self.people.command(command, args, by)


def main() -> int:
    """Parse, lock, run. What goes wrong before the socket answers is left in `engine-error.json`."""
    without_optimization("lamdatui.engine")
    parser = argparse.ArgumentParser()
    parser.add_argument("run_dir", type=Path)
    parser.add_argument("--headless", action="store_true")
    parser.add_argument("--view", action="store_true", help="only show a run that has ended")
    parser.add_argument("--mode", choices=MODES)
    parser.add_argument("--max-trials", type=int)
    parser.add_argument("--policy")
    parser.add_argument("--baselines", action="store_true", help="go on with the baselines of a run that has ended")
    parser.add_argument("--network", choices=(ONLINE, OFF), help="whether steps may use it; else as the run was started")
    parser.add_argument("--fake-gpu", type=Path, help="a recording for the hardware frames")
    options = parser.parse_args()
    run_dir: Path = options.run_dir.resolve()
    os.umask(PRIVATE)
    lock = take_lock(run_dir)
    if lock is None:
        return LOCKED
    for folder in (run_dir, run_dir.parent / "store"):
        make_private(folder)  # earlier versions went by the umask
    forget(run_dir)
    try:
        profile = load_profile(run_dir / "profile.yaml")
        # Whoever started this engine, and whatever the mode: what a run directory brings along is not run unasked.
        trust.require(profile, str(run_dir / "profile.yaml"))
        return asyncio.run(Engine(run_dir, profile, options).run())
    except Exception as error:  # noqa: BLE001 (the last boundary: whatever it is, whoever started the engine has to be told)
        words = told_of(error, run_dir)
        leave(run_dir, words)
        with contextlib.suppress(OSError):  # Where the disk is full, the log is too.
            if not isinstance(error, LamdatuiError):
                traceback.print_exc()
            print(words, file=sys.stderr, flush=True)
        return words.exit_code


def told_of(error: Exception, run_dir: Path) -> LamdatuiError:
    """An error as what a person can act on."""
    if isinstance(error, LamdatuiError):
        return error
    fix = "start it again: finished work is kept"
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return LamdatuiError(
            f"the disk is full: {error}", where=str(run_dir), fix=f"free some space, then {fix}", exit_code=EXIT_FAILED
        )
    what = f"the engine failed: {type(error).__name__}: {error}"
    return LamdatuiError(what, where=str(run_dir / "engine.log"), fix=fix, exit_code=EXIT_FAILED)


if __name__ == "__main__":
    sys.exit(main())
