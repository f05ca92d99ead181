"""What a fake engine says of actions that people write: its types, and what it thinks of a draft."""

from __future__ import annotations

from typing import Any

from lamdatui.base.jsonio import digest
from tests.ui import script
from tests.ui.fake_engine import FakeEngine
from tests.ui.script import slot

Json = dict[str, Any]
GB = 1_000_000_000


TYPES: dict[str, Json] = {
    "sft": script.ACTION_TYPES["sft"],
    "dpo": {"summary": "Direct preference optimisation", "family": "preference", "output": "model",
            "slots": [slot("model", "model"), slot("dataset", "dataset", formats=("preference",))],
            "params": [script.SFT_PARAMS[0]]},
    "merge_ties": {**script.ACTION_TYPES["merge_ties"], "slots": [slot("models", "models", 2, 4)]},
}  # fmt: skip


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
