"""The client without a screen: JSON lines of events on stdout, or plain progress on stderr."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from pathlib import Path
from typing import Any, NoReturn

from lamdatui.base.errors import EXIT_DONE, EXIT_FAILED, EXIT_INTERRUPTED, EXIT_PLANNER, EXIT_REFUSED, LamdatuiError
from lamdatui.base.jsonio import Damaged
from lamdatui.base.network import sentence
from lamdatui.base.output import complain, say_json
from lamdatui.domain import baselines, replicates
from lamdatui.domain.checked import hold
from lamdatui.domain.events import event_from_json
from lamdatui.domain.scores import remarks
from lamdatui.domain.state import RunState
from lamdatui.domain.trials import Trial
from lamdatui.domain.verdicts import gain_text, losses, winner_gain
from lamdatui.wire.client import Client
from lamdatui.wire.lastwords import cause
from lamdatui.wire.rundir import is_alive, is_stopped, stopped_error
from lamdatui.wire.validation import check_event

STOPS = (signal.SIGINT, signal.SIGTERM)
STOP_SECONDS = 2.0
"""How long the engine may take to answer that it stops,"""
END_SECONDS = 5.0
"""and then to close the trial whose step was ended."""
LOOK_SECONDS = 5.0
"""How often it is looked whether a signal has stopped the engine: then no frame comes, and nothing else says so."""
_CODES = {"done": EXIT_DONE, "stopped": EXIT_DONE, "refused": EXIT_REFUSED, "planner": EXIT_PLANNER, "failed": EXIT_FAILED}


def interrupted_once() -> None:
    """From now on the first of `STOPS` raises KeyboardInterrupt, and no other one reaches this process: it is about to end."""

    def leave(*_: object) -> NoReturn:
        signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)
        raise KeyboardInterrupt

    for number in STOPS:
        signal.signal(number, leave)


class Headless:
    """Follows a run to its end. The first Ctrl-C stops the step cleanly, a second one leaves at once."""

    def __init__(self, run_dir: Path, as_json: bool, after: int = 0) -> None:
        """`after`: the last event that is known already, of which nothing is told."""
        self.run_dir = run_dir
        self.as_json = as_json
        self._after = after
        self.state = RunState()
        self.interrupts = 0
        self._began = time.monotonic()
        self._told = ""
        self._live = False
        self._engine = 0
        self._is_stopping = False
        self._ended = asyncio.Event()

    async def follow(self) -> int:
        """Exit code of the run. After an interruption this process hears of no other one: it is about to end."""
        client = await Client.connect(self.run_dir)
        loop = asyncio.get_running_loop()
        orders: list[asyncio.Task[None]] = []

        def interrupt() -> None:
            self.interrupts += 1
            if self.interrupts == 1:
                self._say("stopping; once more to leave at once")
                orders.append(asyncio.create_task(self._stop(client)))
            elif self.interrupts == 2:
                self._say("leaving")
                orders.append(asyncio.create_task(self._leave(client, orders[0])))

        for number in STOPS:
            loop.add_signal_handler(number, interrupt)
        attach = asyncio.create_task(client.command("attach", role="headless"))
        watch = asyncio.create_task(self._watch())
        code: int | None = None
        try:
            async for frame in client.frames():
                code = self._take(frame)
                if code is not None:
                    break
        finally:
            attach.cancel()
            watch.cancel()
            if self.interrupts:
                # What still comes in a storm of them would end up in the middle of Python's own end.
                signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)
            self._ended.set()
            await asyncio.gather(attach, watch, *orders, return_exceptions=True)
            await client.close()
        if self.interrupts:
            return EXIT_INTERRUPTED
        if code is None:
            raise cause(self.run_dir)
        return code

    async def _watch(self) -> None:
        """Report, once each time, that a signal has stopped the engine."""
        reported = False
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            stopped = is_stopped(self._engine)
            if stopped and not reported:
                complain(stopped_error(self.run_dir, self._engine))
            reported = stopped

    async def _stop(self, client: Client) -> None:
        """The first Ctrl-C: the step stops cleanly, and with it the run."""
        try:
            async with asyncio.timeout(STOP_SECONDS):
                await client.command("stop", when="now")
            self._is_stopping = True
        except LamdatuiError as error:
            self._say(f"it can't be stopped: {error.what}")
        except (ConnectionError, TimeoutError):
            pass  # the engine is leaving, or busy: it has the order

    async def _leave(self, client: Client, stop: asyncio.Task[None]) -> None:
        """The second one: nothing is waited for but what is needed for the run to know that it was stopped."""
        await asyncio.wait({stop}, timeout=STOP_SECONDS)
        if self._is_stopping:
            # The engine sees the step end, and closes its trial as stopped.
            self._kill_step()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._ended.wait(), END_SECONDS)
        for number in (signal.SIGTERM, signal.SIGKILL):
            if self._engine and is_alive(self.run_dir):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(self._engine, number)
            for _ in range(100):
                if not is_alive(self.run_dir):
                    break
                await asyncio.sleep(0.05)
        # An engine that did not answer may have left its step behind.
        self._kill_step()
        await client.close()

    def _kill_step(self) -> None:
        from lamdatui.step.files import attempt_directory, read_claim

        for record in self.state.steps.values():
            if record.status not in ("intended", "running"):
                continue
            found = None
            with contextlib.suppress(Damaged):
                found = read_claim(attempt_directory(self.run_dir, record.key))
            process = found[1].process() if found and found[0] == "step" else None
            if process is not None:
                process.kill()

    def _take(self, frame: dict[str, Any]) -> int | None:
        """One frame; the run's exit code once it is over. Raises LamdatuiError for a frame that can't be read: the engine is of another version."""
        try:
            return self._taken(frame)
        except (KeyError, TypeError, ValueError, AttributeError, IndexError, ArithmeticError) as error:
            raise LamdatuiError(
                f"a frame of the engine ({frame['type'][:40]}) can't be read: {error}",
                where=str(self.run_dir),
                fix=f"the run goes on: lamdatui show {self.run_dir.name}; is the engine of another version?",
                exit_code=EXIT_FAILED,
            ) from error

    def _taken(self, frame: dict[str, Any]) -> int | None:
        match frame["type"]:
            case "hello":
                hold(frame.get("pid"), int, "pid")
                self._engine = frame["pid"]
            case "event":
                check_event(frame["event"])
                return self._event(frame["event"])
            case "live":
                self._live = True
                return _CODES.get(self.state.status) if self.state.status != "running" else None
            case "metric" if not self.as_json:
                hold(frame["metric"], dict[str, Any], "metric")
                self._metric(frame["metric"])
        return None

    def _event(self, raw: dict[str, Any]) -> int | None:
        event = event_from_json(raw)
        self.state.apply(event)
        if self.as_json:
            say_json(raw, indent=None, flush=True)
        elif event.seq > self._after:
            self._tell(event.kind, event.data)
        ended = event.kind == "run.ended" and self._live
        return _CODES[event.data["status"]] if ended else None

    def _say(self, text: str) -> None:
        if not self.as_json or not self._live:
            complain(f"{time.monotonic() - self._began:7.1f} s  {text}")

    def _tell(self, kind: str, data: dict[str, Any]) -> None:
        match kind:
            case "run.created":
                self._say(f"run {data['name']}: {data['max_trials']} trials, mode {data['mode']}, policy {data['policy']}")
            case "engine.started":
                steps = f"; {fenced}" if (fenced := sentence(data.get("network", ""))) else ""
                self._say(f"engine {data['pid']} on {data['device']['device']} ({data['device']['dtype']}){steps}")
            case "phase.changed" if data["phase"] not in ("waiting", "remembering"):
                self._say(f"{data['phase']} {data['detail']}")
            case "problem.noted":
                self._say(f"problem: {data['where']}: {data['message']}")
            case "trial.proposed":
                proposal = data["proposal"]
                self._say(
                    f"trial {data['number']}: {_describe(proposal['action'])} — {proposal['proposed_by']}: {proposal['reason']}"
                )
            case "trial.decided" if data["verdict"] not in ("approve", "edit"):
                self._say(f"trial {data['number']}: {data['verdict']} by {data['by']}")
            case "evaluation.recorded":
                score = data["score"]
                low, high = score["interval"]
                self._say(
                    f"{data['model']} {data['task']} ({data['split']}): {score['mean']:.3f} [{low:.3f}, {high:.3f}] n={score['n']}"
                    + (f"; {told}" if (told := remarks(score["n"], score)) else "")
                )
            case "trial.closed":
                self._say(_closing(self.state.trials[data["number"]]))
            case "run.ended":
                self._say(f"run ended: {data['status']} ({data['reason']}); winner {data['winner'] or 'none'}")
                if (found := winner_gain(self.state)) and data["winner"]:
                    self._say(f"{data['winner']}: {gain_text(found[1])} over the base on the {found[0]} rows")
                    for loss in losses(self.state):
                        self._say(f"{data['winner']} is {loss}")
                if words := baselines.standing(self.state):
                    self._say(words)
            case _:
                self._compares(kind, data)

    def _compares(self, kind: str, data: dict[str, Any]) -> None:
        """What comes between the search and the end of the run."""
        match kind:
            case "search.ended":
                self._say(f"the search is over ({data['reason']}): winner {data['winner']}; it is compared with baselines")
            case "baseline.recorded":
                self._say(
                    f"{data['name']}: {gain_text(data['baseline']['gain']['objective'])} over the base; {baselines.told(data['baseline'])}"
                )
            case "baseline.missing":
                self._say(f"no {data['name']}: {data['reason']}")
            case "replicates.recorded":
                spread = replicates.spread_of(data["model"], data["replicates"])
                self._say(f"{spread.name}: {gain_text(spread.gain)} over the base; {replicates.told(spread)}")
            case "replicates.missing":
                self._say(f"no more seeds of {data['model']}: {data['reason']}")

    def _metric(self, metric: dict[str, Any]) -> None:
        if "task" in metric and "total" in metric:
            what = {"evaluate": "evaluating", "judge": "judging", "try the judge": "trying the judge of"}.get(
                metric["phase"], ""
            )
            text = f"  {what} {metric['task']}: {metric['done']}/{metric['total']}"
        else:
            loss = metric.get("loss")
            text = f"  step {metric.get('step')}/{metric.get('max_steps')}" + (f", loss {loss:.3f}" if loss is not None else "")
        if text != self._told:
            self._told = text
            self._say(text)


def _describe(action: dict[str, Any]) -> str:
    inputs = ", ".join("+".join(ids) for ids in action["inputs"].values())
    return f"{action['type']}({inputs})"


def _closing(trial: Trial) -> str:
    if trial.status == "done" and trial.gain:
        told = f"objective {trial.objective:.3f}, {gain_text(trial.gain)} over the base"
    else:
        told = (trial.error or {}).get("message", "")
    cached = ", from the store" if trial.cached else ""
    return f"trial {trial.number}: {trial.status}{cached} in {trial.seconds.get('total', 0):.1f} s {told}".rstrip()
