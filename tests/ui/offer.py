"""What a fake engine says of actions that people write: its types, and what it thinks of a draft."""

from __future__ import annotations

from typing import Any

from lamdatui.base.jsonio import digest
from tests.ui import script
from tests.ui.fake_engine import FakeEngine

Json = dict[str, Any]
GB = 1_000_000_000


def slot(name: str, kind: str, least: int = 1, most: int | None = 1, formats: tuple[str, ...] = ()) -> Json:
    """An input slot as the engine tells it."""
    return {"name": name, "kind": kind, "formats": list(formats), "min": least, "max": most}


TYPES: list[Json] = [
    {"name": "sft", "summary": "Supervised fine-tuning with a LoRA adapter (TRL)", "family": "supervised", "output": "model",
     "slots": [slot("model", "model"), slot("dataset", "dataset", formats=("sft",))], "params": script.SFT_PARAMS},
    {"name": "dpo", "summary": "Direct preference optimisation", "family": "preference", "output": "model",
     "slots": [slot("model", "model"), slot("dataset", "dataset", formats=("preference",))],
     "params": [script.SFT_PARAMS[0]]},
    {"name": "merge_ties", "summary": "Merge models", "family": "merge", "output": "model",
     "slots": [slot("models", "model", 2, 4)], "params": script.MERGE_PARAMS},
]  # fmt: skip


def tried(args: Json) -> Json:
    """What the engine answers to `try_action`: everything is legal but a merge of one model."""
    problems = []
    if args["type"] == "merge_ties" and len(args["inputs"].get("models", [])) < 2:
        problems.append("models takes 2 to 4 objects, not 1")
    return {
        "problems": problems,
        "estimate": {"seconds": 41.0, "memory_bytes": 2 * GB, "disk_bytes": GB, "measured": 3},
        "expected": 0.412,
        "std": 0.03,
        "digest": digest(args),
        "trial": 1 if args["params"].get("epochs") == 1 and args["inputs"].get("model") == ["base"] else None,
        "cached": False,
    }


def offer(engine: FakeEngine) -> None:
    """Have the engine answer the commands of the action form."""
    engine.answers.update(actions=lambda args: {"types": TYPES}, try_action=tried, propose=lambda args: {"id": "q1"})
