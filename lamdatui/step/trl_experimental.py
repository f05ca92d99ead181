"""What lamdatui takes from `trl.experimental`: imported here and nowhere else, because it may move in any release of TRL.

Each function returns (config class, trainer class). The notice that these are experimental is silenced during the import.
Both trainers take the token ids of `lamdatui.step.encoding`: their own way puts a BOS before every prompt and an EOS after every
answer, which the chat template of many models does not do when the model is used. They want texts, too, which are left empty.
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
        def tokenize_row(self, feature: dict[str, Any], model: Any = None) -> dict[str, list[int]]:
            return tokens_of_pair(feature, self.max_length)

    return ORPOConfig, OrpoTrainer


def cpo() -> Classes:
    """CPO: Xu et al. 2024, arXiv 2401.08417; its loss `simpo` is SimPO: Meng et al. 2024, arXiv 2405.14734."""
    with _quietly():
        from trl.experimental.cpo import CPOConfig, CPOTrainer

    class CpoTrainer(CPOTrainer):
        def tokenize_row(self, feature: dict[str, Any], model: Any = None) -> dict[str, list[int]]:
            return tokens_of_pair(feature, self.max_length)

    return CPOConfig, CpoTrainer


def with_texts(dataset: Any) -> Any:
    """Encoded pairs with the columns that the trainers look at before they ask for tokens."""
    for name in ("prompt", "chosen", "rejected"):
        dataset = dataset.add_column(name, [""] * len(dataset))
    return dataset


def tokens_of_pair(row: dict[str, Any], limit: int) -> dict[str, list[int]]:
    """Token ids, mask and labels of an encoded pair, at most `limit` tokens each."""
    prompt = row["prompt_ids"]
    found = {"prompt_input_ids": prompt, "prompt_attention_mask": [1] * len(prompt)}
    for name in ("chosen", "rejected"):
        ids = [*prompt, *row[f"{name}_ids"]][:limit]
        found[f"{name}_input_ids"] = ids
        found[f"{name}_attention_mask"] = [1] * len(ids)
        found[f"{name}_labels"] = [IGNORED] * min(len(prompt), len(ids)) + ids[len(prompt) :]
    return found
