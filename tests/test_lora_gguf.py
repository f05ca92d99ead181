"""A LoRA adapter in GGUF: llama.cpp with it gives what the trained model gives."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import httpx
import numpy as np
import pytest

from lamdatui.base.errors import LamdatuiError
from lamdatui.catalogue.lora_gguf import rotary_rows, write_lora
from tests.conftest import REAL_CATALOGUE

LOWEST = -12.0
"""Log-probability of what is not among the likeliest tokens."""
PROMPT = "The capital of France is"


def test_rows_go_from_halves_to_pairs():
    values = np.arange(8, dtype=np.float32).reshape(8, 1)
    assert rotary_rows(values, 2).ravel().tolist() == [0, 2, 1, 3, 4, 6, 5, 7]


def test_only_a_plain_lora_of_a_llama_is_converted(tmp_path: Path):
    (tmp_path / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 2, "lora_alpha": 2, "use_dora": True}))
    config = tmp_path / "config.json"
    config.write_text(json.dumps({"model_type": "phi", "num_attention_heads": 4}))
    with pytest.raises(LamdatuiError, match="not of phi"):
        write_lora(tmp_path, config, tmp_path / "x.gguf")
    config.write_text(json.dumps({"model_type": "llama", "num_attention_heads": 4}))
    with pytest.raises(LamdatuiError, match="plain LoRA"):
        write_lora(tmp_path, config, tmp_path / "x.gguf")


def served(gguf: Path, adapter: Path | None) -> dict[str, float]:
    """The likeliest next tokens with their log-probabilities, as llama.cpp gives them."""
    command = [sys.executable, "-m", "lamdatui.planner.llamacpp", "--model", str(gguf), "--context", "512"]
    command += ["--adapter", str(adapter)] if adapter else []
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None and process.stdin is not None
        ready = json.loads(process.stdout.readline())
        body = {"prompt": PROMPT, "max_tokens": 1, "temperature": 0, "logprobs": 20}
        headers = {"Authorization": f"Bearer {ready['key']}"}
        answer = httpx.post(f"{ready['url']}/v1/completions", json=body, headers=headers, timeout=60).json()
        process.stdin.close()
        process.wait(20)
    [token] = answer["choices"][0]["logprobs"]["content"][:1]
    return {each["token"]: each["logprob"] for each in token["top_logprobs"]}


def test_llama_cpp_with_the_adapter_says_what_the_trained_model_says(gguf: Path, tmp_path: Path):
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = REAL_CATALOGUE / "smollm2-135m"
    torch.set_num_threads(1)
    torch.manual_seed(3)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    config = LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", init_lora_weights=False)
    adapted = get_peft_model(model, config)
    with torch.no_grad():
        for name, weight in adapted.named_parameters():
            if "lora_" in name:
                # Query and key the most: in the wrong order of rows they would say something else altogether.
                weight.normal_(0, 0.12 if "q_proj" in name or "k_proj" in name else 0.02)
    adapted.save_pretrained(tmp_path)
    count = write_lora(tmp_path, folder / "config.json", tmp_path / "adapter.gguf")
    assert count == 30 * 7 * 2

    with torch.no_grad():
        logits = adapted(**tokenizer(PROMPT, return_tensors="pt")).logits[0, -1]
    wanted = logits.log_softmax(-1)
    plain, ours = served(gguf, None), served(gguf, tmp_path / "adapter.gguf")
    vocabulary = {tokenizer.decode([index]): index for index in wanted.topk(200).indices.tolist()}
    shared = [token for token in ours if token in vocabulary]
    assert len(shared) >= 10
    apart = np.mean([abs(ours[token] - float(wanted[vocabulary[token]])) for token in shared[:8]])
    moved = np.mean([abs(ours[token] - plain.get(token, LOWEST)) for token in shared[:8]])
    # The file's weights are 4-bit on both sides, but llama.cpp also rounds activations.
    assert apart < 0.4
    assert moved > 3 * apart
