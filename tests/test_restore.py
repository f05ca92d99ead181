"""Whatever ends the console on whatever screen: the terminal is what it was, nothing typed leaks, the run goes on."""

from __future__ import annotations

from pathlib import Path

import pytest

from lamdatui.inputs.profile import load_profile
from lamdatui.wire import rundir
from tests.conftest import Commands
from tests.restore import CAUSES, SCREENS, SUSPENDED, Cell, drawn, table
from tests.test_run import wait_for
from tests.ui.fake_engine import FakeEngine, in_thread
from tests.ui.script import add_history, add_waiting

CODES = {"exit": 0, "exception": 1, "INT": 130, "TERM": 143, "HUP": 129, "QUIT": 131, "KILL": 137, "SEGV": 139}


def code_of(cell: Cell) -> int:
    """The launcher's exit code for a cell where all is well."""
    return 0 if cell.screen in SUSPENDED and cell.cause in ("INT", "QUIT") else CODES[cell.cause]


def test_the_terminal_is_restored_where_it_matters_most(tmp_path: Path) -> None:
    run_dir = tmp_path / "lab-01"
    run_dir.mkdir()
    engine = FakeEngine(run_dir)
    add_history(engine)
    add_waiting(engine)
    with in_thread(engine):
        cells = [
            *table(run_dir, ["main"], ["exit", "exception", "INT", "TERM", "KILL"]),
            *table(run_dir, ["veto, input focused"], ["exception", "KILL"]),
        ]
    assert [cell for cell in cells if cell.wrong] == []
    assert {(cell.cause, cell.code) for cell in cells} <= set(CODES.items())
    assert not {name for name, _ in engine.commands} - {"attach", "actions", "try_action"}, "nothing was decided or stopped"


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_every_cause_on_every_screen(lab_profile, cli: Commands) -> None:
    run_dir = rundir.prepare_run(load_profile(lab_profile()), "seen", cli.runs)
    rundir.start_engine(run_dir, rundir.StartOptions())
    state = wait_for(cli, "seen", lambda state: 1 in state.trials and state.trials[1].status == "awaiting")
    cells = table(run_dir, SCREENS, CAUSES)
    print("\n" + drawn(cells))
    assert [cell for cell in cells if cell.wrong or cell.code != code_of(cell)] == []
    after = wait_for(cli, "seen", lambda _: True)
    assert (after.engine_pid, after.trials[1].status) == (state.engine_pid, "awaiting"), "the run goes on"
    assert rundir.is_alive(run_dir)
