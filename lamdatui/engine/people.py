"""What people ask of a run: each command of the socket becomes an event with its author, an answer, or a refusal in plain words."""

from __future__ import annotations

import asyncio
from typing import Any

from lamdatui.base.errors import LamdatuiError
from lamdatui.domain.choice import Candidate
from lamdatui.domain.decisions import MODES
from lamdatui.domain.declarations import declarations
from lamdatui.domain.state import RunState
from lamdatui.engine.approval import PERSON
from lamdatui.engine.forecasts import numbers
from lamdatui.engine.judging import Judged, done_by
from lamdatui.engine.loop import Loop
from lamdatui.engine.orders import NOTE_CHARS, fresh, judge_order, read_order
from lamdatui.engine.proposals import cost_json
from lamdatui.planner.answers import plain as one_line
from lamdatui.planner.grammar import MEMORY_CHARS

HINT_CHARS = 300
"""Longest hint, in characters."""
MOST_MORE = 10_000
"""The most trials that can be asked for at once."""

Json = dict[str, Any]


def more_trials(args: Json) -> int:
    """The number of trials that `more` asks for. Raises LamdatuiError when it is not a sensible one."""
    count = args["trials"]
    if isinstance(count, bool) or not isinstance(count, int) or not 1 <= count <= MOST_MORE:
        raise LamdatuiError(f"more takes 1 to {MOST_MORE} trials, not {count!r}")
    return count


