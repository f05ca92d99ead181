"""What every action that trains has in common: how weights are trained. Pure."""

from __future__ import annotations

import importlib.util

from lamdatui.domain.actions import Call, Param

METHODS = ("lora", "dora", "rslora", "qlora", "full")
TRAINING_PARAMS = (
    Param(
        "method",
        "str",
        "lora",
        "lora, dora, rslora: a small adapter (DoRA: also magnitudes; rsLoRA: scaled for high ranks); "
        "qlora: an adapter over 4-bit weights; full: every weight",
        allowed=METHODS,
    ),
    Param("lora_rank", "int", 16, "rank of the adapter; its alpha is twice that", low=1, high=1024),
)
"""How the weights are trained: shared by every action that trains. LoRA: Hu et al. 2021, arXiv 2106.09685; DoRA: Liu et al.
2024, arXiv 2402.09353; rsLoRA: Kalajdzievski 2023, arXiv 2312.03732; QLoRA: Dettmers et al. 2023, arXiv 2305.14314."""


def adapter_problems(call: Call) -> list[str]:
    """Why the hyperparameter `method` can't be used here; for the `check` of an action that trains."""
    if call.params.get("method") == "qlora" and importlib.util.find_spec("bitsandbytes") is None:
        return ["qlora needs the package bitsandbytes: pip install 'lamdatui[qlora]'; or use lora"]
    return []
