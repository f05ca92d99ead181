"""The named scorers: pure functions of (reference, completion) → score in [0, 1]."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from typing import Any

from lamdatui.base.errors import LamdatuiError
from lamdatui.base.words import words
from lamdatui.tasks.bfcl import bfcl, bfcl_problem
from lamdatui.tasks.choice import choice, choice_problem
from lamdatui.tasks.constraints import check_arguments, constraints
from lamdatui.tasks.extracted import number, number_problem, regex, regex_problem
from lamdatui.tasks.function_call import function_call, function_call_of_arguments
from lamdatui.tasks.judging import JUDGED, judge_problem
from lamdatui.tasks.lm_eval import lm_eval, lm_eval_problem, package
from lamdatui.tasks.reasoning import reasoning_gym


def exact(reference: str | list[str], completion: str) -> float:
    """1.0 when the stripped answer equals the stripped reference, or one of a list of them."""
    wanted = [reference] if isinstance(reference, str) else reference
    return float(completion.strip() in {one.strip() for one in wanted})


def word_f1(reference: str | list[str], completion: str) -> float:
    """The F1 of the words that answer and reference share, without regard to case and signs; the best of a list of references (SQuAD: Rajpurkar et
    al. 2016, arXiv 1606.05250). In scripts without spaces each sign counts as a word."""
    wanted = [reference] if isinstance(reference, str) else reference
    return max(_f1(_words(one), _words(completion)) for one in wanted)


def _words(text: str) -> Counter[str]:
    return Counter(words(text) if text.strip() else ())


def _f1(wanted: Counter[str], given: Counter[str]) -> float:
    if not wanted or not given:
        return float(wanted == given)
    return 2 * (wanted & given).total() / (wanted.total() + given.total())


SCORERS: dict[str, Callable[[Any, str], float]] = {
    "function_call": function_call,
    "bfcl": bfcl,
    "constraints": constraints,
    "exact": exact,
    "word_f1": word_f1,
    "number": number,
    "regex": regex,
    "choice": choice,
    "reasoning_gym": reasoning_gym,
    "lm_eval": lm_eval,
}
CHOICE, LM_EVAL = "choice", "lm_eval"


OLDER: dict[str, Callable[[Any, str], float]] = {"function_call": function_call_of_arguments}
"""Scorers as they were before `lamdatui.domain.schemes.ASKED`, where they were others."""


def score(name: str, reference: Any, completion: str, *, older: bool = False) -> float:
    """The score of one completion. No completion makes it raise; a reference of the wrong shape does (see `problem`).

    `older`: as runs that began before `lamdatui.domain.schemes.ASKED` score. Raises LamdatuiError on an unknown scorer.
    """
    scorer = (older and OLDER.get(name)) or SCORERS.get(name)
    if scorer is None and name in JUDGED:
        raise LamdatuiError(
            f"the scorer {name} asks a model, which is not asked here",
            fix="score with a task whose judge is named in the profile",
        )
    if scorer is None:
        raise LamdatuiError(f"no scorer is called {name!r}", fix=f"use one of: {', '.join(sorted(SCORERS))}")
    return scorer(reference, completion)


def is_known(name: str) -> bool:
    """Whether a scorer is one of these, and what it needs is installed."""
    try:
        return name in SCORERS and (name != LM_EVAL or package().is_dir())
    except LamdatuiError:
        return False


def problem(name: str, reference: Any) -> str | None:
    """What is wrong with a task row's reference for this scorer, or None; so that bad data is found before a run."""
    if name == LM_EVAL:
        return lm_eval_problem(reference)
    if name in JUDGED:
        return judge_problem(name, reference)
    try:
        if wrong := _PROBLEMS[name](reference) if name in _PROBLEMS else None:
            return wrong
        for probe in ('{"name": "", "arguments": {}}', "a b."):
            score(name, reference, probe)
    except LamdatuiError:
        raise
    except RecursionError:
        return "it is nested too deeply"
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, ZeroDivisionError) as error:
        return f"{type(error).__name__}: {error}"
    return None


def _exact_problem(reference: Any) -> str | None:
    wanted = [reference] if isinstance(reference, str) else reference
    good = isinstance(wanted, list) and wanted and all(isinstance(one, str) for one in wanted)
    return None if good else "it is a text, or a list of them"


def _call_problem(reference: Any) -> str | None:
    ((wanted, allowed),) = reference["answer"].items()
    if wanted not in {function["name"] for function in reference["function"]}:
        return f"the answer calls {wanted!r}, which is not among the functions"
    # Calls with values of every type: what would stumble over one of a model's does so here.
    calls = [dict.fromkeys(allowed, value) for value in (0, "a", True, None, [0], {"a": 0})]
    calls.append({key: choices[0] for key, choices in allowed.items() if choices})
    for call in calls:
        function_call(reference, json.dumps({"name": wanted, "arguments": call}))
    return None


def _constraints_problem(reference: Any) -> str | None:
    check_arguments(reference["constraints"])
    return None


_PROBLEMS: dict[str, Callable[[Any], str | None]] = {
    "exact": _exact_problem,
    "word_f1": _exact_problem,
    "function_call": _call_problem,
    "bfcl": bfcl_problem,
    "constraints": _constraints_problem,
    "number": number_problem,
    "regex": regex_problem,
    "choice": choice_problem,
}
