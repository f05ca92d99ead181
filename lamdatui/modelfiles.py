"""What a model directory says of itself, read without torch: config, safetensors headers, file hashes."""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from lamdatui.errors import LamdatuiError
from lamdatui.fingerprint import Say, hashes
from lamdatui.jsonio import digest, read_json

HEADER_BYTES = 100 * 1024 * 1024
"""Cap of a safetensors header, as in the safetensors library itself."""


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """`digest` covers weights, config and tokenizer; `layout` architecture, tensor shapes and vocabulary; `tokenizer` the last."""

    digest: str
    architecture: str
    layout: str
    parameters: int
    tokenizer: str


def tensor_shapes(file: Path) -> dict[str, list[int]]:
    """Name → shape from a safetensors header. Raises ValueError when the file is not whole safetensors."""
    size = file.stat().st_size
    with file.open("rb") as handle:
        head = handle.read(8)
        if len(head) < 8:
            raise ValueError("too short for safetensors")
        (length,) = struct.unpack("<Q", head)
        if length > min(HEADER_BYTES, size - 8):
            raise ValueError("not safetensors, or cut off")
        header: dict[str, Any] = json.loads(handle.read(length))
    header.pop("__metadata__", None)
    end = max((entry["data_offsets"][1] for entry in header.values()), default=0)
    if 8 + length + end != size:
        raise ValueError("its size is not what its header says")
    return {name: entry["shape"] for name, entry in header.items()}


def model_digest(path: Path, *, always: bool = False, say: Say | None = None) -> str:
    """The digest of a model directory as it is now; `always` and `say` as in `fingerprint.hashes`. Raises OSError."""
    return digest(_hashes(path, always, say))


def _hashes(path: Path, always: bool, say: Say | None) -> dict[str, str]:
    """Name → sha256 of what makes the model: config, weights, tokenizer, chat template."""
    tokenizer = sorted(p for p in path.glob("tokenizer*") if p.is_file()) + sorted(path.glob("*.jinja"))
    files = [path / "config.json", *sorted(path.glob("*.safetensors")), *tokenizer]
    return {file.name: found for file, found in hashes(files, always=always, say=say).items()}


def inspect_model(path: Path, *, always: bool = False, say: Say | None = None) -> ModelInfo:
    """Look at a Hugging Face model directory; `always` and `say` as in `fingerprint.hashes`.

    Raises LamdatuiError when it is not one, has no safetensors, or asks for its own code (`auto_map`).
    """
    try:
        config = read_json(path / "config.json")
    except (OSError, ValueError) as error:
        raise LamdatuiError("not a model directory: no readable config.json", where=str(path)) from error
    if "auto_map" in config:
        raise LamdatuiError("this model runs its own code (auto_map), which lamdatui never does", where=str(path))
    weights = sorted(path.glob("*.safetensors"))
    if not weights:
        raise LamdatuiError("no safetensors in the model directory", where=str(path), fix="convert the weights to safetensors")
    if not (path / "tokenizer.json").exists() and not (path / "tokenizer.model").exists():
        raise LamdatuiError("no tokenizer in the model directory", where=str(path))
    shapes: dict[str, list[int]] = {}
    for file in weights:
        try:
            shapes |= tensor_shapes(file)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise LamdatuiError(f"broken weights: {error}", where=str(file)) from error
    files = _hashes(path, always, say)
    vocabulary = {name: value for name, value in files.items() if name in ("tokenizer.json", "tokenizer.model")}
    return ModelInfo(
        digest=digest(files),
        architecture=str(config.get("model_type", "unknown")),
        layout=digest({"architecture": config.get("model_type"), "shapes": shapes, "vocabulary": vocabulary}),
        parameters=sum(prod(shape) for shape in shapes.values()),
        tokenizer=digest(vocabulary),
    )
