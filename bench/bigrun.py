"""A made-up run of any length, written through the journal: what `bench/console.py` opens.

The events of a trial are those of a real lab run, with as much in them: a proposal with its declaration and what was weighed,
candidates, shadows, a step, the scores of three tasks; about 17 events and 9 KB a trial. Trees get deep and wide as in a search
that goes on from good models.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lamdatui.base.clock import SystemClock
from lamdatui.base.jsonio import digest
from lamdatui.inputs.profile import Profile, find_profile, load_profile
from lamdatui.inputs.workspace import bind_types
from lamdatui.store.journal import Journal, read_run

Json = dict[str, Any]
Fact = tuple[str, Json]

TRIALS_PER_COMMIT = 250
DATASETS = ("call_replay", "reverse", "copy", "call", "double")


class Clock(SystemClock):
    """Time that goes on by itself, so that the same run can be made again."""

    def __init__(self) -> None:
        self._now = 0.0

    def wall(self) -> float:
        """Seconds since the epoch."""
        return 1_760_000_000.0 + self.mono()

    def mono(self) -> float:
        """Seconds; each look takes a quarter of one."""
        self._now += 0.125
        return self._now


class BigRun:
    """Makes the facts of one trial after another."""

    def __init__(self, seed: int = 1, models: list[str] | None = None) -> None:
        self.profile: Profile = load_profile(find_profile("lab"))
        self._types = bind_types(self.profile)[0]
        self._rng = random.Random(seed)
        self._models = models or ["llama", "phi"]

    def start(self, trials: int) -> list[Fact]:
        """The run, its engine, its pool and what the bases score."""
        created = {
            "name": f"big-{trials}",
            "profile": self.profile.model_dump(mode="json"),
            "profile_digest": self.profile.search_digest(),
            "seed": 1,
            "mode": "auto",
            "policy": "hybrid",
            "max_trials": trials + 1000,
            "wall_seconds": None,
        }
        device = {"device": "cpu", "dtype": "float32"}
        facts: list[Fact] = [("run.created", created)]
        facts.append(("engine.started", {"pid": 1, "epoch": 1, "boot_id": "b", "version": "0", "device": device}))
        for name in DATASETS:
            data = {"id": name, "digest": digest(name), "format": "sft", "rows": 800, "path": f"/data/{name}", "trial": None}
            facts.append(("object.added", {"object": {**data, "chars": 20, "kind": "dataset"}}))
        for name in self._models:
            facts += [("object.added", {"object": self._model(name, None)}), *self._scores(name)[1]]
        return facts

    def trial(self, number: int) -> list[Fact]:
        """One whole trial."""
        rng = self._rng
        action = self._action()
        key = f"{number}/1"
        details = {"chooser": "planner", "planner": "SmolLM2-135M-Instruct", "style": "yes-no", "share": 0.3}
        details |= {"expected": round(rng.uniform(1, 2.5), 4), "std": 0.08, "rival": self._weighed(None)}
        proposal = {
            "id": f"p{number}",
            "action": action,
            "reason": f"m{max(1, number - 7)} is the best so far ± 0.08 and the smaller rate was not tried on it.",
            "proposed_by": "hybrid",
            "alternatives": [self._weighed(round(rng.random(), 3)) for _ in range(5)],
            "estimate": {"seconds": 3.2, "memory_bytes": 748146744, "disk_bytes": 904960, "measured": 70},
            "declaration": self._declaration(action["type"]),
            "opening": False,
            "fallback": None,
            "seconds": 0.12,
            "details": details,
        }
        what = {"number": number, "call": "action", "answer": "yes-no: A 0.61 B 0.28 C 0.11", "tokens": 840, "seconds": 2.1}
        facts: list[Fact] = [
            ("trial.opened", {"number": number}),
            ("phase.changed", {"phase": "planning", "detail": f"trial {number}"}),
            ("candidates.listed", {"number": number, "types": self._candidates()}),
            ("planner.answered", what),
            ("trial.proposed", {"number": number, "proposal": proposal}),
            ("trial.decided", {"number": number, "verdict": "approve", "by": "mode auto", "reason": "", "action": action}),
            ("phase.changed", {"phase": "running", "detail": f"trial {number}: {action['type']}"}),
            ("step.intended", {"step": key, "purpose": "trial", "trial": number, "digest": action["digest"]}),
            ("step.started", {"step": key, "pid": 4000, "start_time": 1e5 + number, "boot_id": "0d2b" * 9}),
            (
                "shadows.recorded",
                {"number": number, "shadows": [self._shadow(name) for name in ("tpe", "evolution", "random")]},
            ),
        ]
        return facts + self._outcome(number, key)

    def _outcome(self, number: int, key: str) -> list[Fact]:
        failed = self._rng.random() < 0.1
        seconds = {"execute": 2.6, "evaluate": 0.5}
        error = {"class": "oom-train", "message": "out of memory after 12 steps: 2.1 GB were asked"} if failed else None
        status = "failed" if failed else "ok"
        facts: list[Fact] = [
            ("step.ended", {"step": key, "status": status, "cached": False, "seconds": seconds, "error": error})
        ]
        closing: Json = {
            "number": number,
            "status": "failed" if failed else "done",
            "model": None,
            "dataset": None,
            "scores": {},
        }
        closing |= {"objective": None, "gain": None, "cached": False, "error": error}
        if not failed:
            name = f"m{number}"
            scores, recorded = self._scores(name)
            facts += [("object.added", {"object": self._model(name, number)}), *recorded]
            objective = round(sum(splits["search"]["mean"] for splits in scores.values()), 3)
            gain = {"mean": round(objective - 1.5, 3), "interval": [round(objective - 1.7, 3), round(objective - 1.3, 3)]}
            closing |= {"model": name, "scores": scores, "objective": objective, "gain": gain}
            self._models.append(name)
        facts.append(("phase.changed", {"phase": "remembering", "detail": f"trial {number}"}))
        facts.append(
            ("memory.updated", {"text": f"Helped: sft on call_replay +0.06. Promising: go on from m{number}.", "by": "facts"})
        )
        spent = {"total": 3.6, "plan": 0.12, "wait": 0.008, "execute": 2.6, "evaluate": 0.5, "overhead": 0.37}
        return [*facts, ("trial.closed", {**closing, "seconds": spent})]

    def _action(self) -> Json:
        rng = self._rng
        kind = rng.choice(("sft", "sft", "dpo", "merge_linear", "merge_ties"))
        recent = self._models[-40:]
        if kind.startswith("merge"):
            inputs = {"models": [rng.choice(recent), rng.choice(self._models)]}
        else:
            inputs = {"model": [rng.choice(recent)], "dataset": [rng.choice(DATASETS)]}
        bound = self._types[kind]
        params = {param.name: rng.choice(param.choices) if param.choices else param.default for param in bound.params}
        body = {"type": kind, "inputs": inputs, "params": params, "seed": rng.randrange(1 << 30)}
        return {**body, "digest": digest(body)}

    def _declaration(self, kind: str) -> Json:
        bound = self._types[kind]
        params = [asdict(param) for param in bound.params]
        for param in params:
            param["choices"], param["allowed"] = list(param["choices"]), list(param["allowed"])
        return {"summary": bound.type.summary, "output": bound.type.output, "params": params}

    def _weighed(self, probability: float | None) -> Json:
        action = self._action()
        text = f"{action['type']}({', '.join('+'.join(ids) for ids in action['inputs'].values())}; learning_rate=0.0003)"
        known = {"action": text, "digest": action["digest"], "expected": round(self._rng.uniform(1, 2.5), 4), "std": 0.08}
        return known if probability is None else {**known, "probability": probability}

    def _shadow(self, policy: str) -> Json:
        action = self._action()
        params = ", ".join(f"{name}={value}" for name, value in action["params"].items())
        text = f"{action['type']}({params})"
        return {"policy": policy, "action": text, "digest": action["digest"], "expected": None, "seconds": 0.4}

    def _candidates(self) -> Json:
        refused = {"a replay dataset needs a replay_fraction above 0, else none of its rows is used": 68, "tried already": 9}
        return {name: {"combinations": 11340, "offered": 64, "refused": refused} for name in self._types}

    def _scores(self, model: str) -> tuple[Json, list[Fact]]:
        scores, facts = {}, list[Fact]()
        for task in self.profile.tasks:
            mean = round(self._rng.random(), 2)
            score = {"mean": mean, "n": 100, "interval": [round(mean - 0.08, 2), round(mean + 0.07, 2)]}
            scores[task] = {"search": score}
            key = digest(f"{model} {task}")
            facts.append(("evaluation.recorded", {"model": model, "task": task, "split": "search", "key": key, "score": score}))
        return scores, facts

    def _model(self, name: str, trial: int | None) -> Json:
        return {
            "id": name,
            "digest": digest(name),
            "architecture": "LlamaForCausalLM",
            "layout": "5f" * 32,
            "weights": "/bases/llama",
            "adapters": [f"store:{digest(name)}"] if trial else [],
            "parameters": 366_000,
            "trial": trial,
            "tokenizer": "7c" * 32,
            "kind": "model",
        }


def make(run_dir: Path, trials: int) -> None:
    """Write a run of `trials` trials, or as many as are missing."""
    run_dir.mkdir(parents=True, exist_ok=True)
    path = run_dir / "run.db"
    written = read_run(path)[1] if path.exists() else 0
    if written == trials:
        return
    big = BigRun()
    batches = [big.start(trials), *_batches(big, trials)]
    journal = Journal(path, Clock())
    first = 1 + written // TRIALS_PER_COMMIT if journal.state.last_seq else 0
    for batch in batches[first:]:
        journal.append(*batch)
    journal.close()


def _batches(big: BigRun, trials: int) -> Iterator[list[Fact]]:
    for begin in range(1, trials + 1, TRIALS_PER_COMMIT):
        numbers = range(begin, min(begin + TRIALS_PER_COMMIT, trials + 1))
        yield [fact for number in numbers for fact in big.trial(number)]
