"""A recorded run for the console tests: bases, trials of every status, a running step, a waiting proposal."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from lamdatui.base.jsonio import digest
from lamdatui.ui.view.format import Line
from tests.ui.fake_engine import FakeEngine

Json = dict[str, Any]
GB = 1_000_000_000

SFT_PARAMS: list[Json] = [
    {"name": "learning_rate", "type": "float", "default": 0.001, "choices": [0.0003, 0.001, 0.003], "low": 1e-6,
     "high": 0.1, "unit": "", "allowed": [], "help": "peak learning rate"},
    {"name": "epochs", "type": "int", "default": 1, "choices": [1, 2, 3], "low": 1, "high": 20, "unit": "",
     "allowed": [], "help": "passes over the data"},
    {"name": "rank", "type": "int", "default": 8, "choices": [4, 8, 16], "low": 1, "high": 256, "unit": "",
     "allowed": [], "help": "rank of the LoRA adapter"},
    {"name": "schedule", "type": "str", "default": "cosine", "choices": ["cosine", "linear"], "low": None,
     "high": None, "unit": "", "allowed": [], "help": "learning rate schedule"},
    {"name": "packing", "type": "bool", "default": False, "choices": [False, True], "low": None, "high": None,
     "unit": "", "allowed": [], "help": "pack short rows into one sequence"},
]  # fmt: skip
MERGE_PARAMS: list[Json] = [
    {"name": "density", "type": "float", "default": 0.5, "choices": [0.3, 0.5, 0.8], "low": 0.01, "high": 1.0,
     "unit": "", "allowed": [], "help": "share of the differences that is kept"},
    {"name": "weight", "type": "float", "default": 1.0, "choices": [0.5, 1.0], "low": 0.0, "high": 2.0, "unit": "",
     "allowed": [], "help": "weight of each model"},
]  # fmt: skip


def text_of(lines: Iterable[Line]) -> str:
    """Lines as plain text."""
    return "\n".join("".join(text for text, _ in line).rstrip() for line in lines)


def action(kind: str, inputs: dict[str, list[str]], params: Json, seed: int = 7) -> Json:
    """An action with a digest of its own."""
    body = {"type": kind, "inputs": inputs, "params": params, "seed": seed}
    return {**body, "digest": digest(body)}


def sft(model: str = "base", dataset: str = "tool-calls", **params: Any) -> Json:
    """An `sft` action."""
    values = {item["name"]: item["default"] for item in SFT_PARAMS} | params
    return action("sft", {"model": [model], "dataset": [dataset]}, values)


def proposal(number: int, act: Json, reason: str, by: str = "lamdagent", **extra: Any) -> Json:
    """A proposal as the engine writes it."""
    params = MERGE_PARAMS if act["type"].startswith("merge") else SFT_PARAMS
    summary = "Merge models" if act["type"].startswith("merge") else "Supervised fine-tuning with a LoRA adapter (TRL)"
    return {
        "id": f"p{number}",
        "action": act,
        "reason": reason,
        "proposed_by": by,
        "alternatives": [
            {"action": "dpo(m1, preferences)", "probability": 0.31},
            {"action": "merge_ties(m1+m3)", "probability": 0.12},
        ],
        "estimate": {"seconds": 38.0, "memory_bytes": 2 * GB, "disk_bytes": None, "measured": 0},
        "declaration": {"summary": summary, "output": "model", "params": params},
        "opening": False,
        "fallback": None,
        "seconds": 2.4,
        "details": {},
        **extra,
    }


def slot(name: str, kind: str, least: int = 1, most: int = 1, formats: tuple[str, ...] = ()) -> Json:
    """An input slot as the engine tells it."""
    return {"name": name, "kind": kind, "help": "", "formats": list(formats), "least": least, "most": most, "base_only": False}


ACTION_TYPES: dict[str, Json] = {
    "sft": {"summary": "Supervised fine-tuning with a LoRA adapter (TRL)", "family": "supervised", "output": "model",
            "slots": [slot("model", "model"), slot("dataset", "dataset", formats=("sft",))], "params": SFT_PARAMS},
    "merge_ties": {"summary": "Merge models", "family": "merge", "output": "model",
                   "slots": [slot("models", "models", 2, 3)], "params": MERGE_PARAMS},
}  # fmt: skip
"""What the command `actions` tells of a run's types."""


