"""Names of the policies with a line about each, for those who only have to name them. What makes them: `lamdatui.policy`."""

from __future__ import annotations

DEFAULT = "hybrid"

SUMMARIES: dict[str, str] = {
    "hybrid": "a surrogate model ranks, the planner chooses on a share of the trials; the default",
    "surrogate": "the hybrid without a planner: sequential model-based search",
    "lamdagent": "the paper: the planner chooses the type, then the objects, and keeps a memory",
    "tpe": "Optuna's Tree-structured Parzen Estimator",
    "evolution": "regularised evolution",
    "halving": "successive halving on the size of the data",
    "random": "uniform over types, then over candidates",
    "scripted": "follows the profile's list of actions",
}
"""Name → what it does, in the order in which they are offered."""
