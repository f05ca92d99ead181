"""What a model directory says of itself, read without torch: config, safetensors headers, file hashes."""

from __future__ import annotations

import importlib.util
import re
import stat
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from math import prod
from pathlib import Path
from typing import Any

from lamdatui.base.errors import LamdatuiError
from lamdatui.base.fingerprint import Say, hashes
from lamdatui.base.jsonio import digest, read_json, regular
from lamdatui.base.output import json_text
from lamdatui.domain.objects import ROWS
from lamdatui.inputs.templates import end_tokens, read_object

_LAYER = re.compile(r"\.(?:layers|h|blocks)\.([0-9]{1,9})\.")
SIZES = ("vocab_size", "hidden_size", "num_hidden_layers")
"""Fields of config.json that are whole numbers where they are given, whatever the architecture."""
PAIR = ("vocab.json", "merges.txt")
"""A vocabulary and its merges in files of their own, where there is no tokenizer.json (GPT-2, older Qwen)."""
VOCABULARIES = ("tokenizer.json", "tokenizer.model", *PAIR)
WRAPPERS = ("_orig_mod.", "module.", "base_model.model.", "_forward_module.", "_fsdp_wrapped_module.")
"""What programs that trained a model have put before the names of its weights."""
QUANTISED = frozenset(("F8_E4M3", "F8_E5M2", "F4", "I8", "U8"))
"""Types of weights that only mean something with their scales."""
EMBEDDINGS = (".embed_tokens.weight", ".wte.weight", ".word_embeddings.weight", ".embed_in.weight")
"""How the names of the weights end that tokens are looked up in."""
HEADS = ("lm_head.weight", "embed_out.weight")
"""And those that tell how likely each token is, unless the embeddings do that, too."""
ATTENTION = ("num_attention_heads", "num_key_value_heads", "head_dim")
"""Of config.json: how the rows of attention weights are read. Two models may differ in it by nothing else."""
ADAPTER = "adapter_config.json"
FULL = "take the model in bf16, fp16 or fp32; a step with method: qlora quantises it by itself"
SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
GENERATION = "generation_config.json"


@dataclass(frozen=True, slots=True)
class ModelKind:
    """What of a model says which others it can meet; see `lamdatui.domain.objects.ModelObject` for `layout`, `tokenizer` and `traits`."""

    architecture: str
    layout: str
    parameters: int
    tokenizer: str
    traits: str
    sizes: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ModelInfo(ModelKind):
    """`digest` covers weights, config, tokenizer, templates and generation settings. `older` is the digest that the first versions gave, which
    covers no generation settings; empty where they would have refused the model."""

    digest: str
    older: str


@dataclass(frozen=True, slots=True)
class Tensor:
    """What a header says of a weight; `kind` is safetensors' name of its type."""

    shape: tuple[int, ...]
    kind: str


def tensors(file: Path) -> dict[str, Tensor]:
    """By name, from a safetensors header. Raises ValueError when the file is not whole safetensors, OSError.

    The library holds shapes, types and offsets against each other and against the file's size; no tensor is read.
    """
    # Brings NumPy, which listing models does without.
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(regular(file), framework="np") as handle:
            found = {name: handle.get_slice(name) for name in handle.keys()}  # noqa: SIM118 (not a mapping)
            return {name: Tensor(tuple(part.get_shape()), str(part.get_dtype())) for name, part in found.items()}
    except SafetensorError as error:
        raise ValueError(f"not safetensors, or cut off ({error})") from error


def tensor_shapes(file: Path) -> dict[str, list[int]]:
    """The shapes of `tensors`. Raises as that does."""
    return {name: list(tensor.shape) for name, tensor in tensors(file).items()}


def model_digests(
    path: Path, *, adapter: Path | None = None, template: str = "", always: bool = False, say: Say | None = None
) -> tuple[str, str]:
    """`ModelInfo.digest` and `ModelInfo.older` of a model directory as it is now, with an adapter on it, and with a template in place of its own.

    `always` and `say` as in `fingerprint.hashes`. Raises OSError.
    """
    return _digests(*_hashes(path, always, say), adapter, template, always)


