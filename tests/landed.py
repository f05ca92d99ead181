"""Runs that an earlier version recorded, unpacked into a test's folder. Later versions open, show and resume them."""

from __future__ import annotations

import json
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import apsw

from tests.conftest import Commands

ARCHIVE = Path(__file__).parent / "fixtures" / "landed.tar.xz"
PREFIX = "/tmp/lamdatui-landed"
"""Where they were recorded: every absolute path in them begins with it."""


class Landed:
    """The runs in a test's folder, and commands on them."""

    def __init__(self, commands: Commands) -> None:
        self.folder = unpack(commands.folder)
        self.runs = self.folder / "runs"
        self.project = self.folder / "project"
        self._commands = commands
        commands.working = self.project

    def cli(self, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """`lamdatui`, in the project's folder."""
        return self._commands("--runs-dir", str(self.runs), *words, **environment)

    def go_on(self, name: str, trials: int, **environment: str) -> subprocess.CompletedProcess[str]:
        """Go on with a run to a number of trials, headless, in mode auto."""
        words = ("--name", name, "--headless", "--mode", "auto", "--max-trials", str(trials))
        return self.cli("run", str(self.runs / name / "profile.yaml"), *words, **environment)

    def show(self, name: str) -> dict[str, Any]:
        """`lamdatui show NAME --json`."""
        done = self.cli("show", name, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)


def unpack(folder: Path) -> Path:
    """All runs below `folder`/landed/runs, as if they had been made there."""
    target = folder / "landed"
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(target, filter="data")
    for file in [
        *target.glob("runs/*/profile.yaml"),
        *target.glob("runs/*/steps/**/*.json"),
        *target.glob("expected/**/*.json"),
    ]:
        file.write_text(file.read_text().replace(PREFIX, str(target)))
    for file in target.glob("runs/*/run.db"):
        db = apsw.Connection(str(file))
        with db:
            for table, column in (("events", "data"), ("projections", "body")):
                db.execute(f"UPDATE {table} SET {column} = replace({column}, ?, ?)", (PREFIX, str(target)))
        db.close()
    return target


def expected(target: Path, name: str) -> dict[str, Any]:
    """What the version that recorded them said of a run: `lamdatui show NAME --json`."""
    return json.loads((target / "expected" / f"{name}.json").read_text())


def missing(old: Any, new: Any, place: str = "") -> list[str]:
    """Where `new` lacks something that `old` has, or has something else: fields that are new are allowed."""
    if isinstance(old, dict) and isinstance(new, dict):
        return [p for key in old for p in (missing(old[key], new[key], f"{place}.{key}") if key in new else [f"{place}.{key}"])]
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        return [p for i, (a, b) in enumerate(zip(old, new, strict=True)) for p in missing(a, b, f"{place}[{i}]")]
    return [] if old == new else [f"{place}: {old!r} → {new!r}"]