class People:
    """Does what people ask of a run that has its loop."""

    def __init__(self, loop: Loop, closing: asyncio.Event) -> None:
        self._loop = loop
        self._closing = closing
        self._by = PERSON

    @property
    def _state(self) -> RunState:
        return self._loop.state

    def command(self, command: str, args: Json, by: str = PERSON) -> Any:
        """Do what `by` asks; the answer, or a coroutine that gives it. Raises LamdatuiError when it can't be done."""
        self._by = by
        loop = self._loop
        match command:
            case "decide":
                return loop.decide(args, by)
            case "actions":
                return {"types": declarations(loop.workspace.types)}
            case "try_action":
                return self._try(args)
            case "propose":
                return self._propose(args)
            case "withdraw":
                self._withdraw(str(args["id"]))
            case "more":
                self._more(more_trials(args))
            case "pause" | "suspend":
                self._pause(suspend=command == "suspend")
            case "resume":
                loop.record(("run.unpaused", {"by": self._by}))
            case "mode":
                self._mode(str(args["mode"]))
            case "stop":
                self._stop(str(args["when"]))
            case "cancel":
                self._cancel(args.get("number"))
            case "policy":
                name = str(args["name"])
                switch = loop.selection.prepared(name)
                loop.record(("policy.changed", {"name": name, "by": self._by}))
                switch()
            case "hint":
                loop.record(("hint.added", self._hint(str(args["text"]))))
            case "memory":
                loop.record(("memory.updated", {"text": one_line(str(args["text"]), MEMORY_CHARS), "by": self._by}))
            case "revoke":
                self._revoke(str(args["id"]))
        loop.woken.set()
        return None

    # --- actions of their own ------------------------------------------------------------------------------------

    async def _try(self, args: Json) -> Json:
        """What an action would be, cost and bring; nothing is recorded."""
        loop, state = self._loop, self._state
        judged = judge_order(loop.workspace.types, read_order(args), state, loop.machine)
        told: Json = {"problems": list(judged.problems), "estimate": self._cost(judged), "expected": None, "std": None}
        told |= {"digest": "", "seed": None, "trial": None, "cached": False}
        action = judged.action
        if action is None or judged.estimate is None:
            return told
        trial = state.trials.get(done_by(state).get(action.digest, 0))
        told |= {"digest": action.digest, "seed": action.seed}
        # What only waits for a decision was not done.
        told["trial"] = trial.number if trial and trial.status != "awaiting" else None
        told["cached"] = loop.is_done(action)
        if not judged.problems:
            [forecast] = await loop.forecasts.of(loop.view(), [Candidate(action, judged.estimate)])
            told |= numbers(forecast)
        return told

    def _cost(self, judged: Judged) -> Json:
        if judged.action is None:
            return {"seconds": None, "memory_bytes": None, "disk_bytes": None, "measured": 0, "plan": ""}
        bound = self._loop.workspace.types[judged.action.type]
        return cost_json(judged.action, bound, self._state, self._loop.machine)

    def _propose(self, args: Json) -> Json:
        loop, state = self._loop, self._state
        action = fresh(loop.workspace.types, read_order(args), state, loop.machine)
        left = state.max_trials - state.counted - len(state.queue)
        note = one_line(str(args.get("note") or ""), NOTE_CHARS)
        name = f"q{state.last_seq + 1}"
        loop.record(("action.queued", {"id": name, "action": action.to_json(), "note": note, "by": self._by}))
        return {"id": name, "action": action.to_json(), "trials_left": max(0, left)}

    def _withdraw(self, name: str) -> None:
        if name not in self._state.queue:
            raise LamdatuiError(f"no action {name!r} is queued; a trial may have taken it")
        self._loop.record(("action.withdrawn", {"id": name, "by": self._by}))

    # --- the run -------------------------------------------------------------------------------------------------

    def _more(self, trials: int) -> None:
        state = self._state
        if state.status != "running":
            self._loop.resume(trials)
        elif state.stopping:
            raise LamdatuiError("the run is stopping; ask for more trials when it has ended")
        else:
            self._loop.record(("budget.changed", {"max_trials": state.max_trials + trials, "by": self._by}))

    def _mode(self, mode: str) -> None:
        if mode not in MODES:
            raise LamdatuiError(f"a mode is one of {', '.join(MODES)}, not {mode!r}")
        self._loop.record(("mode.changed", {"mode": mode, "by": self._by}))
        if mode == "auto":
            self._loop.approvals.release("mode auto")

    def _pause(self, *, suspend: bool) -> None:
        """Raises LamdatuiError where there is no step to suspend."""
        if suspend and not any(record.status in ("intended", "running") for record in self._state.steps.values()):
            raise LamdatuiError("no step is at work", fix="pause the run: the next step waits then, too")
        self._loop.record(("run.paused", {"by": self._by, "reason": "its step is suspended" if suspend else ""}))
        if suspend:
            self._loop.runner.suspend()

    def _stop(self, when: str) -> None:
        if when not in ("after-step", "now"):
            raise LamdatuiError(f"stop takes after-step or now, not {when!r}")
        if self._state.status != "running":
            self._closing.set()
            return
        self._loop.record(("run.stopping", {"when": when, "by": self._by}))
        self._loop.approvals.release("stop")
        if when == "now":
            self._loop.runner.stop()

    def _cancel(self, number: object) -> None:
        """End the step of a trial, which fails then; the search goes on. Raises LamdatuiError when it is not at work."""
        at_work = {
            record.trial: record.key
            for record in self._state.steps.values()
            if record.status in ("intended", "running") and record.purpose == "trial"
        }
        waiting = self._state.open_trial
        if self._loop.attempts.is_suspended and waiting is not None and waiting.number == number:
            self._loop.attempts.cancel_suspended(self._by)
            return
        if not isinstance(number, int) or number not in at_work:
            told = " and ".join(f"trial {trial}" for trial in at_work) or "no trial"
            raise LamdatuiError(f"trial {number} is not at work: {told} is", fix="lamdatui show RUN lists them")
        self._loop.runner.cancel(at_work[number], self._by)

    # --- what the planner is told --------------------------------------------------------------------------------

    def _hint(self, text: str) -> Json:
        """The facts of a hint: one line, with its author and the trial during which it came."""
        said = one_line(text, HINT_CHARS)
        if not said:
            raise LamdatuiError("a hint can't be empty")
        trial = self._state.open_trial
        return {"id": f"h{self._state.last_seq + 1}", "text": said, "by": self._by, "trial": trial.number if trial else None}

    def _revoke(self, name: str) -> None:
        state = self._state
        for kind, known in (("constraint", state.constraints), ("rule", state.rules), ("hint", state.hints)):
            if name in known:
                self._loop.record((f"{kind}.revoked", {"id": name, "by": self._by}))
                return
        raise LamdatuiError(f"no rule, no constraint and no hint {name!r}")
