"""A merge by mergekit, and what is looked for in its result before it is one: files, names, shapes, distance from the models."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lamdatui.actionkit.costs import SHARD_BYTES
from lamdatui.base.jsonio import read_json
from lamdatui.domain.objects import ROWS, read_traits
from lamdatui.inputs.modelfiles import EMBEDDINGS, GENERATION, HEADS, INDEX, model_kind, read_tensors
from lamdatui.step.errors import StepError
from lamdatui.step.models import save_tokenizer

if TYPE_CHECKING:
    from lamdatui.step.context import StepContext

SAME = 1e-4
"""A result this much nearer to one model than to another is a copy of it."""


def tokens_differ(models: Sequence[Path]) -> bool:
    """Whether one of the model directories knows tokens, or has room for tokens, that another lacks."""
    kinds = [model_kind(path) for path in models]
    if len({read_traits(kind.traits).get(ROWS) for kind in kinds}) > 1:
        return True
    if len({kind.tokenizer for kind in kinds}) == 1:
        return False
    # One tokenizer may be written in several ways: a vocabulary with merges, and what a library made of it.
    first, *others = (_vocabulary(path) for path in models)
    return any(other != first for other in others)


def _vocabulary(path: Path) -> dict[str, int]:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(path, local_files_only=True, trust_remote_code=False).get_vocab()


def run(step: StepContext, config: Mapping[str, Any]) -> None:
    """Merge by a configuration of mergekit's into `step.staged`. Raises StepError(data) for what mergekit can't merge."""
    from mergekit.config import MergeConfiguration
    from mergekit.io.tasks import LoaderCache
    from mergekit.merge import run_merge
    from mergekit.options import MergeOptions

    small = bool(step.request["small"])
    # Memory stays bounded: safetensors are mapped and read tensor by tensor whatever `lazy_unpickle` says (that is for
    # pickles, which are not taken); the result is written in pieces, and not by threads that would hold several.
    options = MergeOptions(
        quiet=True,
        random_seed=step.seed,
        copy_tokenizer=True,
        cuda=step.device.type == "cuda" and not small,
        out_shard_size=SHARD_BYTES // (4 if small else 1),
        async_write=False,
        lazy_unpickle=True,
        write_model_card=False,
        trust_remote_code=False,
    )
    try:
        run_merge(MergeConfiguration.model_validate(dict(config)), str(step.staged.absolute()), options)
    except (ValueError, LookupError, AssertionError) as error:
        raise StepError("data", f"mergekit can't merge these by {config['merge_method']}: {error}") from error
    finally:
        # It is shared by all merges of a process, and keeps their files open.
        LoaderCache().loaders.clear()


def finish(step: StepContext, models: Mapping[str, Path], first: str, aligned: bool) -> None:
    """Take a merge of `models` (id → directory) as the step's result.

    Its tokenizer is that of the slot `first`; where tokens differed (`aligned`) it is mergekit's, which knows those of all.
    Raises StepError(data) when the result is not whole, or a copy of one of the models.
    """
    tokenizer, settings = step.load_tokenizer(first), next(iter(models.values())) / GENERATION
    if not aligned:
        save_tokenizer(tokenizer, step.staged)
    elif settings.exists():
        # mergekit leaves it out with a tokenizer that it made; it may name the tokens that end answers.
        shutil.copyfile(settings, step.staged / GENERATION)
    _check_tensors(step, list(models.values()), aligned)
    _check_distances(step, models)
    step.finish_directory()
    if aligned:
        made, known = model_kind(step.staged), len(tokenizer)
        step.say(f"the models differ in their tokens: the first knows {known:,}, the result has a row for each of all")
        step.result = {
            **(step.result or {}),
            "tokenizer": made.tokenizer,
            "parameters": made.parameters,
            "traits": made.traits,
            "sizes": made.sizes,
        }


def mean_difference(base: Path, others: list[Path]) -> float:
    """Mean size of the differences between a model and the others, over weights that differ at all."""
    total, count = 0.0, 0
    for other in others:
        for a, b in _pairs(base, other):
            difference = (a.float() - b.float()).abs()
            total, count = total + float(difference.double().sum()), count + int(difference.count_nonzero())
    return total / max(1, count)


def _check_tensors(step: StepContext, inputs: Sequence[Path], aligned: bool) -> None:
    """Raises StepError(data) when the result is not whole: files, names and shapes as those of the models."""
    made, given = _shapes(step.staged), [_shapes(path) for path in inputs]
    # A tied output layer is stored by some libraries and left out by others.
    common = set.intersection(*map(set, given))
    union = {name: shape for shapes in given for name, shape in shapes.items()}
    if missing := sorted(common - set(made)):
        raise StepError("data", f"the merge lacks {len(missing)} tensors of the models: {', '.join(missing[:3])}")
    for name, shape in made.items():
        # Where tokens differ, the tables of tokens have rows of their own.
        skipped = 1 if aligned and name.endswith((*EMBEDDINGS, *HEADS)) else 0
        if name not in union or union[name][skipped:] != shape[skipped:]:
            raise StepError("data", f"the merge has {name} of shape {shape}; the models' is {union.get(name)}")
    index = step.staged / INDEX
    if index.exists() and set(read_json(index)["weight_map"]) != set(made):
        raise StepError("data", "the merge's index does not list the tensors that its files have")


def _check_distances(step: StepContext, inputs: Mapping[str, Path]) -> None:
    """Say how far the result is from each model; raises StepError(data) when it is a copy of one.

    Distances are Euclidean over all weights, the models rounded to the result's dtype.
    """
    found = {}
    for name, path in inputs.items():
        pairs = _pairs(step.staged, path)
        found[name] = sum(float((made - other.to(made.dtype)).double().square().sum()) for made, other in pairs) ** 0.5
    told = ", ".join(f"{name} {value:.4g}" for name, value in found.items())
    step.say(f"distance of the result from {told}")
    if min(found.values()) <= SAME * max(found.values()):
        raise StepError("data", f"with these hyperparameters the merge is a copy of a model (distances: {told})")


def _shapes(folder: Path) -> dict[str, list[int]]:
    return {name: list(tensor.shape) for name, tensor in read_tensors(folder).items()}


def _pairs(ours: Path, theirs: Path) -> Iterator[tuple[Any, Any]]:
    """The tensors of two model directories under the same name and of one shape, one pair in memory at a time."""
    from safetensors import safe_open

    with contextlib.ExitStack() as stack:
        files = {}
        for file in sorted(theirs.glob("*.safetensors")):
            handle = stack.enter_context(safe_open(file, framework="pt"))
            files |= dict.fromkeys(handle.keys(), handle)
        for file in sorted(ours.glob("*.safetensors")):
            with safe_open(file, framework="pt") as handle:
                for name in handle.keys():  # noqa: SIM118 (a safetensors handle is no mapping)
                    if name in files:
                        one, other = handle.get_tensor(name), files[name].get_tensor(name)
                        if one.shape == other.shape:
                            yield one, other
