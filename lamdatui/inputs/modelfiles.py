"""What a model directory says of itself, read without torch: config, safetensors headers, file hashes."""

from __future__ import annotations

import stat
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from lamdatui.base.errors import LamdatuiError
from lamdatui.base.fingerprint import Say, hashes
from lamdatui.base.jsonio import digest, read_json, regular

SIZES = ("vocab_size", "hidden_size", "num_hidden_layers")
"""Fields of config.json that are whole numbers where they are given, whatever the architecture."""
INDEX = "model.safetensors.index.json"


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """`digest` covers weights, config and tokenizer; `layout` architecture, tensor shapes and vocabulary; `tokenizer` the last."""

    digest: str
    architecture: str
    layout: str
    parameters: int
    tokenizer: str


def tensor_shapes(file: Path) -> dict[str, list[int]]:
    """Name → shape from a safetensors header. Raises ValueError when the file is not whole safetensors, OSError.

    The library holds shapes, types and offsets against each other and against the file's size; no tensor is read.
    """
    # Brings NumPy, which listing models does without.
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(regular(file), framework="np") as handle:
            return {name: handle.get_slice(name).get_shape() for name in handle.keys()}  # noqa: SIM118 (not a mapping)
    except SafetensorError as error:
        raise ValueError(f"not safetensors, or cut off ({error})") from error


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
        _only_files(path)
        config = _config(path)
        shapes = _shapes(path)
        files = _hashes(path, always, say)
    except OSError as error:
        raise LamdatuiError(f"can't read the model: {error.strerror or error}", where=str(error.filename or path)) from error
    vocabulary = {name: value for name, value in files.items() if name in ("tokenizer.json", "tokenizer.model")}
    if not vocabulary:
        raise LamdatuiError("no tokenizer in the model directory", where=str(path))
    return ModelInfo(
        digest=digest(files),
        architecture=str(config.get("model_type", "unknown")),
        layout=digest({"architecture": config.get("model_type"), "shapes": shapes, "vocabulary": vocabulary}),
        parameters=sum(prod(shape) for shape in shapes.values()),
        tokenizer=digest(vocabulary),
    )


def _only_files(path: Path) -> None:
    """Raises OSError for a FIFO, a socket or a device: transformers opens what it finds, and would wait for ever."""
    for entry in path.iterdir():
        if entry.exists() and not (stat.S_ISDIR(entry.stat().st_mode)):
            regular(entry)


def _config(path: Path) -> dict[str, Any]:
    where = str(path / "config.json")
    try:
        config = read_json(path / "config.json")
    except (OSError, ValueError) as error:
        raise LamdatuiError(f"not a model directory: no readable config.json ({_why(error)})", where=where) from error
    if not isinstance(config, dict):
        raise LamdatuiError(f"config.json is an object, not {type(config).__name__}", where=where)
    if "auto_map" in config:
        raise LamdatuiError("this model runs its own code (auto_map), which lamdatui never does", where=str(path))
    if not isinstance(config.get("model_type", ""), str):
        raise LamdatuiError(f"model_type is text, not {type(config['model_type']).__name__}", where=where)
    for name in SIZES:
        size = config.get(name)
        if size is not None and (type(size) is not int or not 0 < size < 2**31):
            raise LamdatuiError(f"{name} is a whole number above 0", where=where)
    if (path / "adapter_config.json").exists():
        raise LamdatuiError(
            "there is an adapter in the model directory", where=str(path / "adapter_config.json"), fix="merge it into the model"
        )
    return config


def _weights(path: Path) -> list[Path]:
    return sorted(path.glob("*.safetensors"))


def _shapes(path: Path) -> dict[str, list[int]]:
    """Shapes of all weights, every file that the index names among them. Raises LamdatuiError."""
    weights = _weights(path)
    if not weights:
        raise LamdatuiError("no safetensors in the model directory", where=str(path), fix="convert the weights to safetensors")
    shapes: dict[str, list[int]] = {}
    for file in weights:
        try:
            shapes |= tensor_shapes(file)
        except (ValueError, OSError) as error:
            raise LamdatuiError(f"broken weights: {error}", where=str(file)) from error
    index = path / INDEX
    if index.exists():
        try:
            named = set(read_json(index)["weight_map"].values())
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise LamdatuiError(f"the index of the weights can't be read: {_why(error)}", where=str(index)) from error
        if missing := sorted(map(str, named - {file.name for file in weights})):
            raise LamdatuiError(f"{len(missing)} files of weights are missing", where=str(index), fix=f"add {missing[0]}")
    if not any(map(prod, shapes.values())):
        raise LamdatuiError("the weights hold no parameters", where=str(path))
    return shapes


def _why(error: Exception) -> str:
    return error.strerror or str(error) if isinstance(error, OSError) else str(error)