def flips(task: str, split: str) -> Json:
    """How a model's rows differ from another's, as the engine tells it."""
    gain = {"mean": 0.23, "interval": [0.1, 0.36]}
    return {"task": task, "split": split, "n": 39, "mean": 0.44, "won": 12, "lost": 3, "alike": 24, "p": 0.0352, "gain": gain}


def answers(args: Json) -> Json:
    """What the engine tells of answers: task by task, row by row, one row."""
    if "task" not in args:
        broken = {"task": "broken", "split": "search", "error": "the store has lost the answers"}
        return {"tasks": [flips("tool_use", "search"), broken]}
    if "row" not in args:
        kinds = [["right", "won"], ["wrong", "lost", "unfinished"], ["right"]]
        points = [(1.0, 0.0), (0.0, 1.0), (1.0, 1.0)]
        return {
            "rows": [
                {"row": n, "id": f"row-{n}", "score": mine, "other": other, "kinds": kinds[n]}
                for n, (mine, other) in enumerate(points)
            ]
        }
    said = [
        {"model": name, "text": f"{name} says row-{args['row']}", "score": 1.0, "ended": None}
        for name in ("base", args["model"])
    ]
    return {"asked": "user: which?\nsecond line", "wanted": "this", "answers": said}


def answer_orders(engine: FakeEngine, problems: list[str] | None = None) -> None:
    """Have the engine answer actions, try_action (with these problems), propose, withdraw and more; orders become events."""
    estimate = {"seconds": 38.0, "memory_bytes": 2 * GB, "disk_bytes": 30_000_000, "measured": 2}

    def wanted(args: Json) -> Json:
        return action(args["type"], args["inputs"], args.get("params") or {}, args.get("seed") or 7)

    def try_action(args: Json) -> Json:
        told = {"problems": problems or [], "estimate": estimate, "expected": 0.41, "std": 0.03}
        return {**told, "digest": wanted(args)["digest"], "seed": 7, "trial": None, "cached": False}

    def propose(args: Json) -> Json:
        name = f"q{len(engine.sent('propose'))}"
        engine.emit("action.queued", id=name, action=wanted(args), note=args.get("note") or "", by="person")
        return {"id": name, "action": wanted(args), "trials_left": 5}

    def more(args: Json) -> None:
        before = next(e.data["max_trials"] for e in reversed(engine.events) if "max_trials" in e.data)
        engine.emit("budget.changed", max_trials=before + args["trials"], by="person")

    engine.answers |= {
        "answers": answers,
        "actions": lambda _: {"types": ACTION_TYPES},
        "try_action": try_action,
        "propose": propose,
        "withdraw": lambda args: engine.emit("action.withdrawn", id=args["id"], by="person"),
        "more": more,
    }


def score(mean: float, n: int = 48) -> Json:
    """A score with an interval."""
    return {"mean": mean, "n": n, "interval": [round(mean - 0.11, 3), round(mean + 0.11, 3)]}


def scores(tool: float, follow: float) -> Json:
    """Search scores of the two tasks."""
    return {"tool_use": {"search": score(tool)}, "instructions": {"search": score(follow)}}


def add_base(engine: FakeEngine) -> None:
    """The run, its engine and its pool."""
    profile = {"name": "quickstart", "planner": {"kind": "llama.cpp", "model": "SmolLM2-135M-Instruct"}}
    engine.add(
        "run.created", name="lab-01", profile=profile, profile_digest="d" * 64, seed=7, mode="ask", policy="lamdagent",
        max_trials=12, wall_seconds=7200.0,
    )  # fmt: skip
    engine.add("engine.started", pid=4711, epoch=1, boot_id="b", version="0.1.0", device={"device": "cpu", "dtype": "float32"})
    model = {"id": "base", "digest": "a" * 64, "architecture": "LlamaForCausalLM", "layout": "x", "weights": "/w",
             "adapters": [], "parameters": 134_500_000, "trial": None, "kind": "model"}  # fmt: skip
    engine.add("object.added", object=model)
    for name, kind, rows in (("tool-calls", "sft", 800), ("preferences", "preference", 400)):
        data = {"id": name, "digest": name, "format": kind, "rows": rows, "path": "/d", "trial": None, "kind": "dataset"}
        engine.add("object.added", object=data)
    for task, mean in (("tool_use", 0.21), ("instructions", 0.33)):
        engine.add("evaluation.recorded", model="base", task=task, split="search", key=task, score=score(mean))


