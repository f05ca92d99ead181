"""What a screen about one node of the tree is about: a model, with its trial unless it is a base, or a trial that made none. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lamdatui.domain.objects import ModelObject
from lamdatui.domain.state import RunState
from lamdatui.domain.trials import Trial
from lamdatui.ui.view.format import (
    number,
)

if TYPE_CHECKING:
    pass


if TYPE_CHECKING:
    pass


@dataclass(frozen=True, slots=True)
class Subject:
    """What a node screen is about: a model, with its trial unless it is a base; or a trial that made none."""

    key: str
    model: str | None
    trial: Trial | None

    @property
    def name(self) -> str:
        """`m3`, or `trial 4` where it made nothing."""
        made = self.trial.dataset if self.trial else None
        return self.model or made or (f"trial {self.trial.number}" if self.trial else "?")


def subject(state: RunState, key: str) -> Subject | None:
    """What `model:ID` or `trial:N` stands for; None when the run has no such thing."""
    kind, _, name = key.split("@")[0].partition(":")
    if kind == "model" and isinstance(item := state.pool.items.get(name), ModelObject):
        return Subject(key, name, state.trials.get(item.trial) if item.trial is not None else None)
    trial = state.trials.get(int(name)) if kind == "trial" and name.isdigit() else None
    return Subject(key, trial.model, trial) if trial else None


def action_fields(action: Mapping[str, Any] | None) -> dict[str, str]:
    """An action as names and values that can be set beside another's."""
    if not action:
        return {}
    fields = {"action": str(action.get("type", "?"))}
    fields |= {str(name): "+".join(map(str, ids)) for name, ids in (action.get("inputs") or {}).items()}
    fields |= {str(name): number(value) for name, value in (action.get("params") or {}).items()}
    return {**fields, "seed": str(action.get("seed", ""))}
