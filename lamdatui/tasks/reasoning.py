"""The scorer `reasoning_gym`: a generator of the package reasoning-gym judges the answer to its own question.

Its generators were made for training with verifiable rewards (Stojanovski et al. 2025, arXiv 2505.24760). Not all of them
are offered: some judge an answer by evaluating it as Python, which nothing that a model wrote may be.
"""

from __future__ import annotations

import copy
import difflib
import functools
import importlib
import json
import math
import re
from typing import Any

from lamdatui.base.errors import LamdatuiError

_EVAL = "it evaluates the answer as Python"
EXCLUDED: dict[str, str] = {
    "binary_matrix": _EVAL,
    "countdown": _EVAL,
    "intermediate_integration": _EVAL,
    "n_queens": _EVAL,
    "polynomial_multiplication": _EVAL,
    "puzzle24": _EVAL,
    "simple_integration": _EVAL,
    "spiral_matrix": _EVAL,
    "string_insertion": _EVAL,
    "bitwise_arithmetic": "it evaluates the row's question as Python",
    "number_sorting": "it may evaluate the row's answer as Python",
    "codeio": "it runs programs that come with its data",
    "coin_flip": "an answer such as 1e999999999 would keep it busy for hours",
    "composite": "it only mixes other generators: use them as several datasets",
    "game_of_life_halting": "it gives every answer that is not empty the full score",
}
"""Generators that are not offered, and why."""

_TAGGED = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)
MOST_CHARACTERS = 20_000
"""A longer answer is wrong: what the generators do with it may take long."""


def package() -> Any:
    """The imported package. Raises LamdatuiError that says how to install it."""
    try:
        return importlib.import_module("reasoning_gym")
    except ImportError as error:
        raise LamdatuiError(
            "the package reasoning-gym is not installed", fix="pip install 'lamdatui[reasoning-gym]'"
        ) from error


def generator_names() -> list[str]:
    """Names of the generators that are offered, sorted."""
    package()
    return sorted(set(importlib.import_module("reasoning_gym.factory").DATASETS) - set(EXCLUDED))


def check_name(name: Any) -> None:
    """Raises ValueError for a generator that is unknown, with the nearest name, or not offered, with the reason."""
    if name in EXCLUDED:
        raise ValueError(f"the generator {name!r} is not offered: {EXCLUDED[name]}")
    names = generator_names()
    if name not in names:
        close = difflib.get_close_matches(str(name), names, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise ValueError(f"reasoning-gym has no generator {name!r}{hint}")


def generator(name: str, options: dict[str, Any], *, seed: int = 0, size: int = 1) -> Any:
    """The generator `name` with `options` of its own. Raises ValueError when there is none or an option is not right."""
    check_name(name)
    # JSON has no tuples, and the generators' own checks want them.
    settings = {key: tuple(value) if isinstance(value, list) else value for key, value in options.items()}
    try:
        return package().create_dataset(name, **settings, seed=seed, size=size)
    except (AssertionError, TypeError, ValueError, KeyError, IndexError) as error:
        raise ValueError(f"{name} with {options}: {error or 'an option is out of range'}") from error


def answer_part(completion: str) -> str:
    """What is judged: the last `<answer>…</answer>`, or else the whole completion; without blanks around it."""
    tagged = _TAGGED.findall(completion)
    return (tagged[-1] if tagged else completion).strip()


def reasoning_gym(reference: dict[str, Any], completion: str) -> float:
    """The score in [0, 1] that the generator gives the answer in `completion`; 0 where it can't read it.

    `reference` is `{"dataset": name, "entry": {"question", "answer", "metadata"}}`, with `"options"` where the generator's
    were not the default. Raises ValueError, KeyError or TypeError for another shape, LamdatuiError without the package.
    """
    name, entry = reference["dataset"], reference["entry"]
    if not isinstance(entry["question"], str) or not isinstance(entry["answer"], str):
        raise TypeError("question and answer of an entry are text")
    if not isinstance(entry["metadata"], dict):
        raise TypeError("the metadata of an entry is an object")
    judge = _judge(name, json.dumps(reference.get("options", {}), sort_keys=True))
    answer = answer_part(completion)
    if len(answer) > MOST_CHARACTERS:
        return 0.0
    try:
        # Some generators write what they found into the entry.
        value = float(judge.score_answer(answer, copy.deepcopy(entry)))
    except Exception:  # noqa: BLE001 (whatever they stumble over in a model's text, it is not an answer)
        return 0.0
    return min(1.0, max(0.0, value)) if math.isfinite(value) else 0.0


@functools.lru_cache(maxsize=64)
def _judge(name: str, options: str) -> Any:
    return generator(name, json.loads(options))
