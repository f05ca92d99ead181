"""Whether bfloat16 pays on this CPU: a LoRA training step and greedy generation of the quickstart's model in both dtypes.

This is what `lamdatui.hardware.system.has_fast_bfloat16` rests on. Needs `lamdatui models fetch smollm2-135m`.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from lamdatui.catalogue.fetch import resolve
from lamdatui.hardware.system import has_fast_bfloat16

ROWS, TOKENS, PROMPT = 4, 155, 120
NEW_TOKENS = 24


def measure(dtype: torch.dtype, steps: int, seed: int) -> tuple[float, float]:
    """(median seconds of a training step of 4 x 155 tokens, seconds of generating 20 x 24 tokens)."""
    torch.manual_seed(seed)
    path = resolve("catalogue:smollm2-135m")
    model = AutoModelForCausalLM.from_pretrained(path, dtype=dtype, local_files_only=True)
    lora = LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")
    model = get_peft_model(model, lora)
    ids = torch.randint(0, model.config.vocab_size - 1, (ROWS, TOKENS))
    labels = ids.clone()
    labels[:, :PROMPT] = -100
    times = []
    for _ in range(steps + 1):
        began = time.perf_counter()
        model(input_ids=ids, labels=labels).loss.backward()
        times.append(time.perf_counter() - began)
    model.eval()
    with torch.inference_mode():
        began = time.perf_counter()
        prompts = ids.repeat(5, 1)[:, :PROMPT]
        model.generate(prompts, max_new_tokens=NEW_TOKENS, min_new_tokens=NEW_TOKENS, do_sample=False, pad_token_id=0)
        generating = time.perf_counter() - began
    # The first step is slower than the rest: kernels are chosen and memory is taken.
    return statistics.median(times[1:]), generating


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    found = {str(dtype): measure(dtype, options.steps, options.seed) for dtype in (torch.float32, torch.bfloat16)}
    print("dtype            s a training step   s to generate")
    for name, (step, generating) in found.items():
        print(f"{name:16} {step:17.2f} {generating:15.2f}")
    (a, b), (c, d) = found.values()
    print(f"float32 / bfloat16: training {a / c:.2f}x, generation {b / d:.2f}x; AMX here: {has_fast_bfloat16()}")
    print(f"{options.threads} threads, {options.steps} steps, seed {options.seed}; load average {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
