"""Turning the fetched GGUF file into a model directory that can be trained: dequantised once, kept as safetensors."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lamdatui.base.errors import EXIT_FAILED, LamdatuiError
from lamdatui.catalogue.fetch import resolve

SMOLLM2 = "catalogue:smollm2-135m-gguf/SmolLM2-135M-Instruct.Q4_1.gguf"
SMOLLM2_LICENCE = "catalogue:smollm2-135m-gguf/LICENSE"
SMOLLM2_CONTEXT = 8192


def convert(source: Path, target: Path, context: int, say: Callable[[str], None]) -> None:
    """Write `source` (a .gguf file of at most a few hundred million parameters) as fp32 safetensors plus tokenizer.

    context: tokens the model was trained for; the tokenizer's own limit is lost in the GGUF file. Works offline.
    Raises LamdatuiError when the result has no chat template.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    say(f"reading {source.name}")
    tokenizer: Any = AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name, local_files_only=True)
    if not tokenizer.chat_template:
        raise LamdatuiError(f"{source.name} holds no chat template", where=str(source), exit_code=EXIT_FAILED)
    say("dequantising to fp32 (about 20 s on one core)")
    model: Any = AutoModelForCausalLM.from_pretrained(
        source.parent, gguf_file=source.name, dtype=torch.float32, local_files_only=True
    )
    # transformers refuses to save a model that it still takes for a GGUF-quantised one
    model.hf_quantizer = None
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.config.architectures = [type(model).__name__]
    model.generation_config = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        do_sample=False,
    )
    tokenizer.model_max_length = context
    say("writing safetensors")
    model.save_pretrained(target)
    tokenizer.save_pretrained(target)


def build_smollm2(target: Path, say: Callable[[str], None]) -> None:
    """The catalogue entry `smollm2-135m`: SmolLM2-135M-Instruct in fp32, 538 MB."""
    convert(resolve(SMOLLM2), target, SMOLLM2_CONTEXT, say)
    shutil.copyfile(resolve(SMOLLM2_LICENCE), target / "LICENSE")
