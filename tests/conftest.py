"""What tests share: homes that are never the user's, the catalogue's entries, runs that are reaped by identity."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from lamdatui.base import paths

if TYPE_CHECKING:
    from tests.landed import Landed

REAL_CATALOGUE = paths.cache_dir() / "catalogue"
CHECKOUT = Path(__file__).parent.parent


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of its own for each test, which shares only the catalogue that `make test` has fetched."""
    place = tmp_path / "home"
    (place / "cache").mkdir(parents=True)
    (place / "cache" / "catalogue").symlink_to(REAL_CATALOGUE)
    monkeypatch.setenv("LAMDATUI_HOME", str(place))
    monkeypatch.setenv("LAMDATUI_LINGER", "0.2")
    monkeypatch.chdir(tmp_path)
    return place


def _entry(name: str) -> Path:
    path = REAL_CATALOGUE / name
    if not (path / "manifest.json").exists():
        pytest.fail(f"{name} is not fetched: run `make test`, or `lamdatui models fetch {name}`")
    return path


@pytest.fixture(scope="session")
def lab() -> Path:
    """The lab's bases, tasks and data."""
    return _entry("lab-bases")


@pytest.fixture(scope="session")
def gguf() -> Path:
    """The embedded planner's weights."""
    return _entry("smollm2-135m-gguf") / "SmolLM2-135M-Instruct.Q4_1.gguf"


@pytest.fixture
def lab_profile(lab: Path, tmp_path: Path) -> Callable[..., Path]:
    """Writes the shipped lab profile with changes: `lab_profile(("seed: 1", "seed: 2"))`."""

    def write(*changes: tuple[str, str]) -> Path:
        text = (CHECKOUT / "profiles" / "lab.yaml").read_text()
        for old, new in changes:
            assert old in text, f"{old!r} is not in lab.yaml"
            text = text.replace(old, new)
        if not any("baselines" in new for _, new in changes):
            # They have tests of their own, and take half of a run's time.
            text = text.replace("budget: {", "budget: { baselines: 0, replicates: 0, promotion: 0,", 1)
        path = tmp_path / "lab.yaml"
        path.write_text(text)
        return path

    return write


class Commands:
    """Runs `lamdatui` as a user does, in the test's folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = self.working = folder
        self.runs = folder / "lamdatui-runs"

    def __call__(self, *words: str, timeout: float = 240, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.line(*words),
            cwd=self.working,
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            timeout=timeout,
        )

    def line(self, *words: str) -> list[str]:
        """The command line."""
        return [sys.executable, "-m", "lamdatui", *map(str, words)]

    def popen(self, *words: str, **environment: str) -> subprocess.Popen[str]:
        """Start without waiting."""
        return subprocess.Popen(
            self.line(*words),
            cwd=self.working,
            env={**os.environ, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def show(self, run: str) -> dict[str, Any]:
        """`lamdatui show RUN --json`."""
        done = self("show", run, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)


@pytest.fixture
def cli(tmp_path: Path) -> Iterator[Commands]:
    """The command line; every engine, host and step below the test's folder is ended afterwards."""
    yield Commands(tmp_path)
    ours = []
    for process in psutil.process_iter(["cmdline", "cwd"]):
        words = process.info["cmdline"] or []
        inside = process.info["cwd"] and Path(process.info["cwd"]).is_relative_to(tmp_path)
        if inside and "-m" in words and any(w.startswith("lamdatui") for w in words):
            ours.append(process)
    for process in ours:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(ours, timeout=10)


@pytest.fixture
def landed(cli: Commands) -> Landed:
    """Runs of the version before, in the test's folder."""
    from tests.landed import Landed

    return Landed(cli)
