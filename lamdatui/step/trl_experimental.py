"""What lamdatui takes from `trl.experimental`: imported here and nowhere else, because it may move in any release of TRL.

Each function returns (config class, trainer class). The notice that these are experimental is silenced during the import.
Both trainers are given the token ids that TRL's stable trainers make: their own way puts a BOS before every prompt and an
EOS after every answer, which the chat template of many models does not do when the model is used.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from typing import Any

Classes = tuple[Any, Any]
IGNORED = -100
"""Label of a token that does not count for the loss."""


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*trl.experimental.*")
        yield


def orpo() -> Classes:
    """ORPO: Hong et al. 2024, arXiv 2403.07691."""
    with _quietly():
        from trl.experimental.orpo import ORPOConfig, ORPOTrainer

    class OrpoTrainer(ORPOTrainer):
        def tokenize_row(self, feature: dict[str, str], model: Any = None) -> dict[str, list[int]]:
            return tokens_of_pair(self.processing_class, feature, self.max_length)

    return ORPOConfig, OrpoTrainer


def cpo() -> Classes:
    """CPO: Xu et al. 2024, arXiv 2401.08417; its loss `simpo` is SimPO: Meng et al. 2024, arXiv 2405.14734."""
    with _quietly():
        from trl.experimental.cpo import CPOConfig, CPOTrainer

    class CpoTrainer(CPOTrainer):
        def tokenize_row(self, feature: dict[str, str], model: Any = None) -> dict[str, list[int]]:
            return tokens_of_pair(self.processing_class, feature, self.max_length)

    return CPOConfig, CpoTrainer


def tokens_of_pair(tokenizer: Any, row: dict[str, str], limit: int) -> dict[str, list[int]]:
    """Token ids, mask and labels of a pair, at most `limit` tokens each. `row` is text that has been through the chat template.

    An answer begins where the tokens of prompt and answer leave those of the prompt alone, which is one token earlier where
    a tokenizer merges across the boundary.
    """
    prompt = _ids(tokenizer, row["prompt"])
    both = {name: _ids(tokenizer, row["prompt"] + row[name]) for name in ("chosen", "rejected")}
    start = min(_shared(prompt, ids) for ids in both.values())
    found = {"prompt_input_ids": prompt[:start], "prompt_attention_mask": [1] * start}
    for name, ids in both.items():
        ids = ids[:limit]
        found[f"{name}_input_ids"] = ids
        found[f"{name}_attention_mask"] = [1] * len(ids)
        found[f"{name}_labels"] = [IGNORED] * min(start, len(ids)) + ids[start:]
    return found


def _ids(tokenizer: Any, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def _shared(a: list[int], b: list[int]) -> int:
    """Length of the common beginning."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