def add_trial(
    engine: FakeEngine,
    number: int,
    act: Json,
    reason: str,
    status: str,
    result: Json | None = None,
    *,
    by: str = "lamdagent",
    details: Json | None = None,
    **closing: Any,
) -> None:
    """A whole trial, from its opening to its end."""
    engine.add("trial.opened", number=number)
    engine.add("candidates.listed", number=number, types={
        "sft": {"combinations": 9000, "offered": 8}, "dpo": {"combinations": 4, "offered": 4},
        "merge_ties": {"combinations": number, "offered": number},
    })  # fmt: skip
    engine.add("trial.proposed", number=number, proposal=proposal(number, act, reason, by, details=details or {}))
    if status == "vetoed":
        engine.add("trial.decided", number=number, verdict="veto", by="console", reason="too slow for now", action=act)
    else:
        engine.add("trial.decided", number=number, verdict="approve", by="console", reason="", action=act)
        engine.add("step.intended", step=f"{number}/1", purpose="train", trial=number, digest=act["digest"])
        engine.add("step.started", step=f"{number}/1", pid=100 + number, start_time=1.0, boot_id="b")
        engine.add("step.ended", step=f"{number}/1", status="failed" if status == "failed" else "done", cached=False,
                   seconds={"total": 12.0}, error=closing.get("error"))  # fmt: skip
    model = f"m{number}" if status == "done" else None
    if model:
        parent = act["inputs"].get("model", act["inputs"].get("models"))[0]
        data = {"id": model, "digest": model * 8, "architecture": "LlamaForCausalLM", "layout": "x",
                "weights": f"store:{parent}", "adapters": [], "parameters": 134_500_000, "trial": number,
                "kind": "model"}  # fmt: skip
        engine.add("object.added", object=data)
    fields: Json = {"objective": None, "gain": None, "cached": False, "error": None, **closing}
    engine.add("trial.closed", number=number, status=status, model=model, dataset=None, scores=result or {},
               seconds={"total": 31.0, "plan": 2.4, "wait": 9.0, "execute": 12.0, "evaluate": 7.0, "overhead": 0.6},
               **fields)  # fmt: skip


def gain(mean: float) -> Json:
    """A paired gain."""
    return {"mean": mean, "interval": [round(mean - 0.06, 3), round(mean + 0.06, 3)]}


def add_history(engine: FakeEngine) -> None:
    """Six trials: done, failed, vetoed, a merge, a cached one."""
    add_base(engine)
    add_trial(engine, 1, sft(), "Supervised tuning on tool calls should lift the weakest task first.", "done",
              scores(0.35, 0.31), objective=0.33, gain=gain(0.06))  # fmt: skip
    dpo = action("dpo", {"model": ["m1"], "dataset": ["preferences"]}, {"learning_rate": 5e-6, "beta": 0.1})
    add_trial(engine, 2, dpo, "Preference pairs target the format errors that are left.", "done",
              scores(0.42, 0.36), objective=0.39, gain=gain(0.12))  # fmt: skip
    error = {"class": "oom-train", "message": "out of memory after 12 steps: 2.1 GB were asked, 1.9 GB were left"}
    add_trial(engine, 3, sft("m2", rank=16), "A larger rank may hold both skills.", "failed", error=error)
    add_trial(engine, 4, sft("base", epochs=3), "More passes over the same data.", "vetoed")
    engine.add("constraint.added", id="c1", text="no sft on base with epochs 3: too slow for now", match={},
               by="console", trial=4)  # fmt: skip
    add_trial(engine, 5, sft("m1", learning_rate=0.0003), "A smaller step from the best parent.", "done",
              scores(0.37, 0.35), objective=0.36, gain=gain(0.09))  # fmt: skip
    ties = action("merge_ties", {"models": ["m2", "m5"]}, {"density": 0.5, "weight": 1.0})
    add_trial(engine, 6, ties, "Both parents beat the base on different tasks.", "done", scores(0.44, 0.37),
              objective=0.405, gain=gain(0.135), cached=True)  # fmt: skip
    engine.add("memory.updated", text="dpo after sft is the best so far; rank 16 runs out of memory.", by="lamdagent")


