"""Whom a run's files let in: its user alone, whatever the umask; what is exported goes by the umask. And the file `socket`."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from lamdatui.base.paths import make_private, private, socket_path
from lamdatui.inputs.profile import load_profile
from lamdatui.wire.rundir import prepare_run, wait_for_end
from tests.conftest import Commands


@pytest.fixture(autouse=True)
def umask() -> Iterator[None]:
    before = os.umask(0o022)
    yield
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def open_to_others(folder: Path) -> list[str]:
    every = [folder, *folder.rglob("*")]
    return sorted(f"{mode(path):o} {path}" for path in every if not path.is_symlink() and mode(path) & 0o077)


def test_a_new_run_is_private_before_its_engine_is_there(lab_profile, tmp_path: Path) -> None:
    run_dir = prepare_run(load_profile(lab_profile()), "x", tmp_path / "new" / "runs")
    assert run_dir.is_dir()
    assert open_to_others(tmp_path / "new") == []
    (tmp_path / "other").touch()
    assert mode(tmp_path / "other") == 0o644


def test_make_private_keeps_the_owners_rights_and_follows_no_link(tmp_path: Path) -> None:
    (tmp_path / "outside").touch()
    run = tmp_path / "run"
    (run / "steps").mkdir(parents=True)
    for name, before in (("script", 0o755), ("read-only", 0o444)):
        (run / "steps" / name).touch()
        (run / "steps" / name).chmod(before)
    (run / "link").symlink_to(tmp_path / "outside")
    make_private(run)
    assert open_to_others(run) == []
    assert (mode(run), mode(run / "steps" / "script"), mode(run / "steps" / "read-only")) == (0o700, 0o700, 0o400)
    assert mode(tmp_path / "outside") == 0o644
    with pytest.raises(ZeroDivisionError), private():
        raise ZeroDivisionError
    assert os.umask(0o022) == 0o022


def test_a_run_its_store_and_its_steps_are_private_and_an_exported_model_is_not(lab_profile, cli: Commands) -> None:
    run = ["run", str(lab_profile()), "--name", "x", "--headless", "--mode", "auto", "--max-trials", "1"]
    done = cli(*run)
    assert done.returncode == 0, done.stderr
    assert wait_for_end(cli.runs / "x", 30)
    found = {path.name for path in cli.runs.rglob("*") if path.is_file()}
    assert found >= {"run.db", "engine.log", "steps.log", "log.txt", "metrics.jsonl", "outcome.json", "manifest.json", "lock"}
    assert open_to_others(cli.runs) == []

    exported = cli("export", "x", "--to", "out")
    assert exported.returncode == 0, exported.stderr
    assert mode(cli.folder / "out") == 0o755
    every = list((cli.folder / "out").rglob("*"))
    assert {mode(path) for path in every if path.is_file()} == {0o644}
    assert {mode(path) for path in every if path.is_dir()} == {0o755}
    again = cli("step", "x", "1", "--dry-run")
    assert again.returncode == 0, again.stderr
    scratch = Path(again.stderr.splitlines()[-1].rpartition(": ")[2])
    assert open_to_others(scratch) == []

    # As an earlier version left it; whoever opens the run starts its engine, and finds where it listens.
    (cli.runs / "x" / "socket").unlink()
    for path in (cli.runs, *cli.runs.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    shown = cli("attach", "x", "--no-console", LAMDATUI_LINGER="5")
    assert shown.returncode == 0, shown.stderr
    pointer = cli.runs / "x" / "socket"
    assert Path(pointer.read_text()) == socket_path(cli.runs / "x")
    assert socket_path(cli.runs / "x").is_socket()
    assert open_to_others(cli.runs / "x") + open_to_others(cli.runs / "store") == []
    assert wait_for_end(cli.runs / "x", 30)
