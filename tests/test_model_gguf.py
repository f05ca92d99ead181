"""Models in GGUF: llama.cpp gives what transformers gives, for each family, in each form."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import gguf
import httpx
import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, MistralConfig, Qwen2Config, Qwen3Config

from lamdatui.base.errors import LamdatuiError
from lamdatui.export.gguf_files import modelfile, parse_forms, served
from lamdatui.export.model_gguf import _mixed, _rope_factors, family, write_gguf
from lamdatui.step.generate import Sampling, answers
from tests.conftest import REAL_CATALOGUE

SMOLLM2 = REAL_CATALOGUE / "smollm2-135m"
pytestmark = pytest.mark.skipif(not SMOLLM2.exists(), reason="smollm2-135m was not built")
PROMPT = "The capital of France is Paris. 12 apples, and what the river said to the"
SIZES: dict[str, Any] = {
    **{"vocab_size": 49152, "hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 2, "num_attention_heads": 4},
    **{
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
        "initializer_range": 0.1,
        "bos_token_id": 1,
        "eos_token_id": 2,
    },
}
LLAMA3 = {
    **{"rope_type": "llama3", "rope_theta": 500000.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0},
    "original_max_position_embeddings": 64,
}
MODELS = {
    "llama": lambda: LlamaConfig(**SIZES, tie_word_embeddings=True),
    "llama with biases": lambda: LlamaConfig(**SIZES, attention_bias=True, tie_word_embeddings=False),
    "llama 3": lambda: LlamaConfig(**SIZES, rope_parameters=LLAMA3),
    "mistral": lambda: MistralConfig(**SIZES, sliding_window=None, head_dim=32),
    "qwen2": lambda: Qwen2Config(**SIZES),
    "qwen3": lambda: Qwen3Config(**SIZES, head_dim=32),
}


def made(folder: Path, config: Any) -> Any:
    """A random model of a configuration, saved with SmolLM2's tokenizer."""
    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.endswith("bias"):
                weight.normal_(0, 0.3)
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(SMOLLM2).save_pretrained(folder)
    return model