def _digests(
    files: Mapping[str, str], later: Mapping[str, str], adapter: Path | None, template: str, always: bool
) -> tuple[str, str]:
    more = {"template": digest(template)} if template else {}
    if adapter is not None:
        parts = [adapter / ADAPTER, *sorted(adapter.glob("*.safetensors"))]
        more |= {f"adapter/{file.name}": found for file, found in hashes(parts, always=always).items()}
    older = "" if more else digest(files)
    return digest({**files, **later, **more}), older


def is_model(path: Path, promised: str, *, adapter: Path | None = None, template: str = "", always: bool = False) -> bool:
    """Whether a directory holds what was promised, under either digest. Raises OSError."""
    return promised in model_digests(path, adapter=adapter, template=template, always=always)


def _hashes(path: Path, always: bool, say: Say | None) -> tuple[dict[str, str], dict[str, str]]:
    """Name → sha256 of what makes the model: config, weights, tokenizer, chat template; and of what older digests do not cover."""
    tokenizer = sorted(p for p in path.glob("tokenizer*") if p.is_file()) + sorted(path.glob("*.jinja"))
    # Older digests know none of a pair: such a model was refused.
    pair = [path / name for name in PAIR if not tokenizer_file(path) and (path / name).is_file()]
    files = [path / "config.json", *sorted(path.glob("*.safetensors")), *tokenizer, *pair]
    later = [file for file in (path / GENERATION,) if file.is_file()]
    later += sorted((path / "additional_chat_templates").glob("*.jinja"))
    found = hashes([*files, *later], always=always, say=say)
    return {file.name: found[file] for file in files}, {file.name: found[file] for file in later}


def tokenizer_file(path: Path) -> Path | None:
    """The file that holds the whole tokenizer of a model directory, if there is one."""
    return next((path / name for name in ("tokenizer.json", "tokenizer.model") if (path / name).is_file()), None)


def inspect_model(
    path: Path, *, adapter: Path | None = None, template: str = "", always: bool = False, say: Say | None = None
) -> ModelInfo:
    """Look at a Hugging Face model directory; the arguments are those of `model_digests`.

    Raises LamdatuiError when it is not one, has no safetensors, or asks for its own code (`auto_map`).
    """
    try:
        _only_files(path)
        config = _config(path)
        weights = read_tensors(path)
        _check_names(path, weights, config)
        files, later = _hashes(path, always, say)
        now, older = _digests(files, later, adapter, template, always)
    except OSError as error:
        raise LamdatuiError(f"can't read the model: {error.strerror or error}", where=str(error.filename or path)) from error
    kind = _kind(path, config, weights, {name: value for name, value in files.items() if name in VOCABULARIES})
    return ModelInfo(**asdict(kind), digest=now, older=older)


def model_kind(path: Path) -> ModelKind:
    """`ModelKind` of a model directory, whose weights are not hashed. Raises as `inspect_model` does, and OSError."""
    config, weights = _config(path), read_tensors(path)
    return _kind(path, config, weights, {file.name: found for file, found in hashes(_vocabulary_files(path)).items()})


def _vocabulary_files(path: Path) -> list[Path]:
    return [path / name for name in VOCABULARIES if (path / name).is_file()]


def _kind(path: Path, config: Mapping[str, Any], weights: Mapping[str, Tensor], vocabulary: Mapping[str, str]) -> ModelKind:
    if not {"tokenizer.json", "tokenizer.model"} & vocabulary.keys() and len(vocabulary) < len(PAIR):
        raise LamdatuiError(
            "no tokenizer in the model directory: neither tokenizer.json, nor tokenizer.model, nor vocab.json with merges.txt",
            where=str(path),
            fix="save it there: AutoTokenizer.from_pretrained(…).save_pretrained(…)",
        )
    tokens = _vocabulary(path, vocabulary)
    _check_embeddings(path, weights, config, tokens)
    try:
        layout, tokenizer = digest(_layout(config, weights, tokens)), digest(tokens)
    except ValueError as error:
        what = f"config.json or tokenizer.json holds NaN or Infinity in place of a number ({error})"
        raise LamdatuiError(what, where=str(path), fix="take another copy of the model") from error
    return ModelKind(
        architecture=str(config.get("model_type", "unknown")),
        layout=layout,
        parameters=sum(prod(tensor.shape) for tensor in weights.values()),
        tokenizer=tokenizer,
        traits="\n".join(f"{name}: {value}" for name, value in _traits(path, config, weights)),
        sizes=_sizes(config, weights),
    )


