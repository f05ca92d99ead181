"""What chooses the next action. Policies are looked up by name and imported only when one is made."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lamdatui.base.errors import LamdatuiError
from lamdatui.domain.policies import SUMMARIES

if TYPE_CHECKING:
    from lamdatui.domain.choice import Policy
    from lamdatui.planner.prompts import Load
    from lamdatui.planner.settings import PlannerSettings


@dataclass(frozen=True)
class Ingredients:
    """What policies are made from; each takes what it needs. `share`, `adapt`: see `HybridPolicy`; `script`: `ScriptedPolicy`."""

    planner: PlannerSettings | None = None
    load_prompt: Load | None = None
    log_path: Path = Path("planner.log")
    share: float = 0.3
    adapt: bool = True
    script: Sequence[Mapping[str, Any]] = field(default_factory=tuple)


def _lamdagent(given: Ingredients) -> Policy:
    from lamdatui.policy.lamdagent import LamdagentPolicy

    if given.planner is None or given.load_prompt is None:
        raise LamdatuiError(
            "the policy lamdagent needs a planner", where="planner", fix="name one in the profile, or use policy: hybrid"
        )
    return LamdagentPolicy(given.planner, given.load_prompt, given.log_path)


def _hybrid(given: Ingredients) -> Policy:
    from lamdatui.policy.hybrid import HybridPolicy

    return HybridPolicy(given.planner, given.load_prompt, given.log_path, share=given.share, adapt=given.adapt)


def _surrogate(given: Ingredients) -> Policy:
    from lamdatui.policy.hybrid import HybridPolicy

    return HybridPolicy(None, None, given.log_path)


def _tpe(given: Ingredients) -> Policy:
    from lamdatui.policy.tpe import TpePolicy

    return TpePolicy()


def _random(given: Ingredients) -> Policy:
    from lamdatui.policy.uniform import RandomPolicy

    return RandomPolicy()


def _evolution(given: Ingredients) -> Policy:
    from lamdatui.policy.evolution import EvolutionPolicy

    return EvolutionPolicy()


def _halving(given: Ingredients) -> Policy:
    from lamdatui.policy.halving import HalvingPolicy

    return HalvingPolicy()


def _scripted(given: Ingredients) -> Policy:
    from lamdatui.policy.scripted import ScriptedPolicy

    if not given.script:
        raise LamdatuiError("the policy scripted needs a script", where="policy.script", fix="list its actions in the profile")
    return ScriptedPolicy(given.script)


_MAKERS: dict[str, Callable[[Ingredients], Policy]] = {
    "hybrid": _hybrid,
    "surrogate": _surrogate,
    "lamdagent": _lamdagent,
    "tpe": _tpe,
    "evolution": _evolution,
    "halving": _halving,
    "random": _random,
    "scripted": _scripted,
}

POLICIES: dict[str, tuple[str, Callable[[Ingredients], Policy]]] = {
    name: (summary, _MAKERS[name]) for name, summary in SUMMARIES.items()
}
"""Policies by name → a line about each, and what makes it."""

CHEAP = ("surrogate", "tpe", "evolution", "random")
"""Policies that choose in a fraction of a second and ask nobody: they can be asked beside any other, as shadows."""


def known_policy(name: str) -> None:
    """Raises LamdatuiError, with the nearest name, unless there is a policy of that name."""
    if name not in POLICIES:
        close = difflib.get_close_matches(name, POLICIES, n=1)
        fix = f"did you mean {close[0]!r}?" if close else f"known policies: {', '.join(POLICIES)}"
        raise LamdatuiError(f"no policy named {name!r}", where="policy", fix=fix)


def make_policy(name: str, given: Ingredients) -> Policy:
    """A policy by name; nothing is started yet.

    Raises LamdatuiError for an unknown name (with the nearest), a missing planner or script, or a broken prompt.
    """
    known_policy(name)
    return POLICIES[name][1](given)
