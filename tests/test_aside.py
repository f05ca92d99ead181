"""What is made beside a search goes away only once it is on record, and only what the run itself made for it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lamdatui.domain.baselines import NAMES, PURPOSE
from lamdatui.domain.objects import ModelObject
from lamdatui.domain.state import RunState
from lamdatui.domain.trials import StepRecord
from lamdatui.engine.aside import Aside
from lamdatui.engine.baselines import Baselines, Found
from lamdatui.store.artifacts import Store

MADE, FOUND, TRIAL, IN_POOL, FAILED = ALL = tuple(f"{number}" * 64 for number in range(1, 6))


@pytest.fixture
def run(tmp_path: Path) -> Any:
    """As much of a run as looks after its objects: one of them made beside its search, one found, two of its search, one of a step that did not end well."""
    store = Store(tmp_path / "store")
    for digest in ALL:
        with store.staging() as staged:
            (staged / "weights").write_bytes(b"weights")
            store.publish(staged, digest, {"kind": "full"})
    state = RunState(name="r", max_trials=1, wall_seconds=900.0, status="running")
    state.pool.add(ModelObject("m1", IN_POOL, "llama", "l", f"store:{IN_POOL}", trial=1))
    for number, (purpose, digest, cached) in enumerate(
        (
            (PURPOSE, MADE, False),
            (PURPOSE, FOUND, True),
            ("action", TRIAL, False),
            (PURPOSE, IN_POOL, False),
            (PURPOSE, FAILED, False),
        )
    ):
        key = f"{number}-{digest[:8]}/1"
        status = "failed" if digest == FAILED else "ok"
        state.steps[key] = StepRecord(key, purpose, None, digest, status=status, cached=cached)
    told: list[str] = []
    recorded: list[tuple[str, Any]] = []
    return SimpleNamespace(
        state=state,
        store=store,
        told=told,
        recorded=recorded,
        now=lambda: 0.0,
        problem=lambda name, reason: told.append(f"{name}: {reason}"),
        phase=lambda *_: None,
        record=recorded.append,
    )


def kept(run: Any) -> list[str]:
    return [digest for digest in ALL if run.store.find(digest) is not None]


async def test_only_what_the_run_made_beside_its_search_goes_away(run: Any) -> None:
    await Aside(run, PURPOSE, lambda: 0.0).drop(ALL)
    assert kept(run) == [FOUND, TRIAL, IN_POOL, FAILED] and run.told == []
    await Aside(run, PURPOSE, lambda: 0.0).drop([MADE])
    assert run.told == [], "what is gone is gone"


async def test_what_can_not_be_dropped_stays_and_is_told(run: Any) -> None:
    manifest = run.store.root / "objects" / MADE / "manifest.json"
    manifest.write_text("{}")
    await Aside(run, PURPOSE, lambda: 0.0).drop([MADE])
    assert manifest.parent.is_dir()
    [why] = run.told
    assert why.startswith(f"store: {MADE[:12]} is not needed any more, and stays: ")


async def test_spare_weights_of_a_baseline_stay_until_it_is_on_record(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine that ends before would leave them to be trained again."""
    model = ModelObject("sft_all", FOUND, "llama", "l", f"store:{FOUND}")
    baselines = Baselines(run)

    async def sealed() -> None: ...

    async def found() -> Found:
        return Found(model, "sft", run, spare=frozenset({MADE}))

    at_record: list[list[str]] = []
    run.record = lambda fact: (run.recorded.append(fact), at_record.append(kept(run)))
    monkeypatch.setattr(baselines, "_sealed", sealed)
    monkeypatch.setattr(baselines, "_sft_all", found)
    monkeypatch.setattr(baselines, "_told", lambda found: {"digest": found.model.digest})
    run.state.baselines = {name: {"digest": FOUND} for name in NAMES if name != "sft_all"}
    await baselines.make(lambda: True)
    assert run.recorded == [("baseline.recorded", {"name": "sft_all", "baseline": {"digest": FOUND}})]
    assert at_record == [list(ALL)]
    assert kept(run) == [FOUND, TRIAL, IN_POOL, FAILED]