def _layout(config: Mapping[str, Any], weights: Mapping[str, Tensor], tokens: Mapping[str, Any]) -> dict[str, Any]:
    """What has to be one and the same in models that are merged. Tokens that were added, and rows of embeddings, may differ: mergekit
    brings them together."""
    inner = config.get("text_config")
    text = inner if isinstance(inner, dict) else config
    heads = [name for name in weights if name.endswith(HEADS)]
    tied = not heads or text.get("tie_word_embeddings", config.get("tie_word_embeddings")) is True
    shapes = {}
    for name, tensor in weights.items():
        if name in heads and tied:
            continue
        shapes[name] = list(tensor.shape[1:] if name.endswith((*EMBEDDINGS, *HEADS)) else tensor.shape)
    added = {content for _, content in tokens.get("added", ())}
    vocabulary = tokens.get("vocab")
    if isinstance(vocabulary, dict):
        tokens = {**tokens, "vocab": {token: index for token, index in vocabulary.items() if token not in added}}
    return {
        "architecture": config.get("model_type"),
        "attention": [text.get(name) for name in ATTENTION],
        "shapes": shapes,
        "tied": tied,
        "vocabulary": {name: value for name, value in tokens.items() if name != "added"},
    }


def _traits(path: Path, config: Mapping[str, Any], weights: Mapping[str, Tensor]) -> Iterator[tuple[str, str]]:
    """Of a model's configuration, what a merge takes from its first model only; nothing for what is not told."""
    inner = config.get("text_config")
    text = inner if isinstance(inner, dict) else config
    rope = {"rope_theta": text.get("rope_theta"), **_mapping(text.get("rope_scaling")), **_mapping(text.get("rope_parameters"))}
    told = {("rope_type" if name == "type" else name): value for name, value in rope.items() if value is not None}
    if told.get("rope_type") == "default":
        del told["rope_type"]
    if told:
        yield "rope", ", ".join(f"{name.removeprefix('rope_')} {json_text(value)}" for name, value in sorted(told.items()))
    if ends := end_tokens(config, read_object(path / GENERATION)):
        yield "end tokens", ", ".join(map(str, ends))
    if rows := _rows(weights):
        yield ROWS, str(rows)


def _sizes(config: Mapping[str, Any], weights: Mapping[str, Tensor]) -> tuple[int, ...]:
    """The fields of `lamdatui.domain.objects.Shape`, in their order; empty where one is not told."""
    inner = config.get("text_config")
    text = inner if isinstance(inner, dict) else config

    def told(*names: str) -> int:
        return next((text[name] for name in names if type(text.get(name)) is int and text[name] > 0), 0)

    hidden, heads = told("hidden_size", "n_embd", "d_model"), told("num_attention_heads", "n_head", "num_heads")
    layers, inter = (
        told("num_hidden_layers", "n_layer", "num_layers"),
        told("intermediate_size", "n_inner", "ffn_dim") or 4 * hidden,
    )
    if not (hidden and heads and layers):
        return ()
    dim = told("head_dim") or max(1, hidden // heads)
    tied = not any(name.endswith(HEADS) for name in weights) or text.get("tie_word_embeddings") is True
    rows = _rows(weights) or told("vocab_size") or 1
    return (layers, hidden, inter, heads, told("num_key_value_heads") or heads, dim, rows, int(tied))


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _vocabulary(path: Path, files: Mapping[str, str]) -> Any:
    """What two tokenizers have to share to be one: tokens with their ids, and merges. The bytes of a tokenizer.json change with how it was
    written. Of other files, and of one that can't be read, the hashes stand for the vocabulary."""
    try:
        told = read_json(path / "tokenizer.json")
        model = told["model"]
        merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in model.get("merges") or ()]
        added = sorted((token["id"], token["content"]) for token in told.get("added_tokens") or ())
        if not all(type(index) is int and isinstance(content, str) for index, content in added):
            return dict(files)
        return {"type": model.get("type"), "vocab": model["vocab"], "merges": merges, "added": added}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return dict(files)


