"""What every action that trains has in common: how weights are trained. Pure."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable
from dataclasses import replace

from lamdatui.domain.actions import BoundType, Call, Param
from lamdatui.domain.records import Value

METHODS = ("lora", "dora", "rslora", "qlora", "full")
OPTIMIZERS = ("adamw", "adamw_8bit", "adamw_8bit_paged", "adafactor")
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
    Param(
        "optimizer",
        "str",
        "adamw",
        "adamw; adamw_8bit: its states in 8 bits; adamw_8bit_paged: these in the machine's memory where the GPU's is full; "
        "adafactor: factored states",
        allowed=OPTIMIZERS,
        since=3,
    ),
)
"""How the weights are trained: shared by every action that trains. LoRA: Hu et al. 2021, arXiv 2106.09685; DoRA: Liu et al.
2024, arXiv 2402.09353; rsLoRA: Kalajdzievski 2023, arXiv 2312.03732; QLoRA: Dettmers et al. 2023, arXiv 2305.14314. AdamW: Loshchilov & Hutter
2017, arXiv 1711.05101; in 8 bits: Dettmers et al. 2021, arXiv 2110.02861; Adafactor: Shazeer & Stern 2018, arXiv 1804.04235."""

HOLDOUT_PARAMS = (
    Param(
        "holdout",
        "float",
        0.0,
        "share of the rows that is held out to end early, where they are learned best; 0: none",
        low=0.0,
        high=0.5,
        since=3,
    ),
    Param(
        "patience",
        "int",
        3,
        "looks at the held-out rows, 20 in all, without a lower loss before it ends",
        low=1,
        high=20,
        since=3,
    ),
)
"""Ending early (`lamdatui.step.earlystop`)."""

LENGTH_PARAMS = (
    Param(
        "epochs",
        "float",
        0.0,
        "passes over the rows, turned into max_steps; 0: as max_steps says",
        low=0.0,
        high=10_000.0,
        since=3,
    ),
    Param(
        "minutes",
        "float",
        0.0,
        "turned into max_steps by what steps take on this machine; 0: as max_steps says",
        low=0.0,
        high=100_000.0,
        since=3,
    ),
)
"""How long it is trained, in other words than steps: neither is left when an action is made (`in_steps`)."""


def in_steps(bound: BoundType, call: Call, seconds: Callable[[Call], float | None]) -> dict[str, Value]:
    """The hyperparameters of a call, with `epochs` or `minutes` turned into `max_steps`.

    `seconds`: what a call is expected to take. Raises ValueError in plain words where both are given, or nobody can tell.
    """
    params = dict(call.params)
    epochs, minutes = (float(params.get(param.name, 0)) for param in LENGTH_PARAMS)
    if not epochs and not minutes:
        return params
    if epochs and minutes:
        raise ValueError("epochs and minutes both say how long it is trained; give one of them")
    if epochs:
        steps = math.ceil(epochs * bound.type.epoch_rows(call) / int(params["batch_size"]))
    else:
        now = int(params["max_steps"])
        told = seconds(replace(call, params={**params, "epochs": 0.0, "minutes": 0.0}))
        if not told:
            raise ValueError("nobody can tell how long a step takes here; give max_steps in place of minutes")
        steps = int(minutes * 60 / (told / now))
        # Two digits: what steps take changes from trial to trial, and the same action should stay the same.
        steps = round(steps, 2 - len(str(steps))) if steps >= 100 else steps
    least, most = bound.param("max_steps").low or 1, bound.param("max_steps").high or math.inf
    return {**params, "max_steps": int(min(max(steps, least, 1), most)), "epochs": 0.0, "minutes": 0.0}


def adapter_problems(call: Call) -> list[str]:
    """Why the hyperparameters `method` and `optimizer` can't be used here; for the `check` of an action that trains."""
    found = []
    if call.params.get("method") == "qlora":
        found.append("qlora needs the package bitsandbytes: pip install 'lamdatui[qlora]'; or use lora")
    if str(call.params.get("optimizer", "")).startswith("adamw_8bit"):
        found.append("8-bit optimizers need the package bitsandbytes: pip install 'lamdatui[qlora]'; or use adamw")
    # A search asks this of thousands of actions, and looking for a package takes as long as all the rest.
    return found if found and importlib.util.find_spec("bitsandbytes") is None else []
