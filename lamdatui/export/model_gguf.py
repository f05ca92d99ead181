"""A Hugging Face model directory as a GGUF file for llama.cpp and what stands on it (Ollama, LM Studio): f16, Q8_0 or Q4_K_M.

Names, shapes and metadata are those of the package `gguf`; the numbers are quantised by llama.cpp's own code, in the planner's package. One tensor
is in memory at a time. Which tensors get more bits in Q4_K_M, and what takes the place of a block of 256 where rows are no multiple of it,
is as llama.cpp's `llama-quantize` has it.
"""

from __future__ import annotations

import ctypes
import importlib
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lamdatui.base.errors import EXIT_FAILED, LamdatuiError
from lamdatui.base.jsonio import read_json
from lamdatui.catalogue.lora_gguf import rotary_rows

if TYPE_CHECKING:
    from numpy.typing import NDArray

FAMILIES = {"llama": "LLAMA", "mistral": "LLAMA", "qwen2": "QWEN2", "qwen3": "QWEN3"}
"""`model_type` of a config.json → the architecture's name in the package `gguf`."""
FORMS = ("f16", "q8_0", "q4_k_m")
FILE_TYPES = {"f16": "MOSTLY_F16", "q8_0": "MOSTLY_Q8_0", "q4_k_m": "MOSTLY_Q4_K_M"}
COARSER = {"Q4_K": "Q5_0", "Q6_K": "Q8_0"}
"""What llama.cpp takes where a row is no multiple of 256 numbers."""
SUPER_BLOCK, BLOCK = 256, 32
NORMAL, CONTROL, USER_DEFINED, UNUSED = 1, 3, 4, 5
"""Kinds of tokens in a GGUF file."""


def family(folder: Path) -> str:
    """The architecture of a model directory in GGUF. Raises LamdatuiError with what can be converted."""
    config = read_json(folder / "config.json")
    kind = str(config.get("model_type"))
    if kind not in FAMILIES:
        raise LamdatuiError(
            f"a model of type {kind} can't be written as GGUF", where=str(folder), fix=f"these can: {', '.join(FAMILIES)}"
        )
    _rope(config)
    _pre_tokenizer(folder)
    return FAMILIES[kind]


def write_gguf(folder: Path, target: Path, form: str, name: str) -> None:
    """Write the model in `folder` as `target`. `form`: one of `FORMS`. Raises LamdatuiError for what has no place in a GGUF."""
    import gguf

    config = read_json(folder / "config.json")
    arch = gguf.MODEL_ARCH[family(folder)]
    writer = gguf.GGUFWriter(target, gguf.MODEL_ARCH_NAMES[arch])
    try:
        writer.add_name(name)
        writer.add_file_type(gguf.LlamaFileType[FILE_TYPES[form]])
        _add_sizes(writer, config)
        rows = _add_tokens(writer, folder)
        names = gguf.get_tensor_name_map(arch, config["num_hidden_layers"])
        todo = [(*each, *_named(each[0], names, folder)) for each in _headers(folder)]
        known = {short for *_, short, _ in todo}
        kinds = [_kind(short, shape, form, config, tied="output" not in known) for _, shape, short, _ in todo]
        extra = _rope_factors(config)
        for (_, shape, short, suffix), kind in zip(todo, kinds, strict=True):
            _announce(writer, short + suffix, shape, kind)
            if short == "token_embd" and shape[0] != rows:
                raise LamdatuiError(f"the tokenizer has {rows} tokens, the model {shape[0]} rows", where=str(folder))
        if extra is not None:
            writer.add_tensor_info("rope_freqs.weight", extra.shape, extra.dtype, extra.nbytes)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for (source, shape, short, _), kind in zip(todo, kinds, strict=True):
            values = _ordered(_read(folder, source), short, config, arch == gguf.MODEL_ARCH.LLAMA)
            writer.write_tensor_data(_quantised(values.reshape(shape), kind))
        if extra is not None:
            writer.write_tensor_data(extra)
    finally:
        writer.close()


# --- metadata --------------------------------------------------------------------------------------------------------


