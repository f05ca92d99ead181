"""Runs that are killed, one after another, and the judgement of them."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from lamdatui.base import paths
from lamdatui.store.journal import read_state
from tests.kills.making import ACTION, PROFILE, TRIALS, script
from tests.kills.watching import Processes, Run, freeze, stat_of, until

CATALOGUE = paths.cache_dir() / "catalogue"
MOST = {"cheap": 24, "sft": 14}
"""Kills of one run: enough trials have to come to their end."""
INSIDE = ("work", "publish", "commit")
AIMS = {"work": 0.36, "publish": 0.24, "commit": 0.24, "any": 0.16}
VICTIMS = {
    "work": {"step": 0.45, "engine": 0.25, "all": 0.15, "host": 0.1, "launcher": 0.05},
    "publish": {"step": 0.5, "all": 0.3, "engine": 0.2},
    "commit": {"engine": 0.6, "all": 0.4},
    "any": {"step": 0.2, "engine": 0.4, "all": 0.2, "host": 0.1, "launcher": 0.1},
}
DELAYS = {"cheap": {"work": 0.25, "publish": 0.02, "any": 2.0}, "sft": {"work": 2.0, "publish": 0.05, "any": 8.0}}
"""Seconds at most between an aim that is reached and the kill."""
AT = {"work": ("work",), "publish": ("publish", "outcome")}
"""What a step has to be at: a publication is over within milliseconds."""
AIM_SECONDS = {"cheap": 10.0, "sft": 30.0}
END_SECONDS = 600.0
ORPHAN_SECONDS = 10.0


@dataclass
class Hit:
    """One kill: who, what the engine and the step were doing, and of which attempt; `phase` is what counts."""

    run: str
    aim: str
    victim: str
    phase: str
    engine: str
    step: str
    attempt: str


@dataclass
class Verdict:
    """What is wrong after all; everything has to be 0. `told` says each in words."""

    lost: int = 0
    executed_twice: int = 0
    published_twice: int = 0
    stuck: int = 0
    orphans: int = 0
    unsound: int = 0
    told: list[str] = field(default_factory=list)
    runs: int = 0
    trials: int = 0
    failed_trials: int = 0
    executions: int = 0
    done_again: int = 0
    """Executions that had come to their end and were killed before they were published: their work is done again."""
    starts: int = 0
    unasked: int = 0
    """Of these, how many ended before the run had, though neither they nor the engine had been killed."""
    seconds: float = 0.0

    def bad(self, name: str, text: str) -> None:
        """Count one fault."""
        setattr(self, name, getattr(self, name) + 1)
        self.told.append(f"{name}: {text}")


class Campaign:
    """Runs one after another in a folder of its own, until so many kills."""

    def __init__(
        self,
        folder: Path,
        kind: str,
        seed: int,
        say: Callable[[str], None] = lambda text: None,
        *,
        trials: int = 0,
        host: str = "fork",
    ) -> None:
        self.folder, self.kind, self.say = folder, kind, say
        self.draw = random.Random(seed)
        self.seed = seed
        self.trials = trials or TRIALS[kind]
        self.hits: list[Hit] = []
        self.verdict = Verdict()
        self.home = folder / "home"
        self.marks = folder / "marks"
        self.objects: dict[str, tuple[int, int]] = {}
        """Digest → inode and time of its manifest, as it was first seen."""
        (self.home / "config" / "actions").mkdir(parents=True)
        (self.home / "cache").mkdir()
        (self.home / "cache" / "catalogue").symlink_to(CATALOGUE)
        (self.home / "config" / "actions" / "chew.py").write_text(ACTION.format(marks=str(self.marks)))
        self.environment = {**os.environ, "LAMDATUI_HOME": str(self.home), "LAMDATUI_LINGER": "0.1", "OMP_NUM_THREADS": "1"}
        self.environment["LAMDATUI_STEP_HOST"] = host
        self.processes = Processes(self.home)

    def go(self, kills: int, seconds: float = float("inf")) -> Verdict:
        """Kill so many times, or for so long, each run to its end."""
        began = time.monotonic()
        while len(self.hits) < kills and time.monotonic() - began < seconds:
            self._run(kills)
            self.verdict.seconds = time.monotonic() - began
            self.say(self.summary())
        return self.verdict

    def inside(self) -> int:
        """How many kills hit whoever works, publishes or commits, or an engine whose step does."""
        return sum(hit.phase in INSIDE and hit.victim in ("step", "engine", "all") for hit in self.hits)

    def summary(self) -> str:
        """What was hit, and what is wrong."""
        phases, victims = Counter(hit.phase for hit in self.hits), Counter(hit.victim for hit in self.hits)
        return (
            f"{len(self.hits)} kills ({self.inside()} inside work, publish or commit) {dict(phases)} {dict(victims)}; "
            f"{json.dumps(asdict(self.verdict))}"
        )

    # --- one run -------------------------------------------------------------------------------------------------

    def _lamdatui(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "lamdatui", *words]

    def _start(self, run: Run) -> subprocess.Popen[bytes]:
        self.verdict.starts += 1
        words = ["run", f"{run.name}.yaml", "--name", run.name, "--headless", "--mode", "auto", "--json"]
        out = (self.folder / f"{run.name}.{self.verdict.starts}.jsonl").open("wb")
        err = (self.folder / f"{run.name}.{self.verdict.starts}.err").open("wb")
        with out, err:
            return subprocess.Popen(
                self._lamdatui(*words), cwd=self.folder, env=self.environment, stdout=out, stderr=err, start_new_session=True
            )

    def _run(self, kills: int) -> None:
        number = self.verdict.runs = self.verdict.runs + 1
        run = Run(self.folder, f"k{self.seed}-{number}")
        policy = {"name": "scripted", "opening": False, "script": script(self.kind, number, self.trials)}
        budget = {"trials": self.trials, "baselines": 0, "replicates": 0, "promotion": 0}
        profile = PROFILE | {"name": "kills", "seed": self.seed * 1000 + number, "policy": policy, "budget": budget}
        profile |= {"actions": {"chew": {}} if self.kind == "cheap" else {"sft": {}}, "steps": {"checkpoint_minutes": 0.01}}
        (self.folder / f"{run.name}.yaml").write_text(json.dumps(profile))
        launcher = self._start(run)
        seen: dict[int, str] = {}
        if number == 1 and self.kind == "cheap":
            # The base is scored once for all runs of this folder, which takes longer than they do.
            until((run.path / "steps" / "1").exists, END_SECONDS, 0.02)
        last = min(kills, len(self.hits) + MOST[self.kind])
        expected, refused = False, 0
        deadline = time.monotonic() + END_SECONDS
        while launcher.poll() != 0:
            if time.monotonic() > deadline:
                self.verdict.bad("stuck", f"{run.name} did not end within {END_SECONDS:.0f} s")
                break
            if launcher.poll() is not None:
                if not expected:
                    text = (self.folder / f"{run.name}.{self.verdict.starts}.err").read_text()
                    self.say(f"{run.name}: exit {launcher.returncode} unasked: {text[-300:]}")
                    refused += 1
                    self.verdict.unasked += 1
                if refused > 3:
                    self.verdict.bad("stuck", f"{run.name} does not start again: exit {launcher.returncode}")
                    break
                launcher, expected = self._start(run), False
            elif len(self.hits) < last:
                expected |= self._strike(run, launcher, seen)
                deadline = time.monotonic() + END_SECONDS
            else:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    launcher.wait(0.5)
        self._end(run)
        self.judge(run, seen)

    def _strike(self, run: Run, launcher: subprocess.Popen[bytes], seen: dict[int, str]) -> bool:
        """Aim, and kill; whether the launcher is to end by it."""
        aim = self.draw.choices(list(AIMS), list(AIMS.values()))[0]
        weights = VICTIMS[aim]
        victim = self.draw.choices(list(weights), list(weights.values()))[0]
        delay = self.draw.random() * DELAYS[self.kind].get(aim, 0.0)

        def reached() -> bool:
            if aim == "any" or launcher.poll() is not None:
                return True
            return bool(run.writers()) if aim == "commit" else run.step()[0] in AT[aim]

        for _ in range(20):
            until(reached, AIM_SECONDS[self.kind], 0.0003 if aim == "commit" else 0.002)
            if aim != "commit":
                break
            # Stopped at once; whoever has committed meanwhile goes on.
            if writers := run.writers():
                freeze(writers)
                if run.writers() == writers:
                    break
                for pid in writers:
                    os.kill(pid, signal.SIGCONT)
            if launcher.poll() is not None:
                break
        if launcher.poll() is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                launcher.wait(delay)
        if launcher.poll() is not None:
            self._resume()
            return False
        return self._kill(run, aim, victim, launcher, seen)

    def _resume(self) -> None:
        """Let go on what was stopped and is not killed after all."""
        for pid in self.processes.all():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

    def _kill(self, run: Run, aim: str, victim: str, launcher: subprocess.Popen[bytes], seen: dict[int, str]) -> bool:
        roles = self.processes.all()
        chosen = [pid for pid, role in roles.items() if victim in ("all", role)]
        engines = [pid for pid, role in roles.items() if role == "engine"]
        if not chosen or (victim == "all" and not engines):
            self._resume()
            return False
        freeze(chosen)
        # What an engine does is known for sure where it stands still.
        (engine, *_) = [*engines, 0]
        doing = "none"
        if engine:
            doing = "commit" if engine in run.writers() else "recovery" if run.is_recovering(engine) else "at work"
        step, attempt = run.step()
        if engine and doing != "recovery":
            seen |= run.chain()
        self._look_at_objects(run)
        if victim in ("engine", "all") and doing in ("commit", "recovery"):
            phase = doing if doing == "commit" or not step else step if victim == "all" else doing
        else:
            phase = step or ("recovery" if doing == "recovery" else "start" if doing == "none" else "idle")
        for pid in chosen:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._resume()
        self.hits.append(Hit(run.name, aim, victim, phase, doing, step, attempt))
        self.say(json.dumps(asdict(self.hits[-1])))
        until(lambda: not set(chosen) & set(self._alive()), 10)
        if victim not in ("engine", "all", "launcher"):
            return False
        if victim != "launcher":
            self._no_orphans(run, "an engine's end", steps=True)
        try:
            launcher.wait(60)
        except subprocess.TimeoutExpired:
            self.verdict.bad("stuck", f"{run.name}: the launcher stays after {victim} was killed")
            launcher.kill()
            launcher.wait()
        return True

    def _alive(self) -> Iterator[int]:
        for pid in self.processes.all():
            with contextlib.suppress(OSError):
                if stat_of(pid)[0] not in "ZX":
                    yield pid

    def _no_orphans(self, run: Run, when: str, *, steps: bool = False) -> None:
        """Nothing of a run is left in time; `steps` outlive their engine."""
        allowed = {"launcher", "step"} if steps else set[str]()

        def left() -> dict[int, str]:
            return {pid: role for pid, role in self.processes.all().items() if role not in allowed}

        if not until(lambda: not left(), ORPHAN_SECONDS, 0.02):
            self.verdict.bad("orphans", f"{run.name}: {left()} {ORPHAN_SECONDS:.0f} s after {when}")

    def _end(self, run: Run) -> None:
        self._no_orphans(run, "the run's end")
        for pid in self.processes.all():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        until(lambda: not list(self._alive()), 10)

    def _look_at_objects(self, run: Run) -> None:
        for path in run.store.glob("objects/*/manifest.json"):
            with contextlib.suppress(OSError):
                found = path.stat()
                now = found.st_ino, found.st_mtime_ns
                if self.objects.setdefault(path.parent.name, now) != now:
                    self.verdict.bad("published_twice", f"{run.name}: {path.parent.name}")

    # --- after it ------------------------------------------------------------------------------------------------

    def judge(self, run: Run, seen: dict[int, str]) -> None:
        """Compare a run that has ended with what was seen of it.

        Events that were told to a client, or were on disk when an engine was killed, are on record as they were; the run is done; no work began once its
        result was published; an object's manifest is the file that it was; a trial has failed only where its step was killed twice; `doctor` finds nothing bad.
        """
        verdict = self.verdict
        events: dict[int, Any] = {}
        state = read_state(run.path / "run.db", lambda event: events.__setitem__(event.seq, event.to_json()))
        if state.status != "done":
            verdict.bad("lost", f"{run.name} ended as {state.status}: {state.reason}")
        now = run.chain()
        if wrong := [seq for seq, found in seen.items() if now.get(seq) != found]:
            verdict.bad("lost", f"{run.name}: events {wrong[:5]} were on disk and are other ones now")
        for file in self.folder.glob(f"{run.name}.*.jsonl"):
            for line in file.read_text().splitlines(keepends=True):
                if line.endswith("\n") and (told := json.loads(line)) != json.loads(json.dumps(events.get(told["seq"]))):
                    verdict.bad("lost", f"{run.name}: event {told['seq']} ({told['kind']}) was told and is another one now")
        closed = Counter(event["data"]["number"] for event in events.values() if event["kind"] == "trial.closed")
        if again := [number for number, count in closed.items() if count > 1]:
            verdict.bad("executed_twice", f"{run.name}: trials {again} were closed twice")
        verdict.trials += len(closed)
        self._executions(run)
        for number, trial in state.trials.items():
            killed = sum(
                hit.attempt.startswith(f"{number}/") and hit.victim in ("step", "all")
                for hit in self.hits
                if hit.run == run.name
            )
            verdict.failed_trials += trial.status == "failed"
            excused = trial.status == "failed" and (trial.error or {}).get("class") == "killed" and killed >= 2
            # One without an action found the script at its end.
            if trial.status != "done" and trial.action is not None and not excused:
                verdict.bad(
                    "lost", f"{run.name}: trial {number} is {trial.status} ({trial.error}) after {killed} kills of its step"
                )
        self._look_at_objects(run)
        done = subprocess.run(
            self._lamdatui("doctor", run.name, "--json"), cwd=self.folder, env=self.environment, capture_output=True, text=True
        )
        if done.returncode:
            bad = [check for check in json.loads(done.stdout or "{}").get("checks", []) if check["status"] == "bad"]
            verdict.bad("unsound", f"{run.name}: doctor exits with {done.returncode}: {bad or done.stderr[-300:]}")

    def _executions(self, run: Run) -> None:
        """No work begins once its result is published, and none is successful twice."""
        succeeded = Counter[str]()
        for folder in run.attempts():
            begun = folder / "trained.json"
            if not begun.exists():
                continue
            self.verdict.executions += 1
            digest = json.loads(begun.read_text())["digest"]
            manifest = run.store / "objects" / digest / "manifest.json"
            if manifest.exists() and begun.stat().st_mtime_ns > manifest.stat().st_mtime_ns:
                self.verdict.bad("executed_twice", f"{run.name}: {digest[:12]} was published before {folder} began")
            with contextlib.suppress(OSError):
                outcome = json.loads((folder / "outcome.json").read_text())
                succeeded[digest] += outcome["status"] == "ok" and not outcome["cached"]
        for digest, count in succeeded.items():
            if count > 1:
                self.verdict.bad("executed_twice", f"{run.name}: {digest[:12]} succeeded {count} times")
        if self.kind != "cheap" or not self.marks.exists():
            return
        ends = Counter[str]()
        for word, digest, _, there in (line.split() for line in self.marks.read_text().splitlines()):
            ends[digest] += word == "end"
            if there == "1":
                self.verdict.bad("executed_twice", f"{run.name}: {digest[:12]} says {word} and is published already")
        self.verdict.done_again += sum(count - 1 for count in ends.values() if count)
        self.marks.unlink()
