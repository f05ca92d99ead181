"""The named scorers: pure functions of (reference, completion) → score in [0, 1]."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lamdatui.errors import LamdatuiError
from lamdatui.tasks.constraints import constraints
from lamdatui.tasks.function_call import function_call
from lamdatui.tasks.reasoning import reasoning_gym


def exact(reference: str | list[str], completion: str) -> float:
    """1.0 when the stripped answer equals the stripped reference, or one of a list of them."""
    wanted = [reference] if isinstance(reference, str) else reference
    return float(completion.strip() in {one.strip() for one in wanted})


SCORERS: dict[str, Callable[[Any, str], float]] = {
    "function_call": function_call,
    "constraints": constraints,
    "exact": exact,
    "reasoning_gym": reasoning_gym,
}


def score(name: str, reference: Any, completion: str) -> float:
    """The score of one completion. No completion makes it raise; a reference of the wrong shape does (see `problem`).

    Raises LamdatuiError on an unknown scorer.
    """
    scorer = SCORERS.get(name)
    if scorer is None:
        raise LamdatuiError(f"no scorer is called {name!r}", fix=f"use one of: {', '.join(sorted(SCORERS))}")
    return scorer(reference, completion)


def problem(name: str, reference: Any) -> str | None:
    """What is wrong with a task row's reference for this scorer, or None; so that bad data is found before a run."""
    probes = ('{"name": "", "arguments": {}}', "a b.")
    try:
        for probe in probes:
            score(name, reference, probe)
        if name == "function_call":
            ((wanted, _),) = reference["answer"].items()
            if wanted not in {function["name"] for function in reference["function"]}:
                return f"the answer calls {wanted!r}, which is not among the functions"
    except LamdatuiError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, ZeroDivisionError) as error:
        return f"{type(error).__name__}: {error}"
    return None
