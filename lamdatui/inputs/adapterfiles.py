"""A LoRA adapter's directory, held against the model that it stands on, without torch."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lamdatui.base.errors import LamdatuiError
from lamdatui.base.jsonio import read_json
from lamdatui.inputs.modelfiles import ADAPTER, Tensor, tensors

WEIGHTS = "adapter_model.safetensors"
_PART = re.compile(
    r"^base_model\.model\.(?P<module>.+?)\.(?P<part>lora_(?:A|B|embedding_A|embedding_B|magnitude_vector))(?:\.weight)?$"
)


def find_base(path: Path, named: str) -> Path:
    """The directory of an adapter's base: what the profile names, else what the adapter does, where that is here. Raises LamdatuiError."""
    told = named or str(_config(path).get("base_model_name_or_path") or "")
    places = (
        [Path(told)] if named else [Path(told), path / told, path.parent / told, path.parent / Path(told).name] if told else []
    )
    found = next((place for place in places if _is_model(place)), None)
    if found is None:
        raise LamdatuiError(
            f"this is a LoRA adapter of {told[:200] or 'a base that it does not name'}, which is not here",
            where=str(path / ADAPTER),
            fix="name the folder of its base in the profile, beside path: `base: FOLDER`",
        )
    return found.absolute()


def _is_model(place: Path) -> bool:
    try:
        return (place / "config.json").is_file()
    except OSError:  # a name that no file can have
        return False


def check_adapter(path: Path, weights: Mapping[str, Tensor]) -> None:
    """See that every part of the adapter fits a weight of its base. Raises LamdatuiError.

    PEFT passes over parts that fit nothing: the model would be the base, or half of the adapter.
    """
    config, where = _config(path), str(path / WEIGHTS)
    if config.get("peft_type") != "LORA":
        raise LamdatuiError(f"an adapter of the type {config.get('peft_type')}: only LoRA is taken", where=str(path / ADAPTER))
    try:
        parts = tensors(path / WEIGHTS)
    except (OSError, ValueError) as error:
        raise LamdatuiError(f"broken adapter: {error}", where=where, fix="save it again with save_pretrained") from error
    found = 0
    for name, tensor in parts.items():
        matched = _PART.match(name)
        if matched is None:
            # Whole modules that were trained beside the adapter (modules_to_save) have their own names.
            if not config.get("modules_to_save") and not config.get("trainable_token_indices"):
                raise LamdatuiError(f"the adapter holds {name}, which is no part of a LoRA adapter", where=where)
            continue
        found += 1
        base = weights.get(f"{matched['module']}.weight")
        if base is None:
            raise LamdatuiError(
                f"the adapter changes {matched['module']}, which its base does not have", where=where, fix="name the right base"
            )
        side = {"lora_A": (1, -1), "lora_B": (0, 0), "lora_embedding_A": (1, 0), "lora_embedding_B": (0, -1)}.get(
            matched["part"]
        )
        turned = bool(config.get("fan_in_fan_out"))
        if side and len(base.shape) == len(tensor.shape) and not turned and tensor.shape[side[0]] != base.shape[side[1]]:
            raise LamdatuiError(
                f"the adapter's {name} has the shape {list(tensor.shape)}, which does not fit its base", where=where
            )
    if not found:
        raise LamdatuiError("the adapter changes nothing: it holds no LoRA weights", where=where)


def _config(path: Path) -> dict[str, Any]:
    try:
        found = read_json(path / ADAPTER)
    except (OSError, ValueError) as error:
        raise LamdatuiError(f"the adapter's settings can't be read: {error}", where=str(path / ADAPTER)) from error
    if not isinstance(found, dict):
        raise LamdatuiError("the adapter's settings are an object", where=str(path / ADAPTER))
    return found
