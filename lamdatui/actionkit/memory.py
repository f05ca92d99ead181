"""Peak memory of a step, counted from a decoder's sizes. Pure.

What is kept follows from what PyTorch, PEFT and TRL do (frozen weights in the step's dtype, adapters and their AdamW states in float32, an output
layer that is computed in tiles); how many bytes of each size a layer keeps was fitted to peaks of real model classes on fake tensors, to which
`bench/memory.py` holds it. The idea of the terms: Korthikanti et al. 2022, arXiv 2205.05198.
"""

from __future__ import annotations

from dataclasses import dataclass

from lamdatui.domain.objects import Shape

TILE = 32_768
"""Columns of the vocabulary that TRL computes at once; `TILE_TOKENS` rows."""
TILE_TOKENS = 4096
TILE_BYTES = 512 * 2**20
"""On a CPU, as much is given to one tile of the output layer, and its rows are cut to that (`tile_tokens`)."""
NF4 = 0.52
"""Bytes of a weight in 4 bits, with its share of the scales."""


@dataclass(frozen=True, slots=True)
class Kept:
    """Bytes that a layer keeps for each token: per hidden unit, per unit of the feed-forward part, per unit of attention; `more` is Gemma's share.
    `weights`: per weight of its linear layers."""

    hidden: float
    intermediate: float
    attention: float
    more: float
    weights: float = 0.0

    def bytes(self, shape: Shape, tokens: float, gemma: bool) -> float:
        """Of one layer."""
        per_token = self.hidden * shape.hidden + self.intermediate * shape.intermediate
        per_token += self.attention * shape.heads * shape.head_dim + (self.more * shape.hidden if gemma else 0)
        return tokens * per_token + self.weights * linear_weights(shape)


# (method, bytes of a computed value) → what is kept without checkpointing, and what one layer takes when it is computed again and differentiated.
KEPT: dict[tuple[str, int], tuple[Kept, Kept]] = {
    ("lora", 2): (Kept(21.3, 9.4, 23.5, 11.9), Kept(31.4, 13.6, 24.0, 6.1)),
    ("lora", 4): (Kept(10.8, 15.3, 27.4, 9.5), Kept(0.0, 23.2, 38.3, 7.3)),
    ("dora", 2): (Kept(23.3, 18.4, 35.9, 12.5, 1.9), Kept(13.6, 39.1, 18.7, 0.0, 8.2)),
    ("dora", 4): (Kept(19.5, 29.9, 40.8, 3.5, 1.9), Kept(0.0, 43.7, 28.3, 7.7, 7.3)),
    ("full", 2): (Kept(16.2, 7.8, 25.8, 25.8), Kept(105.0, 15.0, 0.0, 6.0)),
    ("full", 4): (Kept(11.9, 15.3, 38.2, 21.8), Kept(171.0, 31.5, 0.0, 7.0)),
}
WHOLE_LOGITS = {2: 11.0, 4: 20.0}
"""Bytes a token and word of the vocabulary where a loss wants all logits at once (ORPO, SimPO)."""
TILED = 31.0
"""Bytes a token and column of a tile beside the tile itself, where no kernel does it in place (CPU)."""


STATES = {"adamw": 8.0, "adamw_8bit": 2.0, "adamw_8bit_paged": 0.0, "adafactor": 0.1}
"""On a GPU; paged states are in the machine's memory when there is no room."""


def state_bytes(optimizer: str, on_gpu: bool) -> float:
    """Bytes of an optimiser's states for a trained weight in float32."""
    return STATES["adamw_8bit" if optimizer == "adamw_8bit_paged" and not on_gpu else optimizer]


@dataclass(frozen=True, slots=True)
class Pass:
    """One forward and backward pass of a training step."""

    shape: Shape
    parameters: int
    method: str
    rank: int
    sequences: float
    tokens: float
    """Of the longest sequence."""
    checkpointing: bool
    width: int
    """Bytes of a computed value: 2 for bfloat16, 4 for float32."""
    on_gpu: bool
    whole_logits: bool = False
    gemma: bool = False
    states: float = 8.0
    """Bytes of an optimiser's states for a trained weight in float32 (`STATES`)."""


def linear_weights(shape: Shape) -> int:
    """Weights of the linear layers of one layer of a decoder."""
    attention = 2 * shape.hidden * shape.heads * shape.head_dim + 2 * shape.hidden * shape.kv_heads * shape.head_dim
    return attention + 3 * shape.hidden * shape.intermediate


def adapter_parameters(shape: Shape, rank: int) -> int:
    """Of a LoRA adapter on all linear layers."""
    h, i, a, k = shape.hidden, shape.intermediate, shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    return shape.layers * rank * (2 * (h + a) + 2 * (h + k) + 3 * (h + i))


def frozen_bytes(shape: Shape, parameters: int, method: str, width: int) -> float:
    """Weights that are not trained; of `qlora` the linear layers are in 4 bits."""
    if method != "qlora":
        return parameters * width
    linear = min(parameters, shape.layers * linear_weights(shape))
    return NF4 * linear + width * (parameters - linear)


def cache_bytes(shape: Shape, tokens: float, width: int) -> float:
    """Keys and values of so many tokens."""
    return tokens * shape.layers * 2 * shape.kv_heads * shape.head_dim * width


def tile_tokens(vocabulary: int) -> int:
    """Rows of a tile of the output layer on a CPU."""
    return int(min(TILE_TOKENS, max(256, TILE_BYTES // (TILED * min(vocabulary, TILE)) // 64 * 64)))


def head_bytes(one: Pass) -> float:
    """What the output layer and the loss take at their peak."""
    tokens, columns = one.sequences * one.tokens, min(one.shape.vocabulary, TILE)
    if one.whole_logits:
        return tokens * one.shape.vocabulary * WHOLE_LOGITS[one.width]
    if one.on_gpu:
        return min(tokens, TILE_TOKENS) * TILE * one.width + 8 * tokens * one.shape.hidden
    rows = min(tokens, tile_tokens(one.shape.vocabulary))
    return rows * (TILE * one.width + TILED * columns) + 8 * tokens * one.shape.hidden


def training_bytes(one: Pass) -> float:
    """Weights, gradients, optimiser states, activations, output layer: the most that is there at once."""
    shape, tokens = one.shape, one.sequences * one.tokens
    kept, again = KEPT[{"full": "full", "dora": "dora"}.get(one.method, "lora"), one.width]
    layer = kept.bytes(shape, tokens, one.gemma)
    head = head_bytes(one)
    if one.checkpointing:
        passing = shape.layers * tokens * shape.hidden * one.width + max(head, again.bytes(shape, tokens, one.gemma))
    else:
        passing = shape.layers * layer + head
    if one.method == "full":
        # Weights and states in float32, then the pass (under autocast with copies of the weights), or all gradients.
        cast = 2 * one.parameters if one.width == 2 else 0
        largest = 4 * shape.hidden * max(shape.intermediate, shape.vocabulary)
        return (4 + one.states) * one.parameters + max(4 * one.parameters + largest, cast + passing)
    # Adapters of `qlora` are bfloat16.
    states = adapter_parameters(shape, one.rank) * (2 + one.states / 2 if one.method == "qlora" else 4 + one.states)
    largest = shape.hidden * shape.intermediate * one.width if one.method == "qlora" else 0
    return frozen_bytes(shape, one.parameters, one.method, one.width) + states + passing + largest
