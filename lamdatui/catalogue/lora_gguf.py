"""A PEFT LoRA adapter as the GGUF file that llama.cpp applies to a model, for the llama architecture.

The format is llama.cpp's: a tensor `NAME.lora_a` of shape [rank, in] and `NAME.lora_b` of shape [out, rank] for each adapted weight, and
the metadata `adapter.type` and `adapter.lora.alpha`. Rows of the query and key projections are in llama.cpp's rotary order.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lamdatui.base.errors import LamdatuiError
from lamdatui.base.jsonio import read_json

if TYPE_CHECKING:
    from numpy.typing import NDArray

ARCHITECTURE = "llama"
NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
"""Module of a Hugging Face llama → its tensor in a GGUF."""
PREFIX = "base_model.model.model.layers."


def write_lora(adapter: Path, config: Path, target: Path) -> int:
    """Convert the PEFT adapter in the directory `adapter`; the number of tensors written.

    `config` is the base model's `config.json`: its heads decide the order of rows. Raises LamdatuiError for anything but a plain LoRA
    over the layers of a llama model.
    """
    import gguf
    from safetensors.numpy import load_file

    settings, base = read_json(adapter / "adapter_config.json"), read_json(config)
    if base.get("model_type") != ARCHITECTURE:
        raise LamdatuiError(
            f"only adapters of llama models can be converted, not of {base.get('model_type')}", where=str(config)
        )
    if settings.get("peft_type") != "LORA" or settings.get("use_dora") or settings.get("use_rslora"):
        raise LamdatuiError("only a plain LoRA can be converted", where=str(adapter), fix="train with method lora")
    heads, pairs = base["num_attention_heads"], base.get("num_key_value_heads") or base["num_attention_heads"]
    writer = gguf.GGUFWriter(target, ARCHITECTURE)
    writer.add_type("adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", float(settings["lora_alpha"]))
    count = 0
    for name, tensor in sorted(load_file(adapter / "adapter_model.safetensors").items()):
        layer, module, side = _parts(name)
        values = tensor.astype(np.float32)
        if side == "b" and module in ("self_attn.q_proj", "self_attn.k_proj"):
            values = rotary_rows(values, heads if module.endswith("q_proj") else pairs)
        writer.add_tensor(f"blk.{layer}.{NAMES[module]}.weight.lora_{side}", values.astype(np.float16))
        count += 1
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return count


def _parts(name: str) -> tuple[int, str, str]:
    """(layer, module, `a` or `b`) of a PEFT tensor's name. Raises LamdatuiError for what has no place in a llama's layers."""
    words = name.removeprefix(PREFIX).split(".")
    layer, module, side = words[0], ".".join(words[1:3]), words[3] if len(words) > 3 else ""
    if not name.startswith(PREFIX) or not layer.isdecimal() or module not in NAMES or side not in ("lora_A", "lora_B"):
        raise LamdatuiError(f"the adapter has a tensor {name} that llama.cpp has no place for")
    return int(layer), module, side[-1].lower()


def rotary_rows(values: NDArray[np.float32], heads: int) -> NDArray[np.float32]:
    """Rows [heads × 2 × half, …] in the order of llama.cpp's rotary embedding: pairs beside each other instead of halves."""
    rows = values.reshape(heads, 2, values.shape[0] // heads // 2, *values.shape[1:])
    return rows.swapaxes(1, 2).reshape(values.shape)
