"""What a person orders, in real runs: over the socket, across a killed engine and after the end."""

from __future__ import annotations

import asyncio
import os
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from lamdatui.base.errors import LamdatuiError
from lamdatui.domain.state import RunState
from lamdatui.inputs.profile import load_profile
from lamdatui.store.journal import Journal, read_state
from lamdatui.wire.rundir import StartOptions, prepare_run, start_engine, wait_for_end
from tests.conftest import Commands
from tests.test_run import executions, wait_for
from tests.test_steering import POLICY, QUICK, awaiting, connected

Json = dict[str, Any]
NO_OPENING = (POLICY, "policy: { name: random, opening: false }")


def tuning(model: str, data: str, **more: Any) -> Json:
    return {"type": "sft", "inputs": {"model": [model], "dataset": [data]}, "params": {"max_steps": 20}, **more}


def ask(run_dir: Path, command: str, role: str = "console", **args: Any) -> Any:
    """A command's result."""

    async def body() -> Any:
        async with connected(run_dir, role) as client:
            return await client.command(command, **args)

    return asyncio.run(body())


def decide(run_dir: Path, state: RunState, verdict: str, **args: Any) -> None:
    trial = state.open_trial
    assert trial is not None
    assert trial.action is not None
    ask(run_dir, "decide", number=trial.number, digest=trial.action["digest"], verdict=verdict, **args)


@pytest.fixture
def begun(lab_profile: Callable[..., Path], cli: Commands) -> Path:
    """A run of three trials whose engine waits for a decision on its first one."""
    run_dir = prepare_run(load_profile(lab_profile(NO_OPENING, QUICK)), "x", cli.runs)
    start_engine(run_dir, StartOptions(mode="ask", max_trials=3))
    awaiting(cli, "x", 1)
    return run_dir


def kill(run_dir: Path) -> None:
    pid = read_state(run_dir / "run.db").engine_pid
    assert pid is not None
    process = psutil.Process(pid)
    os.kill(pid, signal.SIGKILL)
    psutil.wait_procs([process], timeout=10)


def projections_hold(run_dir: Path) -> None:
    """The engine is gone and what its journal has projected is what the events say."""
    wait_for_end(run_dir, 30)
    journal = Journal(run_dir / "run.db")
    before = journal.projections()
    journal.rebuild()
    assert journal.projections() == before
    journal.close()


def first_orders(begun: Path, cli: Commands) -> Json:
    """Two trials of a person's choice; the order that was queued."""
    assert {"sft", "dpo", "merge_ties"} <= ask(begun, "actions", "viewer")["types"].keys()
    own = tuning("llama", "call_replay")
    tried = ask(begun, "try_action", "viewer", **own)
    assert (tried["problems"], tried["trial"], tried["cached"], tried["expected"]) == ([], None, False, None)
    assert tried["estimate"]["memory_bytes"] > 0
    proposed = read_state(begun / "run.db").trials[1].action
    assert proposed is not None
    assert ask(begun, "try_action", **{name: proposed[name] for name in ("type", "inputs", "params", "seed")}) == {
        **ask(begun, "try_action", **{name: proposed[name] for name in ("type", "inputs", "params")}),
        "problems": [],
        "digest": proposed["digest"],
        "trial": None,
    }
    wrong = ask(begun, "try_action", **tuning("llama", "prefer"))
    assert "format preference" in wrong["problems"][0]
    with pytest.raises(LamdatuiError, match="format preference"):
        ask(begun, "propose", **tuning("llama", "prefer"))
    with pytest.raises(LamdatuiError, match="a viewer can't steer"):
        ask(begun, "propose", "viewer", **own)

    # One order stays, one is taken back, and the first trial becomes another action than the proposed one.
    first = ask(begun, "propose", **own, note="the data that replays")
    assert (first["action"]["digest"], first["trials_left"]) == (tried["digest"], 2)
    second = ask(begun, "propose", **own)
    assert (second["action"]["seed"], second["trials_left"]) == (first["action"]["seed"] + 1, 1)
    ask(begun, "withdraw", id=second["id"])
    with pytest.raises(LamdatuiError, match="is queued"):
        ask(begun, "withdraw", id=second["id"])
    decide(begun, read_state(begun / "run.db"), "edit", action=tuning("llama", "reverse"), reason="rather this")

    state = awaiting(cli, "x", 3)
    assert [state.trials[n].status for n in (1, 2)] == ["done", "done"], state.problems
    edited, ordered = state.trials[1], state.trials[2]
    assert edited.decision == {"verdict": "edit", "by": "person", "reason": "rather this"}
    assert edited.action is not None
    assert edited.proposal is not None
    assert edited.action["inputs"]["dataset"] == ["reverse"]
    assert edited.proposal["action"]["digest"] != edited.action["digest"]
    assert ordered.decision == {"verdict": "approve", "by": "person", "reason": "their own action"}
    assert (ordered.proposed_by, ordered.reason) == ("person", "the data that replays")
    assert ordered.action == first["action"]
    assert ordered.proposal is not None
    assert ordered.proposal["queued"] == first["id"]
    return first


