"""Log-likelihoods of given continuations: how likely a model thinks each choice of a question.

Texts are cut into tokens as lm-evaluation-harness cuts them (Gao et al. 2021, doi 10.5281/zenodo.5371628), so that the same model has the same scores:
context and continuation together, spaces at the context's end as part of the continuation. Choices of one context share its keys and values.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any, NamedTuple

import torch
from transformers import DynamicCache

from lamdatui.step.encoding import Encoder

PART = 256
"""Tokens whose probabilities are computed at a time."""
WINDOW = 2048
"""A text that is rated whole is read in windows of at most so many tokens."""
Rated = tuple[float, bool]
"""Log-likelihood in nats, and whether each token of it is the likeliest."""


class Pair(NamedTuple):
    """Token ids of a context (at least one) and of what follows it."""

    context: tuple[int, ...]
    continuation: tuple[int, ...]


def rate(
    model: Any,
    tokenizer: Any,
    asked: Sequence[Mapping[str, Any]],
    *,
    batch_tokens: int,
    positions: int,
    progress: Callable[[int], None] = lambda done: None,
) -> list[list[Rated]]:
    """Of each row its choices' log-likelihoods, or the one of its text (`rolling`). A longer sequence than `positions` loses its beginning.

    `progress` gets the number of rows done.
    """
    encoder = _Encoder(tokenizer)
    work: list[tuple[int, int, Pair]] = []
    counts: list[int] = []
    for number, row in enumerate(asked):
        if row.get("rolling"):
            counts.append(1)
            work += [(number, 0, pair) for pair in encoder.windows(row["plain"], min(positions, WINDOW))]
            continue
        counts.append(len(row["choices"]))
        contexts = row.get("contexts") or [encoder.context(row)] * len(row["choices"])
        work += [
            (number, place, encoder.pair(context, choice, plain="plain" in row or "contexts" in row, positions=positions))
            for place, (context, choice) in enumerate(zip(contexts, row["choices"], strict=True))
        ]
    found: list[list[Rated]] = [[(0.0, True)] * count for count in counts]
    left = Counter(number for number, _, _ in work)
    done = 0
    for group in measured(model, work, batch_tokens):
        for number, place, (value, greedy) in group:
            before, was = found[number][place]
            found[number][place] = before + value, was and greedy
            left[number] -= 1
            done += left[number] == 0
        progress(done)
    return found


def measured(model: Any, work: list[tuple[int, int, Pair]], batch_tokens: int) -> Iterator[list[tuple[int, int, Rated]]]:
    """What each item's continuation is rated, with the item's two numbers: batch by batch, not in their order."""
    model.eval()
    for group in _groups(work, batch_tokens):
        with torch.inference_mode():
            rated = _rated(model, [pair for _, _, pair in group])
        yield [(number, place, told) for (number, place, _), told in zip(group, rated, strict=True)]


class _Encoder:
    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._chat: Encoder | None = None
        first = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
        self._first = int(first)
        """Stands before a text that has no context."""

    def context(self, row: Mapping[str, Any]) -> str:
        if "plain" in row:
            return row["plain"]
        self._chat = self._chat or Encoder(self._tokenizer)
        return self._chat.ask(row)

    def _ids(self, text: str, *, plain: bool) -> list[int]:
        # A chat template writes its special tokens; so does a plain text that begins with one.
        special = plain and not text.startswith(self._tokenizer.decode([self._first]))
        return list(self._tokenizer(text, add_special_tokens=special)["input_ids"])

    def pair(self, context: str, continuation: str, *, plain: bool, positions: int) -> Pair:
        if not context:
            ids = list(self._tokenizer(continuation, add_special_tokens=False)["input_ids"])
            before, after = (ids[:1], ids[1:]) if ids[0] == self._first and len(ids) > 1 else ([self._first], ids)
        else:
            kept = context.rstrip() if plain else context
            whole = self._ids(kept + context[len(kept) :] + continuation, plain=plain)
            before = self._ids(kept, plain=plain)
            # A context of spaces alone has no token of its own.
            before, after = (before, whole[len(before) :]) if before else ([self._first], whole)
        after = after[-positions:]
        room = positions + 1 - len(after)
        return Pair(tuple(before[-room:]), tuple(after))

    def windows(self, text: str, positions: int) -> list[Pair]:
        """A text as windows of so many tokens, each token predicted once: the first from the beginning token, later ones with all that fits before."""
        ids = self._ids(text, plain=True)
        found = []
        for start in range(0, len(ids), positions):
            part = ids[start : start + positions]
            end = start + len(part)
            before = ids[max(0, end - positions - 1) : start] if start else [self._first]
            found.append(Pair(tuple(before), tuple(part)))
        return found


def _groups(work: list[tuple[int, int, Pair]], batch_tokens: int) -> list[list[tuple[int, int, Pair]]]:
    """Batches of sequences of similar lengths, the longest first; those of one context stay together."""
    order = sorted(work, key=lambda item: (-len(item[2].context), item[2].context))
    groups: list[list[tuple[int, int, Pair]]] = []
    longest = 0
    families = (list(same) for _, same in groupby(order, key=lambda item: item[2].context))
    # Each choice has a copy of its context's keys and values: many of them come in parts.
    for family in (part for whole in families for part in _parted(whole, batch_tokens)):
        length = max(len(pair.context) + len(pair.continuation) for _, _, pair in family)
        if groups and (len(groups[-1]) + len(family)) * max(longest, length) <= batch_tokens:
            longest = max(longest, length)
            groups[-1] += family
        else:
            longest = length
            groups.append(family)
    return groups


def _parted(family: list[tuple[int, int, Pair]], batch_tokens: int) -> list[list[tuple[int, int, Pair]]]:
    longest = max(len(pair.context) + len(pair.continuation) for _, _, pair in family)
    size = max(1, batch_tokens // longest)
    return [family[start : start + size] for start in range(0, len(family), size)]


def _rated(model: Any, pairs: Sequence[Pair]) -> list[Rated]:
    """Of one batch: each context is read once, where the model has a cache that can be copied."""
    contexts = list(dict.fromkeys(pair.context for pair in pairs))
    cache = DynamicCache(config=model.config)
    shares = len(contexts) < len(pairs) and all(type(layer).__name__ == "DynamicLayer" for layer in cache.layers)
    if not shares:
        return _read(model, pairs)
    width = max(map(len, contexts)) - 1
    if width == 0:
        return _read(model, pairs)
    # All but the last token of each context is read once; the last one gives the first prediction.
    ids = torch.zeros((len(contexts), width), dtype=torch.long)
    mask = torch.zeros((len(contexts), width), dtype=torch.long)
    for row, context in enumerate(contexts):
        head = context[:-1]
        if head:
            ids[row, width - len(head) :] = torch.tensor(head)
            mask[row, width - len(head) :] = 1
    places = (mask.cumsum(1) - 1).clamp(min=0)
    device = model.device
    model(
        input_ids=ids.to(device),
        attention_mask=mask.to(device),
        position_ids=places.to(device),
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=1,
    )
    places_of = {context: row for row, context in enumerate(contexts)}
    rows = [places_of[pair.context] for pair in pairs]
    cache.batch_select_indices(torch.tensor(rows, device=device))
    return _read(model, [Pair(pair.context[-1:], pair.continuation) for pair in pairs], cache, mask[rows])


def _read(model: Any, pairs: Sequence[Pair], cache: Any = None, before: torch.Tensor | None = None) -> list[Rated]:
    """Read contexts with continuations, padded in front, after what the cache holds (`before`: its mask); rate the continuations."""
    inputs = [(*pair.context, *pair.continuation)[:-1] for pair in pairs]
    width = max(map(len, inputs))
    ids = torch.zeros((len(inputs), width), dtype=torch.long)
    mask = torch.zeros((len(inputs), width), dtype=torch.long)
    for row, one in enumerate(inputs):
        ids[row, width - len(one) :] = torch.tensor(one)
        mask[row, width - len(one) :] = 1
    whole = mask if before is None else torch.cat([before, mask], dim=1)
    places = (whole.cumsum(1) - 1).clamp(min=0)[:, -width:]
    device = model.device
    more = {"past_key_values": cache, "use_cache": True} if cache is not None else {"use_cache": False}
    logits = model(
        input_ids=ids.to(device),
        attention_mask=whole.to(device),
        position_ids=places.to(device),
        logits_to_keep=max(len(pair.continuation) for pair in pairs),
        **more,
    ).logits
    found = []
    for row, pair in enumerate(pairs):
        wanted = torch.tensor(pair.continuation, device=logits.device)
        value, greedy = 0.0, True
        # In parts: a vocabulary is wide, and they are wanted in float32.
        for part, targets in zip(logits[row, -len(wanted) :].split(PART), wanted.split(PART), strict=True):
            told = torch.log_softmax(part.float(), dim=-1)
            value += float(told.gather(1, targets[:, None]).sum())
            greedy = greedy and bool((told.argmax(dim=-1) == targets).all())
        found.append((value, greedy))
    return found
