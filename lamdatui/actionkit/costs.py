"""What an action is expected to cost, from formulas over parameters and tokens. Pure; measurements correct it later.

Time: about 2 floating-point operations a parameter and token for a forward pass, twice that for a backward pass (Kaplan et al. 2020,
arXiv 2001.08361, section 2.1). The nominal rates only have to be of the right order: `lamdatui.actionkit.timings` replaces them by this
machine's own. Memory: `lamdatui.actionkit.memory`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from lamdatui.actionkit import memory
from lamdatui.domain.actions import PROCESS_BYTES, Call, Estimate
from lamdatui.domain.objects import ModelObject
from lamdatui.domain.plans import Plan, divisors

FLOPS = {"cpu": 5e10, "cuda": 1e14}
"""Floating-point operations a second that a step gets out of a device."""
GENERATION_SHARE = 0.3
"""Share of that rate which token-by-token generation reaches."""
STEP_SECONDS = {"cpu": 0.02, "cuda": 0.05}
"""Seconds of an optimiser step that do not depend on the model."""
FILLING_TOKENS = {"cpu": 64, "cuda": 512}
"""Tokens of a pass at which half of that rate is reached: smaller micro-batches leave a device idle."""
NEARLY = 1.03
"""A plan that takes this much longer than the fastest is as good, if it takes less memory."""
AGAIN = 1.35
"""Work of a step that computes its activations twice, in that of one that keeps them."""
MERGE_SECONDS = 3e-8
"""Seconds a parameter of each input of a merge."""
SHARD_BYTES = 2**30
"""mergekit holds as much of the result before it writes a file; less after an attempt that ran out of memory."""
CHARS_PER_TOKEN = 3.5
PROMPT_TOKENS = 64
"""Tokens a row where no dataset tells."""
LONGEST = 2.5
"""Tokens of the longest row, in those of the mean one, where no dataset tells."""
BATCH_TOKENS = 8192
"""Prompt and answer tokens of a batch that is sampled or scored together, at most: bounds the memory of the key-value cache."""
CUDA_RAM = 3 * 2**30
"""Memory of the machine that a process with CUDA's libraries takes."""
CHECKPOINT_SECONDS = 600
"""A step that takes longer writes checkpoints: two stay, each of weights and AdamW's states in float32."""
HELD_OUT_LOOKS = 20
"""How often the rows that are held out from training are looked at, in a training that goes on to its end."""
CPU_HEAP = 0.35
"""What a CPU's heap keeps beside activations that live, as a share of them: measured on steps of SmolLM2-135M (SFT, DPO, KTO)."""
FRAGMENTED = 1.05
"""What an allocator of GPU memory takes, in what is asked of it."""


def training(
    call: Call,
    slot: str = "model",
    *,
    rows: int,
    tokens: float | None = None,
    longest: float | None = None,
    answers: int = 1,
    forward: float = 1.0,
    copies: int = 0,
    beside: float = 0.0,
    generated: int = 0,
    whole_logits: bool = False,
) -> Estimate:
    """Cost of training the model of `slot` on `rows` rows (optimiser steps × rows a step), each of `answers` sequences.

    `tokens` of a mean sequence and of the `longest` come from the first dataset when not given. `forward` counts forward passes beside the
    trained one (a reference model), `copies` further models of its size in memory, `beside` bytes of others, `generated` new tokens sampled for each row; `whole_logits`: the
    loss is not computed in tiles. Memory is that of `call.plan`, or of the whole batch at once.
    """
    model, kind = call.model(slot), _kind(call)
    size = model.parameters
    method, optimizer = str(call.params.get("method", "full")), str(call.params.get("optimizer", "adamw"))
    full = method == "full"
    batch = int(call.params.get("batch_size", 1))
    plan = call.plan or Plan(batch, 1, checkpointing=False, sampled=batch if generated else 0)
    tokens = (tokens if tokens is not None else row_tokens(call)) * answers
    most = longest if longest is not None else longest_tokens(call, tokens / answers)
    rate = FLOPS[kind]
    work = size * ((6 if full else 4) * (AGAIN if plan.checkpointing else 1) + 2 * max(0.0, forward - 1))
    filled = 1 + FILLING_TOKENS[kind] / max(1.0, plan.micro_batch * (tokens + generated))
    seconds = rows * (tokens + generated) * work * filled / rate
    seconds += rows * generated * 2 * size / (rate * GENERATION_SHARE)
    seconds += rows / max(1, batch) * STEP_SECONDS[kind] * (1 + generated / 8)
    if held := float(call.params.get("holdout", 0)):
        seen = min(rows, next((data[0].rows for data in call.datasets.values() if data), rows))
        seconds += HELD_OUT_LOOKS * held * seen * tokens * 2 * size * forward / rate
    width = call.width if call.on_gpu or not full else 4
    one = memory.Pass(
        model.shape,
        size,
        method,
        int(call.params.get("lora_rank", 16)),
        plan.micro_batch * answers,
        most + generated,
        plan.checkpointing,
        width,
        call.on_gpu,
        whole_logits,
        model.architecture.startswith("gemma"),
        memory.state_bytes(optimizer, call.on_gpu),
    )
    needed = memory.training_bytes(one)
    if not call.on_gpu:
        held = (4 + one.states) * size if full else memory.frozen_bytes(model.shape, size, method, width)
        needed += CPU_HEAP * max(0.0, needed - held)
    if generated:
        cache = memory.cache_bytes(model.shape, (plan.sampled or batch) * (most + generated), width)
        # The optimiser's states stay while answers are sampled.
        needed = max(
            needed, ((4 + one.states) * size if full else memory.frozen_bytes(model.shape, size, method, width)) + cache
        )
    needed += beside + copies * size * (4 if full else width)
    written = size * width if full else 4 * memory.adapter_parameters(model.shape, one.rank)
    if seconds > CHECKPOINT_SECONDS:
        written += 2 * 12 * (size if full else memory.adapter_parameters(model.shape, one.rank))
    loaded = size * (4 if full else call.width)
    if optimizer == "adamw_8bit_paged":
        loaded += memory.STATES["adamw_8bit"] * (size if full else memory.adapter_parameters(model.shape, one.rank))
    return _estimate(call, seconds, needed, written, loaded=loaded)