def alternative(text: str, act: Json | None, probability: float | None, expected: float) -> Json:
    """One of the options that were weighed; `act` is what it stands for where the test needs that."""
    number = act["digest"] if act else digest(text)
    whole = {name: act[name] for name in ("type", "inputs", "params")} if act else {}
    return {"action": text, "digest": number, "probability": probability, "expected": expected, "std": 0.031, **whole}


def add_choices(engine: FakeEngine, wins: int = 1, losses: int = 2) -> None:
    """The hybrid at work: its surrogate chose once, then its planner, and somebody said something."""
    add_base(engine)
    engine.add("policy.changed", name="hybrid", by="person")
    number = 1
    add_trial(engine, number, sft(), "the best of 40", "done", scores(0.35, 0.31), objective=0.33, gain=gain(0.06),
              by="hybrid", details={"chooser": "surrogate", "expected": 0.34, "std": 0.05})  # fmt: skip
    for place in range(wins + losses):
        number += 1
        act = sft("m1", learning_rate=0.0003 + place / 10000)
        rival = {
            "action": f"dpo(m1, preferences; beta=0.{place})",
            "digest": digest(f"rival {place}"),
            "expected": 0.36,
            "std": 0.04,
        }
        told = {"chooser": "planner", "planner": "SmolLM2-135M-Instruct", "style": "yes-no", "share": 0.3, "expected": 0.35,
                "std": 0.04, "rival": rival}  # fmt: skip
        engine.add("planner.answered", number=number, call="action", answer="yes-no: A 0.61 B 0.28 C 0.11", tokens=840,
                   seconds=2.1)  # fmt: skip
        objective = 0.36 + (0.02 + place / 1000) * (1 if place < wins else -1)
        add_trial(engine, number, act, "m1 is the best so far and the smaller rate was not tried.", "done", scores(0.36, 0.32),
                  objective=objective, gain=gain(objective - 0.27), by="hybrid", details=told)  # fmt: skip
        shadows = [
            {"policy": "surrogate", "action": rival["action"], "digest": rival["digest"], "expected": 0.36, "seconds": 0.1},
            {"policy": "tpe", "action": "sft(model=base)", "digest": digest("tpe"), "expected": None, "seconds": 0.1},
        ]
        engine.add("shadows.recorded", number=number, shadows=shadows)
    engine.add("constraint.added", id="c3", text="never sft on base: too slow for now", match={}, by="person", trial=3)
    engine.add("rule.added", id="r2", text="always sft on m1, tool-calls", match={}, by="person", trial=2)
    engine.add("hint.added", id="h41", text="the preference data is what we have most of", by="person", trial=3)
    engine.add("memory.updated", text="Helped: sft on tool-calls +0.060. Promising: go on from m1.", by="facts")


def add_weighed(engine: FakeEngine, number: int) -> Json:
    """A proposal of the hybrid's planner that waits, with all that it weighed."""
    act = sft("m2", learning_rate=0.0003, rank=16)
    engine.add("planner.answered", number=number, call="action", answer="yes-no: A 0.45 B 0.31 C 0.16 D 0.08", tokens=910,
               seconds=2.4)  # fmt: skip
    engine.add("planner.answered", number=number, call="explain", answer="m2 has not seen a larger rank.", tokens=310,
               seconds=1.1)  # fmt: skip
    options = [
        alternative("sft(m2, tool-calls; learning_rate=0.0003, rank=16)", act, 0.45, 0.372),
        alternative("dpo(m2, preferences; beta=0.1)", None, 0.31, 0.391),
        alternative("merge_ties(m1+m2; density=0.5)", None, 0.16, 0.355),
        alternative("sft(base, tool-calls; epochs=3)", None, 0.08, 0.311),
    ]
    rival = {name: options[1][name] for name in ("action", "digest", "expected", "std")}
    told = {"chooser": "planner", "planner": "SmolLM2-135M-Instruct", "style": "yes-no", "share": 0.24, "expected": 0.372,
            "std": 0.031, "rival": rival}  # fmt: skip
    engine.add("trial.opened", number=number)
    engine.add("phase.changed", phase="waiting", detail=f"trial {number}: sft awaits a decision")
    offered = proposal(number, act, REASON, by="hybrid", alternatives=options, details=told)
    engine.add("trial.proposed", number=number, proposal=offered)
    return offered


