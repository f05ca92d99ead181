"""Peak memory of a training step of a real model class without its weights: forward, backward and optimiser on fake tensors.

A dispatch mode counts the bytes of live storages, as an allocator without fragmentation would. Not counted: what a device's context takes,
and the work space of its kernels.
"""

from __future__ import annotations

import gc
import weakref
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import AutoConfig, AutoModelForCausalLM
from trl.kernels import chunked_logprob
from trl.trainer.utils import add_fused_lm_head

from lamdatui.actionkit.memory import tile_tokens


@dataclass(frozen=True)
class Work:
    """A training step: `kind` is supervised, preference (chosen and rejected, a reference pass) or whole-logits (ORPO, SimPO)."""

    kind: str
    method: str
    rank: int
    sequences: int
    tokens: int
    checkpointing: bool
    dtype: str
    autocast: bool = False


@dataclass(frozen=True)
class Peak:
    """Bytes: of parameters and buffers, and the most at any time."""

    weights: int
    peak: int


class LiveBytes(TorchDispatchMode):
    """Bytes of storages from their first appearance until they are freed."""

    def __init__(self) -> None:
        super().__init__()
        self.live: dict[int, int] = {}
        self.now = self.peak = 0

    def add(self, tensor: torch.Tensor) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self.live:
            return
        self.live[key] = storage.nbytes()
        self.now += storage.nbytes()
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self.drop, key)

    def drop(self, key: int) -> None:
        self.now -= self.live.pop(key, 0)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, torch.Tensor):
                self.add(tensor)
        return out


def measure(config: dict[str, Any], work: Work) -> Peak:
    """Two optimiser steps of one micro-batch each; `config` is what config.json says."""
    chunked_logprob.TOKEN_CHUNK_SIZE = tile_tokens(config["vocab_size"])
    dtype = getattr(torch, work.dtype)
    full = work.method == "full"
    with torch.device("meta"):
        told = AutoConfig.for_model(**config, attn_implementation="sdpa")
        model: Any = AutoModelForCausalLM.from_config(told, dtype=torch.float32 if full else dtype)
        if work.kind != "whole-logits":
            add_fused_lm_head(model, outputs=("log_probs", "entropy", "is_top1"))
        if not full:
            lora = LoraConfig(r=work.rank, lora_alpha=2 * work.rank, target_modules="all-linear", task_type="CAUSAL_LM")
            lora.use_dora, lora.use_rslora = work.method == "dora", work.method == "rslora"
            model = get_peft_model(model, lora)
    with FakeTensorMode(allow_non_fake_inputs=True):
        _materialise(model)
        if work.checkpointing:
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
            model.enable_input_require_grads()
        model.train()
        model.config.use_cache = False
        optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], fused=True)
        count = LiveBytes()
        for tensor in [*model.parameters(), *model.buffers()]:
            count.add(tensor)
        weights = count.now
        with count:
            for _ in range(2):
                _step(model, work, optimizer)
        del optimizer
    found = Peak(weights, count.peak)
    del model
    gc.collect()
    return found


def _materialise(model: Any) -> None:
    """Put fake tensors in place of those without data: `Module.to` can't swap them. Tied weights stay tied."""
    made: dict[int, torch.nn.Parameter] = {}
    for module in model.modules():
        for name, old in list(module._parameters.items()):
            if old is None:
                continue
            if id(old) not in made:
                fresh = torch.empty(old.shape, dtype=old.dtype, device="cpu")
                made[id(old)] = torch.nn.Parameter(fresh, requires_grad=old.requires_grad)
            module._parameters[name] = made[id(old)]
        for name, old in list(module._buffers.items()):
            if old is not None:
                module._buffers[name] = torch.empty(old.shape, dtype=old.dtype, device="cpu")


def _step(model: Any, work: Work, optimizer: Any) -> None:
    ids = torch.randint(0, 100, (work.sequences, work.tokens))
    with torch.autocast("cpu", dtype=torch.bfloat16) if work.autocast else nullcontext():
        if work.kind == "whole-logits":
            logits = model(input_ids=ids).logits
            half = work.sequences // 2
            nll = torch.nn.functional.cross_entropy(
                logits[:half, :-1].reshape(-1, logits.shape[-1]), ids[:half, 1:].reshape(-1)
            )
            chosen, rejected = (_log_probs(logits[part, :-1], ids[part, 1:]) for part in (slice(half), slice(half, None)))
            loss = nll - torch.nn.functional.logsigmoid(chosen - rejected).mean()
        else:
            if work.kind == "preference" and hasattr(model, "disable_adapter"):
                with torch.no_grad(), model.disable_adapter():
                    model(input_ids=ids, labels=ids, fused_lm_head=True)
            out = model(input_ids=ids, labels=ids, fused_lm_head=True)
            loss = out.loss
            del out
    loss.backward()
    torch.nn.utils.clip_grad_norm_([p for p in model.parameters() if p.requires_grad], 1.0)
    optimizer.step()
    optimizer.zero_grad()


def _log_probs(logits: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    """(n,) mean log-probabilities of the tokens, row by row, as TRL's `selective_log_softmax` does for bfloat16."""
    rows = [
        torch.nn.functional.log_softmax(row, dim=-1).gather(-1, wanted[:, None])[:, 0].mean()
        for row, wanted in zip(logits, ids, strict=True)
    ]
    return torch.stack(rows)