def _only_files(path: Path) -> None:
    """Raises OSError for a FIFO, a socket or a device: transformers opens what it finds, and would wait for ever."""
    for entry in path.iterdir():
        if entry.exists() and not (stat.S_ISDIR(entry.stat().st_mode)):
            regular(entry)


def _config(path: Path) -> dict[str, Any]:
    where = str(path / "config.json")
    if (path / ADAPTER).exists():
        raise LamdatuiError("this is a LoRA adapter, not a whole model", where=str(path / ADAPTER))
    try:
        config = read_json(path / "config.json")
    except (OSError, ValueError) as error:
        raise LamdatuiError(f"not a model directory: no readable config.json ({_why(error)})", where=where) from error
    if not isinstance(config, dict):
        raise LamdatuiError(f"config.json is an object, not {type(config).__name__}", where=where)
    if not isinstance(config.get("model_type", ""), str):
        raise LamdatuiError(f"model_type is text, not {type(config['model_type']).__name__}", where=where)
    for name in SIZES:
        size = config.get(name)
        if size is not None and (type(size) is not int or not 0 < size < 2**31):
            raise LamdatuiError(f"{name} is a whole number above 0", where=where)
    if "auto_map" in config and not _is_native(config.get("model_type", "")):
        raise LamdatuiError(
            "this model runs its own code (auto_map), which lamdatui never does",
            where=str(path),
            fix="take a version of the model for an architecture that transformers has, and drop auto_map from config.json",
        )
    if asked := _kernel(config):
        raise LamdatuiError(
            f"this model asks for code of another repository ({asked}), which lamdatui never runs",
            where=where,
            fix="drop that key from config.json",
        )
    if config.get("quantization_config") is not None:
        kind = (
            config["quantization_config"].get("quant_method", "unknown")
            if isinstance(config["quantization_config"], dict)
            else "unknown"
        )
        raise LamdatuiError(f"the model is quantised ({kind}): its weights can't be trained or merged", where=where, fix=FULL)
    return config


def _kernel(config: Mapping[str, Any]) -> str:
    """The key by which transformers would fetch a kernel of the hub, which is code (`_attn_implementation: OWNER/REPO`); empty where there is none."""
    for part in (config, *(value for value in config.values() if isinstance(value, dict))):
        for name, value in part.items():
            if name.endswith("_implementation") and "/" in json_text(value):
                return name
    return ""


def _is_native(kind: str) -> bool:
    """Whether transformers has an architecture of its own for a model type: then it takes that one, not the model's code."""
    spec = importlib.util.find_spec("transformers")
    places = spec.submodule_search_locations if spec else None
    name = kind.replace("-", "_")
    return bool(
        name.isidentifier() and places and (Path(next(iter(places))) / "models" / name / f"modeling_{name}.py").exists()
    )


