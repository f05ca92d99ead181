"""The object pool: the models and datasets that actions may use. Pure: no files are read here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal

ROWS = "rows of embeddings"
"""A line of `ModelObject.traits`: how many tokens its weights have room for, which may be more than its tokenizer has."""
DatasetFormat = Literal["sft", "preference", "unpaired", "verifiable", "prompt", "text"]
FORMATS: tuple[DatasetFormat, ...] = ("sft", "preference", "unpaired", "verifiable", "prompt", "text")


@dataclass(frozen=True, slots=True)
class Shape:
    """Sizes of a decoder, as whole numbers: what memory and time are counted from."""

    layers: int
    hidden: int
    intermediate: int
    """Of the feed-forward part of a layer."""
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    """Rows of embeddings."""
    tied: bool
    """Whether the output layer is the embeddings."""


@dataclass(frozen=True, slots=True)
class ModelObject:
    """A model: full weights plus LoRA adapters that are merged into them, in order, when it is loaded.

    `weights` and each of `adapters` is an absolute directory or `store:DIGEST` (a directory of the artifact store).
    `layout` digests what two models must share to be merged: architecture, attention heads, tensor shapes and vocabulary, but for tokens
    that were added to it and rows of embeddings.
    """

    id: str
    digest: str
    architecture: str
    layout: str
    weights: str
    adapters: tuple[str, ...] = ()
    parameters: int = 0
    trial: int | None = None
    tokenizer: str = ""
    """Digest of the vocabulary: what two models must share to learn from each other's token probabilities."""
    bytes: int = 0
    """What a produced model takes in the store; 0 for what the profile names."""
    template: str = ""
    """A chat template in place of the one beside the weights."""
    chat: str = ""
    """Digest of the chat template that it is used with: what a merge takes from its first model only."""
    own: int = 0
    """As many of `adapters`, the first ones, are not the store's: the profile names them."""
    traits: str = ""
    """Of its configuration, what a merge takes from its first model only, as lines `name: value`: rope, end tokens, rows of embeddings."""
    sizes: tuple[int, ...] = ()
    """The fields of `Shape`, in their order; empty where config.json does not tell them, and for models of older runs."""
    kind: Literal["model"] = "model"

    @property
    def shape(self) -> Shape:
        """The model's sizes; where they are not known, those of a usual decoder with as many parameters."""
        if len(self.sizes) == len(fields(Shape)):
            return Shape(*self.sizes[:-1], tied=bool(self.sizes[-1]))
        # Layers × hidden² × 12 is about all of a decoder but its embeddings; layers are about a hundredth of hidden.
        hidden = max(64, round((max(self.parameters, 1) / 12 * 100) ** (1 / 3) / 64) * 64)
        heads = max(1, hidden // 64)
        return Shape(max(2, hidden // 100), hidden, 3 * hidden, heads, heads, 64, 32_768, tied=False)


@dataclass(frozen=True, slots=True)
class DatasetObject:
    """A dataset file, or one that an action made (`path` is then `store:DIGEST`).

    `format` is `sft` (prompt and answer), `preference` (prompt, chosen, rejected), `unpaired` (prompt, answer and whether
    it is wanted), `verifiable` (prompt, and what a scorer needs to judge an answer), `prompt` (nothing else) or `text` (trained as it
    is). `chars` is the mean length of a row, `longest` that of the longest (0: not known).
    """

    id: str
    digest: str
    format: DatasetFormat
    rows: int
    path: str
    trial: int | None = None
    chars: int = 0
    bytes: int = 0
    """What a produced dataset takes in the store; 0 for what the profile names."""
    columns: tuple[tuple[str, str], ...] = ()
    """Names of columns that are known → those of the file, where they differ."""
    notes: tuple[str, ...] = ()
    """What of its rows is not used, and what a task holds too, a sentence each."""
    longest: int = 0
    kind: Literal["dataset"] = "dataset"


PoolObject = ModelObject | DatasetObject


def read_traits(traits: str) -> dict[str, str]:
    """Name → value of `ModelObject.traits`."""
    return dict(line.split(": ", 1) for line in traits.splitlines())


def unlike(traits: Sequence[str], tokenizers: Sequence[str]) -> list[str]:
    """What models that can be merged don't agree on, and which of it the result has, a few words each."""
    told = [read_traits(each) for each in traits]
    found = []
    if len(set(filter(None, tokenizers))) > 1:
        found.append("different tokens; the result knows all of them")
    for name in dict.fromkeys(name for each in told for name in each):
        values = list(dict.fromkeys(each[name] for each in told if name in each))
        if len(values) > 1:
            kept = "a row for each token" if name == ROWS else "the first one's"
            found.append(f"different {name} ({' and '.join(values)}); the result has {kept}")
    return found


def object_from_json(data: Mapping[str, Any]) -> PoolObject:
    """The object that `object_to_json` wrote."""
    told = dict(data)
    if told["kind"] == "model":
        told["adapters"] = tuple(told["adapters"])
        told["sizes"] = tuple(told.get("sizes", ()))
        return ModelObject(**told)
    told["columns"] = tuple(map(tuple, told.get("columns", ())))
    told["notes"] = tuple(told.get("notes", ()))
    return DatasetObject(**told)


def object_to_json(item: PoolObject) -> dict[str, Any]:
    """Plain JSON of an object."""
    return asdict(item)


@dataclass(slots=True)
class ObjectPool:
    """All objects by id, in the order in which they were added."""

    items: dict[str, PoolObject] = field(default_factory=dict)

    def add(self, item: PoolObject) -> None:
        """Put an object in; the same id again replaces it."""
        self.items[item.id] = item

    @property
    def base(self) -> str | None:
        """The first of the models that the profile names."""
        items = self.items.values()
        return next((item.id for item in items if isinstance(item, ModelObject) and item.trial is None), None)

    def model(self, name: str) -> ModelObject:
        """A model by id. Raises KeyError."""
        item = self.items[name]
        if not isinstance(item, ModelObject):
            raise KeyError(f"{name} is a {item.kind}, not a model")
        return item

    def dataset(self, name: str) -> DatasetObject:
        """A dataset by id. Raises KeyError."""
        item = self.items[name]
        if not isinstance(item, DatasetObject):
            raise KeyError(f"{name} is a {item.kind}, not a dataset")
        return item

    @property
    def models(self) -> list[ModelObject]:
        """Models, oldest first."""
        return [item for item in self.items.values() if isinstance(item, ModelObject)]

    @property
    def datasets(self) -> list[DatasetObject]:
        """Datasets, oldest first."""
        return [item for item in self.items.values() if isinstance(item, DatasetObject)]

    def digests(self, ids: Iterable[str]) -> list[str]:
        """Digests of the named objects, in that order. Raises KeyError."""
        return [self.items[name].digest for name in ids]


STORED = "store:"
"""How the place of something begins that is in the store."""


def stored(item: PoolObject) -> list[str]:
    """Digests of the store's objects that a pool object consists of."""
    places = [item.path] if isinstance(item, DatasetObject) else [item.weights, *item.adapters]
    return [place.removeprefix(STORED) for place in places if place.startswith(STORED)]
