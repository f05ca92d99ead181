"""The client without a screen: JSON lines of events on stdout, or plain progress on stderr."""

from __future__ import annotations

import asyncio
import signal
import time
from pathlib import Path
from typing import Any

from lamdatui.client import Client
from lamdatui.errors import EXIT_DONE, EXIT_FAILED, EXIT_INTERRUPTED, EXIT_PLANNER, EXIT_REFUSED
from lamdatui.events import event_from_json
from lamdatui.lastwords import cause
from lamdatui.said import complain, say_json
from lamdatui.state import RunState, Trial

_CODES = {"done": EXIT_DONE, "stopped": EXIT_DONE, "refused": EXIT_REFUSED, "planner": EXIT_PLANNER, "failed": EXIT_FAILED}


class Headless:
    """Follows a run to its end. The first Ctrl-C stops the step cleanly, a second one leaves at once."""

    def __init__(self, run_dir: Path, as_json: bool) -> None:
        self.run_dir = run_dir
        self.as_json = as_json
        self.state = RunState()
        self.interrupts = 0
        self._began = time.monotonic()
        self._told = ""
        self._live = False

    async def follow(self) -> int:
        """Exit code of the run."""
        client = await Client.connect(self.run_dir)
        loop = asyncio.get_running_loop()
        tasks: set[asyncio.Task[Any]] = set()

        def interrupt() -> None:
            self.interrupts += 1
            self._say("stopping; once more to leave at once" if self.interrupts == 1 else "leaving")
            when = client.command("stop", when="now") if self.interrupts == 1 else self._kill(client)
            tasks.add(asyncio.create_task(when))

        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, interrupt)
        attach = asyncio.create_task(client.command("attach", role="headless"))
        code: int | None = None
        try:
            async for frame in client.frames():
                code = self._take(frame)
                if code is not None or self.interrupts > 1:
                    break
        finally:
            attach.cancel()
            await client.close()
        if self.interrupts:
            return EXIT_INTERRUPTED
        if code is None:
            raise cause(self.run_dir)
        return code

    async def _kill(self, client: Client) -> None:
        """The second Ctrl-C: end the running step and the engine without waiting."""
        import os

        record = next((r for r in self.state.steps.values() if r.status == "running" and r.pid), None)
        from lamdatui.step.files import Identity

        if record is not None and record.pid and record.start_time:
            process = Identity(record.pid, record.start_time, record.boot_id).process()
            if process is not None:
                process.kill()
        if self.state.engine_pid:
            os.kill(self.state.engine_pid, signal.SIGTERM)
        await client.close()

    def _take(self, frame: dict[str, Any]) -> int | None:
        match frame["type"]:
            case "event":
                return self._event(frame["event"])
            case "live":
                self._live = True
                return _CODES.get(self.state.status) if self.state.status != "running" else None
            case "metric" if not self.as_json:
                self._metric(frame["metric"])
        return None

    def _event(self, raw: dict[str, Any]) -> int | None:
        event = event_from_json(raw)
        self.state.apply(event)
        if self.as_json:
            say_json(raw, indent=None, flush=True)
        else:
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
                self._say(f"engine {data['pid']} on {data['device']['device']} ({data['device']['dtype']})")
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
                )
            case "trial.closed":
                self._say(_closing(self.state.trials[data["number"]]))
            case "run.ended":
                self._say(f"run ended: {data['status']} ({data['reason']}); winner {data['winner'] or 'none'}")

    def _metric(self, metric: dict[str, Any]) -> None:
        if metric.get("phase") == "evaluate":
            text = f"  evaluating {metric['task']}: {metric['done']}/{metric['total']}"
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
        low, high = trial.gain["interval"]
        told = f"objective {trial.objective:.3f}, {trial.gain['mean']:+.3f} [{low:+.3f}, {high:+.3f}] over the base"
    else:
        told = (trial.error or {}).get("message", "")
    cached = ", from the store" if trial.cached else ""
    return f"trial {trial.number}: {trial.status}{cached} in {trial.seconds.get('total', 0):.1f} s {told}".rstrip()