def test_orders_are_run_in_turn_across_a_killed_engine_and_after_the_end(begun: Path, cli: Commands) -> None:
    own, first = tuning("llama", "call_replay"), first_orders(begun, cli)
    # Two trials are enough to expect something of a third action.
    extended = tuning("m2", "call_replay")
    assert 0 <= ask(begun, "try_action", **extended)["expected"] <= 3
    assert ask(begun, "try_action", **own)["trial"] == 2

    # A re-run and an extension are queued; the engine is killed before their turn.
    again = ask(begun, "propose", **own)
    assert again["action"]["seed"] == first["action"]["seed"] + 1
    further = ask(begun, "propose", **extended)
    kill(begun)
    start_engine(begun, StartOptions())
    state = wait_for(cli, "x", lambda s: s.phase == "waiting" and s.epoch == 2)
    assert list(state.queue) == [again["id"], further["id"]]
    decide(begun, state, "skip")
    state = wait_for(cli, "x", lambda s: s.status == "done")
    assert list(state.queue) == [again["id"], further["id"]]
    won = state.winner

    # After the end, two trials more: what is queued comes first, and the winner is chosen anew.
    ask(begun, "more", trials=2)
    state = wait_for(cli, "x", lambda s: s.status == "done" and len(s.trials) == 5)
    assert state.queue == {}
    assert [state.trials[n].action for n in (4, 5)] == [again["action"], further["action"]]
    assert [state.trials[n].status for n in (4, 5)] == ["done", "done"], state.problems
    assert won is not None
    assert state.winner is not None
    assert state.gain is not None
    assert "sealed" in state.gain
    assert set(Counter(executions(cli.runs)).values()) == {1}
    assert state.max_trials == 5
    projections_hold(begun)
    asyncio.run(reopen(begun))
    state = awaiting(cli, "x", 6)
    assert (state.max_trials, state.status, state.winner) == (6, "running", None)
    ask(begun, "stop", when="now")
    wait_for(cli, "x", lambda s: s.status == "stopped")


async def reopen(run_dir: Path) -> None:
    """Look at the run that has ended, then ask for one trial more."""
    start_engine(run_dir, StartOptions(view=True))
    async with connected(run_dir) as client:
        assert len((await client.command("actions"))["types"]) > 3
        with pytest.raises(LamdatuiError, match="ask for more trials first"):
            await client.command("propose", **tuning("llama", "copy"))
        await client.command("more", trials=1)


def test_an_order_that_became_illegal_is_taken_out_and_more_trials_are_allowed_while_it_goes(
    begun: Path, cli: Commands
) -> None:
    state = read_state(begun / "run.db")
    trial = state.trials[1]
    assert trial.action is not None
    same = {"type": trial.action["type"], "inputs": trial.action["inputs"], "seed": 77}
    same["params"] = trial.action["params"]
    name = ask(begun, "propose", **same)["id"]
    ask(begun, "more", trials=4)
    with pytest.raises(LamdatuiError, match="more takes 1 to"):
        ask(begun, "more", trials=0)
    decide(begun, state, "veto", reason="never this")
    state = awaiting(cli, "x", 2)
    assert state.max_trials == 7
    assert state.queue == {}
    assert state.trials[2].proposed_by == "random"
    [problem] = state.problems
    assert problem["where"] == "queue"
    assert problem["message"].startswith(f"{trial.action['type']}(")
    assert "never this" in problem["message"]
    assert name not in state.queue
    ask(begun, "stop", when="now")
    wait_for(cli, "x", lambda s: s.status == "stopped")
    assert executions(cli.runs) == []
