"""Forecasts of memory against peaks of real model classes on fake tensors, for configurations that a seed draws.

    python -m bench.memory [--count 40] [--seed 1]

No weights and no GPU are needed: see `bench.fakememory`. A forecast is that of `lamdatui.actionkit.memory` for a CPU, where TRL's output layer
needs more than on a GPU.
"""

from __future__ import annotations

import argparse
import random
import statistics
from typing import Any

from bench.fakememory import Work, measure
from lamdatui.actionkit.memory import Pass, training_bytes
from lamdatui.domain.objects import Shape

# Sizes as the models' cards give them: hidden, intermediate, layers, heads, heads of keys, vocabulary, tied, size of a head.
FAMILIES: dict[str, tuple[str, tuple[Any, ...]]] = {
    "SmolLM2-135M": ("llama", (576, 1536, 30, 9, 3, 49152, True, 64)),
    "SmolLM2-360M": ("llama", (960, 2560, 32, 15, 5, 49152, True, 64)),
    "SmolLM2-1.7B": ("llama", (2048, 8192, 24, 32, 32, 49152, True, 64)),
    "Llama-3.2-1B": ("llama", (2048, 8192, 16, 32, 8, 128256, True, 64)),
    "Llama-3.2-3B": ("llama", (3072, 8192, 28, 24, 8, 128256, True, 128)),
    "Llama-3.1-8B": ("llama", (4096, 14336, 32, 32, 8, 128256, False, 128)),
    "Qwen2.5-0.5B": ("qwen2", (896, 4864, 24, 14, 2, 151936, True, 64)),
    "Qwen2.5-1.5B": ("qwen2", (1536, 8960, 28, 12, 2, 151936, True, 128)),
    "Qwen2.5-7B": ("qwen2", (3584, 18944, 28, 28, 4, 152064, False, 128)),
    "Qwen2.5-14B": ("qwen2", (5120, 13824, 48, 40, 8, 152064, False, 128)),
    "Qwen2.5-32B": ("qwen2", (5120, 27648, 64, 40, 8, 152064, False, 128)),
    "Qwen3-0.6B": ("qwen3", (1024, 3072, 28, 16, 8, 151936, True, 128)),
    "Qwen3-1.7B": ("qwen3", (2048, 6144, 28, 16, 8, 151936, True, 128)),
    "Qwen3-4B": ("qwen3", (2560, 9728, 36, 32, 8, 151936, True, 128)),
    "Qwen3-8B": ("qwen3", (4096, 12288, 36, 32, 8, 151936, False, 128)),
    "Gemma-3-1B": ("gemma3_text", (1152, 6912, 26, 4, 1, 262144, True, 256)),
    "Mistral-7B": ("mistral", (4096, 14336, 32, 32, 8, 32768, False, 128)),
}
KINDS = ("supervised", "supervised", "preference", "whole-logits")
METHODS = ("lora", "lora", "rslora", "dora", "full")


def config_of(name: str) -> tuple[dict[str, Any], Shape]:
    """What config.json says of a family, and its sizes."""
    kind, (hidden, intermediate, layers, heads, kv_heads, vocabulary, tied, head_dim) = FAMILIES[name]
    told = {"hidden_size": hidden, "intermediate_size": intermediate, "num_hidden_layers": layers, "num_attention_heads": heads}
    told |= {"num_key_value_heads": kv_heads, "vocab_size": vocabulary, "tie_word_embeddings": tied}
    if kind != "qwen2":
        told["head_dim"] = head_dim
    return {"model_type": kind, **told}, Shape(layers, hidden, intermediate, heads, kv_heads, head_dim, vocabulary, tied)


def draw(rng: random.Random) -> tuple[str, Work]:
    """A family and what is done with it."""
    name, kind, method = rng.choice(list(FAMILIES)), rng.choice(KINDS), rng.choice(METHODS)
    sequences = rng.choice((1, 2, 4)) * (1 if kind == "supervised" else 2)
    dtype = rng.choice(("bfloat16", "bfloat16", "float32"))
    work = Work(
        kind,
        method,
        rng.choice((8, 16, 64)),
        sequences,
        rng.choice((256, 512, 1024, 2048)),
        rng.random() < 0.5,
        dtype,
        autocast=method == "full" and dtype == "bfloat16",
    )
    return name, work


def forecast(name: str, work: Work, parameters: int) -> float:
    """Bytes, by formula."""
    shape = config_of(name)[1]
    width = 2 if work.dtype == "bfloat16" else 4
    gemma = FAMILIES[name][0].startswith("gemma")
    whole = work.kind == "whole-logits"
    one = Pass(
        shape, parameters, work.method, work.rank, work.sequences, work.tokens, work.checkpointing, width, False, whole, gemma
    )
    return training_bytes(one)


def parameters_of(shape: Shape) -> int:
    """Weights of a decoder of these sizes, without its norms and biases."""
    from lamdatui.actionkit.memory import linear_weights

    return shape.layers * linear_weights(shape) + shape.vocabulary * shape.hidden * (1 if shape.tied else 2)


def main() -> None:
    """Draw, measure, print a line each and what they come to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=40)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    rng, errors = random.Random(options.seed), []
    print("model          kind          method rank rows × tokens  checkp. dtype       peak GiB  forecast   error")
    for _ in range(options.count):
        name, work = draw(rng)
        config, shape = config_of(name)
        peak = measure(config, work).peak
        told = forecast(name, work, parameters_of(shape))
        errors.append(told / peak - 1)
        size = f"{work.sequences} × {work.tokens}"
        print(
            f"{name:14} {work.kind:13} {work.method:6} {work.rank:4} {size:>11}  {'yes' if work.checkpointing else 'no':7} {work.dtype:9} "
            f"{peak / 2**30:10.2f} {told / 2**30:9.2f} {errors[-1]:+7.1%}",
            flush=True,
        )
    spread = [abs(error) for error in errors]
    print(f"n {len(errors)}, seed {options.seed}: median {statistics.median(spread):.1%}, worst {max(spread):.1%}, ", end="")
    print(f"most under {min(errors):+.1%}, most over {max(errors):+.1%}")


if __name__ == "__main__":
    main()