def _add_sizes(writer: Any, config: Mapping[str, Any]) -> None:
    heads = int(config["num_attention_heads"])
    width = int(config.get("head_dim") or config["hidden_size"] // heads)
    writer.add_context_length(int(config["max_position_embeddings"]))
    writer.add_embedding_length(int(config["hidden_size"]))
    writer.add_block_count(int(config["num_hidden_layers"]))
    writer.add_feed_forward_length(int(config["intermediate_size"]))
    writer.add_head_count(heads)
    writer.add_head_count_kv(int(config.get("num_key_value_heads") or heads))
    writer.add_layer_norm_rms_eps(float(config["rms_norm_eps"]))
    writer.add_rope_dimension_count(width)
    writer.add_key_length(width)
    writer.add_value_length(width)
    writer.add_vocab_size(int(config["vocab_size"]))
    rope = _rope(config)
    writer.add_rope_freq_base(float(rope["rope_theta"]))
    if rope["rope_type"] == "linear":
        import gguf

        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(float(rope["factor"]))


def _rope(config: Mapping[str, Any]) -> dict[str, Any]:
    """How positions are told, with `rope_theta` and `rope_type`. Raises LamdatuiError for a kind that has no place here."""
    told = dict(config.get("rope_parameters") or config.get("rope_scaling") or {})
    told = {"rope_theta": config.get("rope_theta", 10000.0), **told}
    told["rope_type"] = kind = str(told.get("rope_type") or told.get("type") or "default")
    if kind not in ("default", "linear", "llama3"):
        raise LamdatuiError(f"its positions are scaled by {kind}, which can't be written as GGUF")
    return told


def _rope_factors(config: Mapping[str, Any]) -> NDArray[np.float32] | None:
    """Llama 3's scaling as a factor for each frequency (width / 2,), where the model has it: long waves are stretched, short ones left."""
    rope = _rope(config)
    if rope["rope_type"] != "llama3":
        return None
    width = int(config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"])
    waves = 2 * math.pi * float(rope["rope_theta"]) ** (np.arange(0, width, 2, dtype=np.float64) / width)
    low, high, factor = (float(rope[name]) for name in ("low_freq_factor", "high_freq_factor", "factor"))
    smooth = np.clip((rope["original_max_position_embeddings"] / waves - low) / (high - low), 0.0, 1.0)
    return (1 / ((1 - smooth) / factor + smooth)).astype(np.float32)


def _pre_tokenizer(folder: Path) -> str:
    """llama.cpp's name of how a byte-level BPE tokenizer cuts texts into words. Raises LamdatuiError for any other tokenizer."""
    path = folder / "tokenizer.json"
    told = read_json(path) if path.is_file() else {}
    before = told.get("pre_tokenizer") or {}
    parts = before.get("pretokenizers") or [before]
    kinds = [part.get("type") for part in parts]
    regex = next((str((part.get("pattern") or {}).get("Regex")) for part in parts if part.get("type") == "Split"), "")
    if (told.get("model") or {}).get("type") == "BPE" and "ByteLevel" in kinds:
        if "(?i:'s" in regex:
            return "llama-bpe" if r"\p{N}{1,3}" in regex else "qwen2"
        if kinds == ["Digits", "ByteLevel"] and parts[0].get("individual_digits"):
            return "smollm"
        if kinds == ["ByteLevel"]:
            return "gpt-2"
    raise LamdatuiError(
        "its tokenizer can't be written as GGUF", where=str(path), fix="byte-level BPE as of Llama 3, Qwen, SmolLM or GPT-2 can"
    )


def _add_tokens(writer: Any, folder: Path) -> int:
    """The tokenizer's part; how many tokens there are, rows of the model that no token has included."""
    import gguf
    from transformers import AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    count = int(read_json(folder / "config.json")["vocab_size"])
    words, kinds = [f"[PAD{place}]" for place in range(count)], [UNUSED] * count
    added = tokenizer.added_tokens_decoder
    for word, place in tokenizer.get_vocab().items():
        if place < count:
            words[place], kinds[place] = word, NORMAL
            if place in added:
                kinds[place] = CONTROL if added[place].special else USER_DEFINED
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(_pre_tokenizer(folder))
    writer.add_token_list(words)
    writer.add_token_types(kinds)
    special = gguf.SpecialVocab(folder, load_merges=True, n_vocab=count)
    special.chat_template = tokenizer.chat_template if isinstance(tokenizer.chat_template, str) else None
    begins = tokenizer("a")["input_ids"][:1] == [tokenizer.bos_token_id]
    special.add_special_token = {**special.add_special_token, "bos": begins}
    special.add_to_gguf(writer, quiet=True)
    return count


# --- tensors ---------------------------------------------------------------------------------------------------------


def _files(folder: Path) -> Iterator[Any]:
    from safetensors import safe_open

    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as handle:
            yield handle


def _headers(folder: Path) -> Iterator[tuple[str, tuple[int, ...]]]:
    for handle in _files(folder):
        for name in handle.keys():  # noqa: SIM118 (a safetensors handle is no mapping)
            yield name, tuple(handle.get_slice(name).get_shape())


def _read(folder: Path, name: str) -> NDArray[np.float32]:
    for handle in _files(folder):
        if name in handle.keys():  # noqa: SIM118
            return handle.get_tensor(name).float().numpy()
    raise KeyError(name)


def _named(name: str, names: Any, folder: Path) -> tuple[str, str]:
    """(name of a tensor in GGUF, `.weight` or `.bias`). Raises LamdatuiError for one that has no place."""
    suffix = next((end for end in (".weight", ".bias") if name.endswith(end)), "")
    short = names.get_name(name.removesuffix(suffix))
    if short is None or not suffix:
        raise LamdatuiError(f"the weight {name} has no place in a GGUF of this architecture", where=str(folder))
    return short, suffix


def _ordered(values: NDArray[np.float32], short: str, config: Mapping[str, Any], rotates_pairs: bool) -> NDArray[np.float32]:
    """Query and key rows of a llama in llama.cpp's order of rotation."""
    if not rotates_pairs or not short.endswith(("attn_q", "attn_k")):
        return values
    heads = int(config["num_attention_heads"])
    if short.endswith("attn_k"):
        heads = int(config.get("num_key_value_heads") or heads)
    return rotary_rows(values, heads)


def _kind(short: str, shape: tuple[int, ...], form: str, config: Mapping[str, Any], *, tied: bool) -> str:
    """The type in which a tensor is stored."""
    if len(shape) < 2:
        return "F32"
    if form == "f16":
        return "F16"
    kind = "Q8_0" if form == "q8_0" else _mixed(short, int(config["num_hidden_layers"]), tied=tied)
    if kind in COARSER and shape[-1] % SUPER_BLOCK:
        kind = COARSER[kind]
    return kind if shape[-1] % BLOCK == 0 else "F16"


def _mixed(short: str, layers: int, *, tied: bool) -> str:
    """Q4_K_M: more bits for what is looked up or summed up most, and in the first, the last, and every third layer between."""
    if short == "output" or (short == "token_embd" and tied):
        return "Q6_K"
    if short.endswith(("attn_v", "ffn_down")):
        layer = int(short.split(".")[1])
        if layer < layers // 8 or layer >= 7 * layers // 8 or (layer - layers // 8) % 3 == 2:
            return "Q6_K"
    return "Q4_K"


def _announce(writer: Any, name: str, shape: tuple[int, ...], kind: str) -> None:
    import gguf

    if kind in ("F32", "F16"):
        dtype = np.dtype(np.float32 if kind == "F32" else np.float16)
        writer.add_tensor_info(name, shape, dtype, math.prod(shape) * dtype.itemsize)
        return
    block, size = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[kind]]
    row = shape[-1] // block * size
    raw = gguf.GGMLQuantizationType[kind]
    writer.add_tensor_info(name, (*shape[:-1], row), np.dtype(np.uint8), math.prod(shape[:-1]) * row, raw_dtype=raw)


def _quantised(values: NDArray[np.float32], kind: str) -> NDArray[Any]:
    import gguf

    if kind in ("F32", "F16"):
        return values.astype(np.float32 if kind == "F32" else np.float16)
    wanted = gguf.GGMLQuantizationType[kind]
    block, size = gguf.GGML_QUANT_SIZES[wanted]
    rows, columns = values.shape
    source = np.ascontiguousarray(values, dtype=np.float32)
    made = np.empty((rows, columns // block * size), dtype=np.uint8)
    pointer = ctypes.POINTER(ctypes.c_float)
    written = _quantize_chunk()(
        int(wanted), source.ctypes.data_as(pointer), made.ctypes.data_as(ctypes.c_void_p), 0, rows, columns, None
    )
    if written != made.nbytes:
        raise LamdatuiError(f"llama.cpp wrote {written} bytes in place of {made.nbytes}", exit_code=EXIT_FAILED)
    return made


def _quantize_chunk() -> Any:
    """llama.cpp's function (type, source, target, first row, rows, numbers a row, importance) → bytes. Raises LamdatuiError where it is not to be had."""
    module = importlib.import_module("xllamacpp.xllamacpp")
    try:
        found = ctypes.CDLL(str(module.__file__)).ggml_quantize_chunk
    except (AttributeError, OSError) as error:
        raise LamdatuiError("this build of xllamacpp does not give its quantisation", fix="take --gguf f16") from error
    long = ctypes.c_int64
    found.argtypes = [ctypes.c_int, ctypes.POINTER(ctypes.c_float), ctypes.c_void_p, long, long, long, ctypes.c_void_p]
    found.restype = ctypes.c_size_t
    return found
