"""Loading a step's models, their content compared with what was promised (`lamdatui.step.promises`)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from lamdatui.inputs.templates import read_template
from lamdatui.step.errors import StepError
from lamdatui.step.promises import weights_directory
from lamdatui.step.request import ModelReference
from lamdatui.store.artifacts import Store

# transformers decorates these classes in ways that a type checker takes for something else.
Model = Any

Tokenizer = Any


def check_finite(model: Any) -> None:
    """Raises StepError(nan) when a weight is NaN or infinite: such a model is never published."""
    check_tensors(model.named_parameters())


def check_tensors(tensors: Iterable[tuple[str, Any]]) -> None:
    """The same for tensors by their names."""
    for name, tensor in tensors:
        if not torch.isfinite(tensor.detach().sum(dtype=torch.float32)):
            raise StepError("nan", f"the weight {name} is not finite")


def positions(store: Store, reference: ModelReference) -> int:
    """Tokens that a model has positions for; very many where it does not say."""
    config = AutoConfig.from_pretrained(weights_directory(store, reference), local_files_only=True, trust_remote_code=False)
    return getattr(config.get_text_config(), "max_position_embeddings", None) or 2**31


def load_tokenizer(store: Store, reference: ModelReference) -> Tokenizer:
    """The tokenizer beside a model's full weights."""
    path = store.resolve(reference["weights"])
    with loading(path):
        tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=True, trust_remote_code=False)
    if template := reference.get("template"):
        tokenizer.chat_template = template
    if tokenizer.eos_token is None:
        # Some tokenizers leave it to generation_config.json.
        ends = sorted(read_template(path).ends)
        if not ends:
            raise StepError("model", f"{path} names no token that ends an answer; name eos_token in tokenizer_config.json")
        tokenizer.eos_token = tokenizer.convert_ids_to_tokens(ends[0])
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
        tokenizer.was_without_pad = True
    return tokenizer


def save_tokenizer(tokenizer: Tokenizer, directory: Path) -> None:
    """Write a tokenizer as it came: what trainers take for a padding token where there is none goes no further.

    Trainers that mask padding would never learn to end an answer with a model whose padding token is its end token.
    """
    pad = tokenizer.pad_token
    if getattr(tokenizer, "was_without_pad", False):
        tokenizer.pad_token = None
    try:
        tokenizer.save_pretrained(str(directory))
    finally:
        tokenizer.pad_token = pad


@contextmanager
def loading(path: Path) -> Iterator[None]:
    """Give what a library can't load the class of its fault. Raises StepError(model)."""
    try:
        yield
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ImportError, SafetensorError) as error:
        raise StepError("model", f"{path} can't be loaded: {f'{error}'.splitlines()[0][:300]}") from error


def _check_whole(info: Mapping[str, Any], path: Path) -> None:
    """Raises StepError(model) when weights are missing: transformers makes them up at random, other ones at each load."""
    lacking = sorted(map(str, [*info["missing_keys"], *(key for key, *_ in info["mismatched_keys"])]))
    if lacking:
        raise StepError(
            "model",
            f"{len(lacking)} weights are missing or have another shape than config.json says, the first: {lacking[0]} ({path}); "
            "save the model again with save_pretrained, or take another copy of it",
        )


def _check_base(model: Any, path: Path) -> None:
    """Raises StepError(model) when a weight of the profile's model is not finite: what is trained on it would be neither."""
    try:
        check_finite(model)
    except StepError as error:
        raise StepError("model", f"{error} ({path}): take another copy of the model") from error


def load_model(store: Store, reference: ModelReference, dtype: torch.dtype, device: torch.device) -> Model:
    """Full weights with each adapter merged in, in order. Raises as `lamdatui.step.promises.check_inputs` does."""
    from peft import PeftModel

    path = weights_directory(store, reference)
    with loading(path):
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            path, dtype=dtype, local_files_only=True, trust_remote_code=False, use_safetensors=True, output_loading_info=True
        )
    model: Model = loaded[0]
    _check_whole(loaded[1], path)
    if reference["digest"]:
        _check_base(model, path)
    adapters: Sequence[str] = reference["adapters"]
    for adapter in adapters:
        place = store.resolve(adapter)
        with loading(place):
            model = PeftModel.from_pretrained(model, place).merge_and_unload()
    # PEFT leaves weights frozen that an adapter was merged into.
    return model.requires_grad_(True).to(device)


def load_quantized(folder: Path, dtype: torch.dtype, device: torch.device) -> Model:
    """Full weights in 4 bits (NF4), computed with in `dtype`."""
    from transformers import BitsAndBytesConfig

    quantized = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )
    return AutoModelForCausalLM.from_pretrained(
        folder,
        quantization_config=quantized,
        device_map={"": device},
        dtype=dtype,
        local_files_only=True,
        trust_remote_code=False,
        use_safetensors=True,
    )