def plans(
    call: Call, batch: int, *, tokens: float, together: int = 1, whole: bool = False, sampled: Sequence[int] = (0,)
) -> list[Plan]:
    """How a batch of training rows may be laid out, the fastest first, each smaller than the ones before it.

    `tokens` of a row; at least `together` rows have to be in one pass; `whole`: the loss is a mean over a pass, so all rows at once come first;
    `sampled`: numbers of answers that may be sampled at once, the best first.
    """
    enough = [size for size in divisors(batch) if size >= min(together, batch)]

    def cost(plan: Plan) -> float:
        filled = 1 + FILLING_TOKENS[_kind(call)] / max(1.0, plan.micro_batch * tokens)
        return filled * (AGAIN if plan.checkpointing else 1)

    every = [Plan(size, batch // size, again, sampled[0]) for size in enough for again in (False, True)]
    every.sort(key=lambda plan: (cost(plan), -plan.micro_batch))
    if whole:
        every.sort(key=lambda plan: -plan.micro_batch)
    near = [plan for plan in every if cost(plan) <= NEARLY * cost(every[0]) and not plan.checkpointing]
    first = every[0] if whole or not near else near[-1]
    rest = [plan for plan in every if (whole or cost(plan) >= cost(first)) and plan != first]
    smallest = Plan(enough[-1], batch // enough[-1], checkpointing=True)
    return [first, *rest, *(Plan(smallest.micro_batch, smallest.accumulation, True, number) for number in sampled[1:])]


def generation(call: Call, slot: str, *, rows: int, new_tokens: int) -> Estimate:
    """Cost of `rows` sampled answers of `new_tokens` tokens by the model of `slot`; the text itself takes next to no disk."""
    model = call.model(slot)
    size = model.parameters
    tokens = rows * (new_tokens + row_tokens(call) * GENERATION_SHARE)
    rate = FLOPS[_kind(call)]
    seconds = tokens * 2 * size / (rate * GENERATION_SHARE) + new_tokens * rows / 128 * STEP_SECONDS[_kind(call)]
    return _estimate(call, seconds, answering(model, call.width), rows * 1024, loaded=size * call.width)


def answering(model: ModelObject, width: int) -> float:
    """Bytes of a model that answers a batch of questions: weights, keys and values, and a layer's values of the questions."""
    passing = BATCH_TOKENS * width * (2 * model.shape.hidden + 2 * model.shape.intermediate)
    return model.parameters * width + memory.cache_bytes(model.shape, BATCH_TOKENS, width) + passing


def merging(call: Call, models: Sequence[ModelObject], *, copies: int) -> Estimate:
    """Cost of merging `models`, tensor by tensor, in float32; `copies` is how many of the largest tensor are there at once beside theirs."""
    largest = max(models, key=lambda model: model.parameters)
    size, shape = largest.parameters, largest.shape
    tensor = 4 * shape.hidden * max(shape.intermediate, shape.vocabulary)
    tensors = min(size * 4, tensor) * (copies + len(models))
    seconds = round(size * MERGE_SECONDS * (len(models) + 1) + 0.1, 2)
    # The result is loaded before it is published, and one with adapters is written out in full first.
    loaded = size * call.width
    needed = (
        max(answering(largest, call.width), tensors) if call.on_gpu else max(answering(largest, call.width), loaded + tensors)
    )
    return _estimate(call, seconds, needed, size * call.width, loaded=loaded + tensors + SHARD_BYTES)


def _estimate(call: Call, seconds: float, needed: float, written: float, *, loaded: float) -> Estimate:
    """`needed` bytes of the device; `loaded` through the machine's memory on their way to a GPU."""
    total = int(PROCESS_BYTES + needed * (FRAGMENTED if call.on_gpu else 1))
    ram = int(CUDA_RAM + loaded) if call.on_gpu else total
    return Estimate(round(seconds, 2), total, int(written), ram)


def _kind(call: Call) -> str:
    return "cuda" if call.on_gpu else "cpu"


def row_tokens(call: Call) -> float:
    """Tokens of a mean row of the first dataset that tells."""
    for datasets in call.datasets.values():
        if datasets and datasets[0].chars:
            return datasets[0].chars / CHARS_PER_TOKEN
    return PROMPT_TOKENS


def longest_tokens(call: Call, mean: float | None = None) -> float:
    """Tokens of the longest row of the first dataset that tells, cut at `max_length`."""
    mean = row_tokens(call) if mean is None else mean
    told = max((data.longest for datasets in call.datasets.values() for data in datasets[:1]), default=0)
    longest = max(mean, told / CHARS_PER_TOKEN if told else LONGEST * mean)
    return min(longest, float(call.params.get("max_length") or math.inf))
