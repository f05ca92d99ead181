"""What chooses the next action. Policies are looked up by name and imported only when one is made."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from lamdatui.errors import LamdatuiError

if TYPE_CHECKING:
    from lamdatui.planner.prompts import Load
    from lamdatui.planner.settings import PlannerSettings
    from lamdatui.policy.base import Policy

    Factory = Callable[[PlannerSettings | None, Load, Path], Policy]


def _lamdagent(planner: PlannerSettings | None, load_prompt: Load, log_path: Path) -> Policy:
    from lamdatui.policy.lamdagent import LamdagentPolicy

    if planner is None:
        raise LamdatuiError(
            "the policy lamdagent needs a planner",
            where="planner",
            fix="name one in the profile, or use policy: random",
        )
    return LamdagentPolicy(planner, load_prompt, log_path)


def _random(planner: PlannerSettings | None, load_prompt: Load, log_path: Path) -> Policy:
    from lamdatui.policy.uniform import RandomPolicy

    return RandomPolicy()


POLICIES: dict[str, Factory] = {"lamdagent": _lamdagent, "random": _random}
"""Policies by name → what makes them."""


def make_policy(name: str, *, planner: PlannerSettings | None, load_prompt: Load, log_path: Path) -> Policy:
    """A policy by name; nothing is started yet. `log_path` is where a planner's process logs.

    Raises LamdatuiError for an unknown name (with the nearest), a missing planner or a broken prompt.
    """
    if name not in POLICIES:
        close = difflib.get_close_matches(name, POLICIES, n=1)
        fix = f"did you mean {close[0]!r}?" if close else f"known policies: {', '.join(POLICIES)}"
        raise LamdatuiError(f"no policy named {name!r}", where="policy", fix=fix)
    return POLICIES[name](planner, load_prompt, log_path)
