"""What a store holds that no run needs: told, removed on request, and never more than that."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from lamdatui.store.artifacts import Store
from tests.conftest import Commands
from tests.test_run import wait_for


def published(store: Store, name: str) -> Path:
    """An object of the store that no run knows."""
    with store.staging() as staged:
        (staged / "model.safetensors").write_bytes(b"x" * 5000)
        return store.publish(staged, name, {"kind": "full"})


def test_only_what_no_run_needs_goes(lab_profile, cli: Commands) -> None:
    profile = str(lab_profile())
    done = cli("run", profile, "--name", "kept", "--headless", "--mode", "auto", "--max-trials", "3")
    assert done.returncode == 0, done.stderr
    before = cli.show("kept")
    store = Store(cli.runs / "store")
    objects = {path.name for path in (store.root / "objects").iterdir()}
    assert objects and json.loads(cli("prune", "--json").stdout) == []
    other = published(store, "f" * 64)
    (store.root / "checkpoints" / ("e" * 64) / "10").mkdir(parents=True)
    (store.root / "damaged").mkdir(exist_ok=True)
    (store.root / "damaged" / "d-1").mkdir()
    shown = cli("prune")
    assert "nothing was removed" in shown.stderr and other.exists()
    assert (
        "no run names it" in shown.stdout and "checkpoints of work that is over" in shown.stdout and "damaged" in shown.stdout
    )
    assert "MiB freed" in cli("prune", "--yes").stderr
    assert {path.name for path in (store.root / "objects").iterdir()} == objects
    assert not any((store.root / "checkpoints").iterdir()) and not any((store.root / "damaged").iterdir())
    again = cli("run", profile, "--name", "kept", "--headless", "--mode", "auto", "--max-trials", "3")
    assert again.returncode == 0 and cli.show("kept")["trials"] == before["trials"]
    # A run that is removed needs nothing any more.
    shutil.rmtree(cli.runs / "kept")
    assert {item["path"].rpartition("/")[2] for item in json.loads(cli("prune", "--json").stdout)} == objects


def test_nothing_goes_while_a_run_can_not_be_read(lab_profile, cli: Commands) -> None:
    done = cli("run", str(lab_profile()), "--name", "r", "--headless", "--mode", "auto", "--max-trials", "1")
    assert done.returncode == 0, done.stderr
    (cli.runs / "r" / "run.db").rename(cli.folder / "run.db")
    refused = cli("prune", "--yes")
    assert refused.returncode == 2 and "without its run.db" in refused.stderr
    for file in (cli.runs / "r").glob("run.db-*"):
        file.unlink()
    (cli.runs / "r" / "run.db").write_bytes(b"no database")
    assert cli("prune", "--yes").returncode != 0
    assert any((cli.runs / "store" / "objects").iterdir())


def test_nothing_goes_while_an_engine_is_at_work(lab_profile, cli: Commands) -> None:
    long = ("max_steps: { default: 40,", "max_steps: { default: 400,")
    cli.popen("run", str(lab_profile(long)), "--name", "r", "--headless", "--mode", "auto", "--max-trials", "1")
    wait_for(cli, "r", lambda state: any(step.status == "running" for step in state.steps.values()))
    refused = cli("prune", "--yes")
    assert refused.returncode == 2 and "an engine is at work" in refused.stderr
    assert cli("stop", "r", "--now").returncode == 0
