"""What an action is expected to cost, from formulas over parameters and tokens. Pure; measurements correct it later.

The formulas count what dominates: about 2 floating-point operations a parameter and token for a forward pass, twice that
for a backward pass (Kaplan et al. 2020, arXiv 2001.08361, section 2.1), and the activations that a backward pass
keeps. The nominal rates only have to be of the right order: `lamdatui.actionkit.timings` replaces them by this machine's own.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt

from lamdatui.domain.actions import PROCESS_BYTES, Call, Estimate
from lamdatui.domain.objects import ModelObject

FLOPS = {"cpu": 5e10, "cuda": 1e14}
"""Floating-point operations a second that a step gets out of a device."""
GENERATION_SHARE = 0.3
"""Share of that rate which token-by-token generation reaches."""
STEP_SECONDS = {"cpu": 0.02, "cuda": 0.05}
"""Seconds of an optimiser step that do not depend on the model."""
MERGE_SECONDS = 3e-8
"""Seconds a parameter of each input of a merge."""
CHARS_PER_TOKEN = 3.5
PROMPT_TOKENS = 64
"""Tokens a row where no dataset tells."""


def training(
    call: Call,
    slot: str = "model",
    *,
    rows: int,
    tokens: float | None = None,
    forward: float = 1.0,
    copies: int = 0,
    generated: int = 0,
) -> Estimate:
    """Cost of training the model of `slot` on `rows` rows (optimiser steps × rows a step).

    `tokens` a row come from the first dataset when not given. `forward` counts forward passes beside the trained one (a
    reference model), `copies` further models in memory, `generated` new tokens sampled for each row.
    """
    size = call.model(slot).parameters
    method = str(call.params.get("method", "full"))
    batch = int(call.params.get("batch_size", 1))
    tokens = tokens if tokens is not None else _row_tokens(call)
    full = method == "full"
    per_token = size * ((6 if full else 4) + 2 * max(0.0, forward - 1))
    rate = FLOPS[_kind(call)]
    seconds = rows * (tokens + generated) * per_token / rate
    seconds += rows * generated * 2 * size / (rate * GENERATION_SHARE)
    seconds += rows / max(1, batch) * STEP_SECONDS[_kind(call)] * (1 + generated / 8)
    frozen = {"qlora": 0.7}.get(method, 4 if _kind(call) == "cpu" else 2)
    weights = size * (16 if full else frozen) + copies * size * frozen
    activations = min(rows, batch) * (tokens + generated) * _activation_bytes(size)
    memory = PROCESS_BYTES + weights + activations
    return Estimate(round(seconds, 2), int(memory), _adapter_bytes(call, size) if not full else size * 4)


def generation(call: Call, slot: str, *, rows: int, new_tokens: int) -> Estimate:
    """Cost of `rows` sampled answers of `new_tokens` tokens by the model of `slot`; the text itself takes next to no disk."""
    size = call.model(slot).parameters
    tokens = rows * (new_tokens + _row_tokens(call) * GENERATION_SHARE)
    seconds = tokens * 2 * size / (FLOPS[_kind(call)] * GENERATION_SHARE) + new_tokens * rows / 128 * STEP_SECONDS[_kind(call)]
    weights = size * (4 if _kind(call) == "cpu" else 2)
    cache = 8192 * _activation_bytes(size) / 8
    return Estimate(round(seconds, 2), int(PROCESS_BYTES + weights + cache), rows * 1024)


def merging(call: Call, models: Sequence[ModelObject], *, copies: int) -> Estimate:
    """Cost of merging `models`; `copies` is how many full models are in memory at once."""
    size = max(model.parameters for model in models)
    memory = PROCESS_BYTES + size * 4 * copies
    return Estimate(round(size * MERGE_SECONDS * (len(models) + 1) + 0.1, 2), int(memory), size * 4)


def _kind(call: Call) -> str:
    return "cuda" if call.device.startswith("cuda") else "cpu"


def _row_tokens(call: Call) -> float:
    for datasets in call.datasets.values():
        if datasets and datasets[0].chars:
            return datasets[0].chars / CHARS_PER_TOKEN
    return PROMPT_TOKENS


def _activation_bytes(size: int) -> float:
    """Activations of one token that a backward pass keeps: about 34 values a layer and hidden unit (Korthikanti et al. 2022,
    arXiv 2205.05198, without the attention matrix); layers × hidden is about the square root of twice the parameters."""
    return 34 * 4 * sqrt(2 * size)


def _adapter_bytes(call: Call, size: int) -> int:
    """A LoRA adapter on all linear layers of a decoder, in float32."""
    return int(size * int(call.params.get("lora_rank", 16)) / 440 * 4)