def _weights(path: Path) -> tuple[list[Path], set[str]]:
    """The files that transformers would load, and the weights that the index promises (none without one). Raises LamdatuiError.

    Others beside them are passed over: some models come with a second copy for another program (consolidated.safetensors).
    """
    index, every = path / INDEX, sorted(path.glob("*.safetensors"))
    if not every:
        raise LamdatuiError("no safetensors in the model directory", where=str(path), fix="convert the weights to safetensors")
    if not index.exists():
        if not (path / SINGLE).exists():
            raise LamdatuiError(
                f"there is neither {SINGLE} nor {INDEX}: transformers would not find {every[0].name}",
                where=str(path),
                fix=f"rename one file of weights to {SINGLE}, or add the index of several",
            )
        return [path / SINGLE], set()
    try:
        named = read_json(index)["weight_map"]
        files = {str(file) for file in named.values()}
        if not files:
            raise ValueError("it names no files")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise LamdatuiError(f"the index of the weights can't be read: {_why(error)}", where=str(index)) from error
    if missing := sorted(files - {file.name for file in every}):
        raise LamdatuiError(f"{len(missing)} files of weights are missing", where=str(index), fix=f"add {missing[0]}")
    if (path / SINGLE).exists() and SINGLE not in files:
        raise LamdatuiError(
            f"the weights are there twice: {SINGLE}, and the files of {INDEX}",
            where=str(path),
            fix="remove what is left over of the two",
        )
    return [path / file for file in sorted(files)], set(named)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """All weights that transformers would load. Raises LamdatuiError."""
    files, promised = _weights(path)
    found: dict[str, Tensor] = {}
    for file in files:
        try:
            found |= tensors(file)
        except (ValueError, OSError) as error:
            raise LamdatuiError(f"broken weights: {error}", where=str(file)) from error
    if lacking := sorted(promised - found.keys()):
        raise LamdatuiError(
            f"{len(lacking)} weights that the index names are not in its files, the first: {lacking[0]}",
            where=str(path / INDEX),
            fix="take another copy of the model",
        )
    if not any(prod(tensor.shape) for tensor in found.values()):
        raise LamdatuiError("the weights hold no parameters", where=str(path))
    return found


def _check_names(path: Path, weights: Mapping[str, Tensor], config: Mapping[str, Any]) -> None:
    """Raises LamdatuiError for weights that transformers would not find, or would take for something else.

    What is missing it makes up at random, what has another name it passes over: neither is told to anybody.
    """
    first = next(iter(weights))
    wrapper = next((prefix for prefix in WRAPPERS if all(name.startswith(prefix) for name in weights)), None)
    if wrapper:
        raise LamdatuiError(
            f"the weights are named {wrapper}… ({first}): transformers would not find them",
            where=str(path),
            fix="save the inner model: unwrap it, then save_pretrained",
        )
    kinds = {tensor.kind for tensor in weights.values()}
    if kinds & QUANTISED or any(
        name.endswith((".weight_scale", ".weight_scale_inv", ".qweight", ".absmax")) for name in weights
    ):
        raise LamdatuiError(f"the weights are quantised ({', '.join(sorted(kinds))})", where=str(path), fix=FULL)
    layers = config.get("num_hidden_layers")
    numbers = {int(found[1]) for name in weights if (found := _LAYER.search(name))}
    if layers is not None and numbers and "vision_config" not in config and max(numbers) + 1 != layers:
        raise LamdatuiError(
            f"config.json says {layers} layers, the weights are of {max(numbers) + 1}",
            where=str(path),
            fix="take another copy of the model",
        )


def _check_embeddings(path: Path, weights: Mapping[str, Tensor], config: Mapping[str, Any], tokens: Any) -> None:
    """Raises LamdatuiError when a token has no row of the embeddings, or config.json says another number of rows."""
    rows = _rows(weights)
    if rows is None:
        return
    if isinstance(tokens.get("vocab"), dict):
        ids = [
            *(each for each in tokens["vocab"].values() if type(each) is int),
            *(each for each, _ in tokens["added"] if type(each) is int),
        ]
        if ids and max(ids) >= rows:
            raise LamdatuiError(
                f"the tokenizer has tokens up to {max(ids)}, the embeddings have {rows} rows",
                where=str(path),
                fix="take the tokenizer that the weights were trained with, or resize the embeddings and save the model again",
            )
    told = config.get("vocab_size")
    if told is not None and "vision_config" not in config and told != rows:
        raise LamdatuiError(
            f"config.json says vocab_size {told}, the embeddings have {rows} rows",
            where=str(path),
            fix="take another copy of the model",
        )


def _rows(weights: Mapping[str, Tensor]) -> int | None:
    return next((tensor.shape[0] for name, tensor in weights.items() if name.endswith(EMBEDDINGS) and tensor.shape), None)


def _why(error: Exception) -> str:
    return error.strerror or str(error) if isinstance(error, OSError) else str(error)