def logits(path: Path) -> dict[int, float]:
    """The likeliest next tokens after the prompt with their log-probabilities, as llama.cpp gives them."""
    command = [sys.executable, "-m", "lamdatui.planner.llamacpp", "--model", str(path), "--context", "512"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None and process.stdin is not None
        ready = json.loads(process.stdout.readline())
        headers = {"Authorization": f"Bearer {ready['key']}"}
        body = {"prompt": PROMPT, "n_predict": 1, "temperature": 0, "n_probs": 20}
        answer = httpx.post(f"{ready['url']}/completion", json=body, headers=headers, timeout=60).json()
        process.stdin.close()
        process.wait(20)
    return {one["id"]: one["logprob"] for one in answer["completion_probabilities"][0]["top_logprobs"]}


def expected(model: Any) -> torch.Tensor:
    ids = AutoTokenizer.from_pretrained(SMOLLM2)(PROMPT, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        return model(ids).logits[0, -1].log_softmax(-1)


@pytest.mark.parametrize("name", MODELS)
def test_llama_cpp_gives_what_transformers_gives(name: str, tmp_path: Path) -> None:
    model = made(tmp_path, MODELS[name]())
    write_gguf(tmp_path, tmp_path / "m.gguf", "f16", "test")
    wanted, found = expected(model), logits(tmp_path / "m.gguf")
    assert max(found, key=lambda token: found[token]) == int(wanted.argmax())
    assert max(abs(found[token] - float(wanted[token])) for token in found) < 0.05


@pytest.mark.parametrize(("form", "most"), [("q8_0", 0.25), ("q4_k_m", 2.0)])
def test_fewer_bits_stay_near(form: str, most: float, tmp_path: Path) -> None:
    model = made(tmp_path, MODELS["qwen3"]())
    write_gguf(tmp_path, tmp_path / "m.gguf", form, "test")
    wanted, found = expected(model), logits(tmp_path / "m.gguf")
    assert max(abs(found[token] - float(wanted[token])) for token in found) < most
    tensors = {one.name: one.tensor_type.name for one in gguf.GGUFReader(tmp_path / "m.gguf").tensors}
    wanted_type = {"q8_0": "Q8_0", "q4_k_m": "Q4_K"}[form]
    assert tensors["blk.0.attn_q.weight"] == wanted_type and tensors["blk.0.attn_norm.weight"] == "F32"


def test_more_bits_go_where_llama_quantize_puts_them() -> None:
    assert [layer for layer in range(30) if _mixed(f"blk.{layer}.ffn_down", 30, tied=False) == "Q6_K"] == [
        *(0, 1, 2, 5, 8, 11, 14, 17, 20, 23),
        *(26, 27, 28, 29),
    ]
    assert _mixed("token_embd", 30, tied=True) == "Q6_K" and _mixed("token_embd", 30, tied=False) == "Q4_K"


def test_what_has_no_place_in_a_gguf_is_refused(tmp_path: Path, lab: Path) -> None:
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(SMOLLM2 / file, tmp_path / file)
    config = {**SIZES, "model_type": "llama", "rms_norm_eps": 1e-5}

    def refused(**changes: Any) -> str:
        (tmp_path / "config.json").write_text(json.dumps({**config, **changes}))
        with pytest.raises(LamdatuiError) as error:
            family(tmp_path)
        return str(error.value)

    assert "type mamba" in refused(model_type="mamba")
    assert "yarn" in refused(rope_scaling={"type": "yarn", "factor": 2.0})
    shutil.copyfile(lab / "llama" / "tokenizer.json", tmp_path / "tokenizer.json")
    assert "tokenizer" in refused()
    with pytest.raises(LamdatuiError, match="q5"):
        parse_forms("q8_0,q5")
    with pytest.raises(LamdatuiError):
        parse_forms(",")
    assert parse_forms("Q8_0, f16") == ["q8_0", "f16"]


def test_long_waves_are_stretched_as_llama_3_has_it() -> None:
    factors = _rope_factors({**SIZES, "rope_parameters": LLAMA3})
    assert factors is not None and factors[0] == 1.0 and np.isclose(factors[-1], 8.0)
    assert _rope_factors(SIZES) is None


def test_a_modelfile_names_the_file_and_its_turns(tmp_path: Path) -> None:
    AutoTokenizer.from_pretrained(SMOLLM2).save_pretrained(tmp_path)
    told = modelfile(tmp_path, "m.q8_0.gguf")
    assert told.startswith("FROM ./m.q8_0.gguf\n") and "<|im_end|>" in told


def test_answers_of_llama_cpp_are_those_of_transformers(tmp_path: Path) -> None:
    model, tokenizer = made(tmp_path, MODELS["llama"]()), AutoTokenizer.from_pretrained(SMOLLM2)
    write_gguf(tmp_path, tmp_path / "m.gguf", "f16", "test")
    asked = [[{"role": "user", "content": text}] for text in ("What is rain?", "Ein Wort, bitte: é, 漢字.", "1234 + 5")]
    seen: list[int] = []
    with served(tmp_path / "m.gguf", 512) as generator:
        generator.tokenizer, generator.ends = tokenizer, {tokenizer.eos_token_id}
        found = generator.answers(asked, Sampling(6), progress=seen.append)
        assert generator.otherwise == 0, "llama.cpp reads the texts as other tokens"
    wanted = answers(model, tokenizer, asked, Sampling(6), batch_tokens=4096)
    assert found == wanted and seen == [1, 2, 3]


def test_a_file_that_llama_cpp_does_not_take_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(b"GGUF, but not one")
    with pytest.raises(LamdatuiError, match="does not take"), served(tmp_path / "m.gguf", 512):
        pass
