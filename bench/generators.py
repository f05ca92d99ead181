"""Answers by vLLM and by transformers: rows a second, and how many greedy answers are the same.

    python -m bench.generators MODEL_FOLDER VLLM_OR_PYTHON [--rows 32] [--tokens 64] [--seed 1]

Prompts are quickstart questions drawn by the seed. vLLM's start is told apart. One run on one machine: the ratio is what counts.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from lamdatui.inputs.workspace import locate
from lamdatui.step.generate import BATCH_TOKENS, Sampling
from lamdatui.step.generators import Generator, TransformersGenerator, VllmGenerator


def main() -> None:
    """Print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("executable")
    parser.add_argument("--rows", type=int, default=32)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    dtype = "bfloat16" if device.type == "cuda" else "float32"
    lines = locate("catalogue:quickstart-data-2/mix.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in random.Random(given.seed).sample(lines, given.rows)]
    asked = [row["messages"][:-1] if "messages" in row else row["prompt"] for row in rows]
    tokenizer = AutoTokenizer.from_pretrained(given.model)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    model: Any = AutoModelForCausalLM.from_pretrained(given.model, dtype=getattr(torch, dtype))
    model.to(device)
    found, seconds = {}, {}

    def timed(name: str, generator: Generator) -> None:
        began = time.monotonic()
        found[name] = [answer.text for (answer,) in generator.answers(asked, Sampling(given.tokens))]
        seconds[name] = time.monotonic() - began

    timed("transformers", TransformersGenerator(model, tokenizer, BATCH_TOKENS))
    del model
    with tempfile.TemporaryDirectory() as folder:
        vllm = VllmGenerator(
            {"executable": given.executable, "arguments": [], "gpu_memory_utilization": 0.85},
            tokenizer,
            given.model.absolute(),
            None,
            lambda: given.model,
            dtype=dtype,
            device=device,
            threads=torch.get_num_threads(),
            log=Path(folder) / "generator.log",
            say=lambda _: None,
        )
        began = time.monotonic()
        vllm.answers(asked[:1], Sampling(given.tokens))
        started = time.monotonic() - began
        # Another prompt than the one that its cache now has.
        timed("vllm", vllm)
        vllm.close()
    same = sum(one == other for one, other in zip(*found.values(), strict=True))
    told = {
        "rows": given.rows,
        "tokens": given.tokens,
        "rows a second": {name: round(given.rows / each, 2) for name, each in seconds.items()},
        "ratio": round(seconds["transformers"] / seconds["vllm"], 2),
        "start of vLLM, s": round(started, 1),
        "same answers": same,
    }
    print(json.dumps(told))


if __name__ == "__main__":
    main()