REASON = (
    "m6 is best on tool use and has not been tuned on preferences; a short pass at half the rate should lift "
    "instruction following without losing what the merge gained."
)


def add_waiting(engine: FakeEngine, number: int = 7) -> Json:
    """A proposal that waits for a person."""
    act = sft("m6", learning_rate=0.0003, rank=16)
    engine.add("trial.opened", number=number)
    engine.add("phase.changed", phase="waiting", detail=f"trial {number}: sft awaits a decision")
    offered = proposal(number, act, REASON)
    engine.add("trial.proposed", number=number, proposal=offered)
    return offered


def emit_proposal(engine: FakeEngine, number: int, act: Json, **extra: Any) -> Json:
    """Open a trial and propose an action, live."""
    engine.emit("trial.opened", number=number)
    offered = proposal(number, act, REASON, **extra)
    engine.emit("trial.proposed", number=number, proposal=offered)
    return offered


def add_end(engine: FakeEngine) -> None:
    """The search is over: m6 is better than two baselines, worse than one, and there was no time for the fourth."""
    gains = {split: {"objective": gain(mean), "tasks": {}} for split, mean in (("search", 0.135), ("sealed", 0.1))}
    found = {"status": "done", "reason": "6 trials", "winner": "m6", "beats_base": True, "gain": gains}
    engine.add("search.ended", **found)
    for name, mean, over, more in (
        ("sft_all", 0.25, -0.15, {"tried": 1, "of": 4, "length": 0.6}),
        ("few_shot", -0.2, 0.3, {}),
        ("best_single_step", 0.08, 0.02, {}),
    ):
        report = {"objective": gain(mean), "tasks": {}}
        told = {"model": "base", "digest": "0" * 64, "what": "how it was made", "scores": {}, "keys": {}, "gain": report}
        engine.add("baseline.recorded", name=name, baseline={**told, "winner_gain": gain(over), **more})
    engine.add("baseline.missing", name="best_merge", reason="no trial merged models")
    engine.add("run.ended", **found)
    engine.add("phase.changed", phase="ended", detail="")


def add_running(engine: FakeEngine, run_dir: Path, number: int = 7) -> None:
    """A step that trains, with its files and its metrics."""
    act = sft("m6", learning_rate=0.0003, rank=16)
    add_waiting(engine, number)
    engine.add("trial.decided", number=number, verdict="approve", by="console", reason="", action=act)
    engine.add("phase.changed", phase="running", detail=f"trial {number}: sft")
    key = f"{number}/1"
    engine.add("step.intended", step=key, purpose="train", trial=number, digest=act["digest"])
    engine.add("step.started", step=key, pid=900, start_time=1.0, boot_id="b")
    folder = run_dir / "steps" / key
    folder.mkdir(parents=True, exist_ok=True)
    lines = [f"step {step:3d}/120  loss {2.4 / (1 + step / 15) + 0.1 * (step % 3):.3f}" for step in range(1, 81)]
    (folder / "log.txt").write_text("loading m6 (134.5M parameters)\nLoRA rank 16 on 60 layers\n" + "\n".join(lines) + "\n")
    engine.extra += [
        {"type": "metric", "step": key, "metric": {
            "step": step, "max_steps": 120, "loss": 2.4 / (1 + step / 15) + 0.1 * (step % 3), "grad_norm": 0.8,
            "tokens_per_second": 5321.0, "seconds": step * 0.4}}
        for step in range(1, 81)
    ]  # fmt: skip


HOST: Json = {"cpu_percent": [83.0, 61.0, 12.0, 7.0], "memory_used": 11 * GB, "memory_total": 32 * GB,
              "disk_free": 210 * GB, "disk_total": 512 * GB, "load": [2.1, 1.7, 1.2]}  # fmt: skip


def hardware(gpus: int = 0) -> Json:
    """A hardware frame, with GPUs or with the reason why there is none."""
    cards = [
        {"index": index, "name": "NVIDIA H200", "util": 97 - 40 * index, "memory_used": 121 * GB - index * 80 * GB,
         "memory_total": 141 * GB, "power_w": 612.0, "temperature_c": 71, "processes": [{"pid": 900, "memory": GB}]}
        for index in range(gpus)
    ]  # fmt: skip
    reason = "" if gpus else "NVML library not found: no NVIDIA driver on this machine"
    return {"type": "hardware", "gpus": cards, "reason": reason, "host": HOST}
