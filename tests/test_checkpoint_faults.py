"""Steps that are killed at their fault points, and checkpoints of which any file is damaged: the newest whole one is taken, always."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from lamdatui.base.jsonio import read_record, write_record
from lamdatui.step.checkpoints import CheckpointCallback
from lamdatui.step.errors import Stopped
from lamdatui.step.files import LOG, read_outcome
from lamdatui.store.artifacts import MANIFEST
from lamdatui.store.checkpoints import KEPT, Checkpoints, folder_of, kept_steps
from tests.conftest import Commands
from tests.test_checkpoints import METHODS, Cut, has_checkpoint_of, steps_of, weights
from tests.test_recovery import assert_nothing_lost_or_repeated, run_words

TAKE = """
import sys
from pathlib import Path
from lamdatui.store.checkpoints import Checkpoints

root = Path(sys.argv[1])
checkpoints = Checkpoints(root, "d" * 64, 0.0, print, lambda: False)
for step in map(int, sys.argv[2:]):
    written = root / "written"
    (written / "sub").mkdir(parents=True)
    for name in ("adapter_model.safetensors", "optimizer.pt", "sub/rng_state.pth", "trainer_state.json"):
        (written / name).write_bytes(f"{name} of {step} ".encode() * 100)
    checkpoints.take(written, step)
"""
FILES = ("adapter_model.safetensors", "optimizer.pt", "sub/rng_state.pth", "trainer_state.json", "kept.json", MANIFEST)


def take(root: Path, *steps: int, faults: str = "") -> int:
    """Write checkpoints of these steps, in a process of its own; its exit status."""
    shutil.rmtree(root / "written", ignore_errors=True)
    words = [sys.executable, "-P", "-c", TAKE, str(root), *map(str, steps)]
    return subprocess.run(words, env={**os.environ, "LAMDATUI_FAULTS": faults}).returncode


def newest(root: Path) -> tuple[int, list[str]]:
    """The step of the checkpoint that is taken, 0 for none, and what was said meanwhile."""
    said: list[str] = []
    found = Checkpoints(root, "d" * 64, 0.0, said.append, lambda: False).newest()
    return int(found.name) if found else 0, said


def cut_at(share: float) -> Callable[[bytes], bytes]:
    # The last character of a manifest is the end of its line, without which it says the same.
    return lambda data: data[: min(int(len(data) * share), len(data) - 2)]


def flipped_at(share: float) -> Callable[[bytes], bytes]:
    def damage(data: bytes) -> bytes:
        place = min(int(len(data) * share), len(data) - 1)
        return data[:place] + bytes([data[place] ^ 1 << place % 8]) + data[place + 1 :]

    return damage


DAMAGES: dict[str, Callable[[bytes], bytes] | None] = {
    **{f"cut at {share}": cut_at(share) for share in (0.0, 0.1, 0.5, 1.0)},
    **{f"flipped at {share}": flipped_at(share) for share in (0.0, 0.2, 0.5, 0.9, 1.0)},
    "gone": None,
}


def apply(file: Path, damage: Callable[[bytes], bytes] | None) -> None:
    if damage is None:
        file.unlink()
    else:
        file.write_bytes(damage(file.read_bytes()))


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with the checkpoints of steps 5 and 10."""
    root = tmp_path_factory.mktemp("two")
    assert take(root, 5, 10) == 0
    return root


@pytest.mark.parametrize("name", FILES)
def test_whatever_file_is_damaged_the_one_before_is_taken_and_the_damaged_one_is_kept(
    two: Path, tmp_path: Path, name: str
) -> None:
    for told, damage in DAMAGES.items():
        root = tmp_path / told
        shutil.copytree(two, root)
        folder = folder_of(root, "d" * 64)
        apply(folder / "10" / name, damage)
        left = {file.relative_to(folder / "10"): file.read_bytes() for file in (folder / "10").rglob("*") if file.is_file()}
        found, said = newest(root)
        assert (found, kept_steps(folder)) == (5, [5]), told
        (aside,) = (root / "damaged").iterdir()
        assert {file.relative_to(aside): file.read_bytes() for file in aside.rglob("*") if file.is_file()} == left
        assert len(said) == 1 and "the checkpoint of step 10 is damaged" in said[0] and str(aside) in said[0]
        assert Path(name).name in said[0]
        # It is told once.
        assert newest(root) == (5, [])
        apply(folder / "5" / name, damage)
        assert newest(root)[0] == 0 and len(list((root / "damaged").iterdir())) == 2


def test_a_checkpoint_of_other_work_is_none(two: Path, tmp_path: Path) -> None:
    shutil.copytree(two, tmp_path / "store")
    said: list[str] = []
    os.rename(folder_of(tmp_path / "store", "d" * 64), folder_of(tmp_path / "store", "e" * 64))
    assert Checkpoints(tmp_path / "store", "e" * 64, 0.0, said.append, lambda: False).newest() is None
    assert len(said) == 2 and "it is of other work" in said[0]


@pytest.mark.parametrize("goes", [True, False])
def test_a_checkpoint_whose_manifest_leaves_a_file_out_is_not_used(two: Path, tmp_path: Path, goes: bool) -> None:
    """A step ended on it, at each try."""
    root = tmp_path / "store"
    shutil.copytree(two, root)
    folder = folder_of(root, "d" * 64) / "10"
    told = read_record(folder / MANIFEST)
    del told["files"][KEPT]
    write_record(folder / MANIFEST, told)
    if goes:
        (folder / KEPT).unlink()
    found, said = newest(root)
    assert found == 5 and f"damaged ({KEPT}: {MANIFEST} says nothing of it)" in said[0]


def test_what_can_not_be_moved_is_not_used(two: Path, tmp_path: Path) -> None:
    root = tmp_path / "store"
    shutil.copytree(two, root)
    (root / "damaged").touch()
    (folder_of(root, "d" * 64) / "10" / MANIFEST).unlink()
    found, said = newest(root)
    assert found == 5 and "can't be put aside" in said[0]


def test_damaged_checkpoints_go_where_their_room_is_needed(two: Path, tmp_path: Path) -> None:
    root = tmp_path / "store"
    shutil.copytree(two, root)
    (folder_of(root, "d" * 64) / "10" / MANIFEST).unlink()
    assert newest(root)[0] == 5
    (root / "damaged" / "an-object").mkdir()
    said: list[str] = []
    saving = CheckpointCallback(Checkpoints(root, "d" * 64, 0.0, said.append, lambda: False), Stopped, tmp_path / "busy")
    assert saving._has_room() and len(list((root / "damaged").iterdir())) == 2
    saving.needed = 2**60
    assert not saving._has_room()
    assert [path.name for path in (root / "damaged").iterdir()] == ["an-object"]
    assert "1 damaged checkpoints that were put aside are removed" in said[0] and len(said) == 2


def test_a_disk_that_is_full_when_a_checkpoint_is_written_is_told_with_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "written").mkdir()

    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_text", fail)
    with pytest.raises(OSError, match=r"No space left.*kept\.json"):
        Checkpoints(tmp_path, "d" * 64, 0.0, print, lambda: False).take(tmp_path / "written", 5)


@pytest.mark.parametrize(
    ("point", "kept"), [("checkpoint.before-manifest", 10), ("checkpoint.before-rename", 10), ("checkpoint.after-rename", 15)]
)
def test_a_kill_while_a_checkpoint_is_written_leaves_a_whole_one(tmp_path: Path, point: str, kept: int) -> None:
    assert take(tmp_path, 5, 10, 15, faults=f"{point}=kill@3") == -signal.SIGKILL
    assert newest(tmp_path) == (kept, [])
    assert take(tmp_path, 15, 20) == 0
    assert newest(tmp_path) == (20, []) and kept_steps(folder_of(tmp_path, "d" * 64)) == [15, 20]


@pytest.mark.slow
@pytest.mark.parametrize("point", ["checkpoint.before-manifest", "checkpoint.before-rename", "checkpoint.after-rename"])
def test_a_training_that_is_killed_at_its_checkpoint_makes_the_same_weights(lab: Path, tmp_path: Path, point: str) -> None:
    kind, inputs, params = METHODS["lora"]
    params = params | {"max_steps": 15}
    whole, cut = Cut(lab, tmp_path / "whole"), Cut(lab, tmp_path / "cut", faults=f"{point}=kill@3")
    outcome, _, action = whole.attempt(kind, inputs, **params)
    again, _, _ = cut.attempt(kind, inputs, **params)
    assert outcome["status"] == again["status"] == "ok" and read_outcome(cut.attempts[0]) is None
    first, second = map(steps_of, cut.attempts)
    assert 0 < second[0] <= first[-1] and second[-1] == params["max_steps"]
    assert weights(whole, action) == weights(cut, action)


@pytest.mark.slow
def test_whatever_file_of_a_real_checkpoint_is_damaged_the_weights_are_the_same(lab: Path, tmp_path: Path) -> None:
    kind, inputs, params = METHODS["lora"]
    whole = Cut(lab, tmp_path / "whole")
    _, _, action = whole.attempt(kind, inputs, **params)
    tried, names, broken = 0, ["?"], 0
    while tried < len(names):
        cut = Cut(lab, tmp_path / str(tried), signal.SIGKILL, has_checkpoint_of(10))

        def damage(cut: Cut = cut, tried: int = tried) -> None:
            nonlocal names, broken
            folder = folder_of(cut.store.root, action["digest"])
            broken = kept_steps(folder)[-1]
            path = folder / str(broken)
            names = sorted(str(file.relative_to(path)) for file in path.rglob("*") if file.is_file())
            apply(path / names[tried], (cut_at(0.5), flipped_at(0.5), None)[tried % 3])

        cut.between = damage
        outcome, _, _ = cut.attempt(kind, inputs, **params)
        assert outcome["status"] == "ok", (names[tried], outcome)
        assert 0 < steps_of(cut.attempts[1])[0] < broken, names[tried]
        assert f"the checkpoint of step {broken} is damaged" in (cut.attempts[1] / LOG).read_text()
        assert weights(whole, action) == weights(cut, action), names[tried]
        tried += 1
    print(f"{tried} files of a checkpoint: {', '.join(names)}")
    assert {"optimizer.pt", "scheduler.pt", "kept.json", MANIFEST} <= set(names)


STEP_POINTS = ["step.before-save", "step.before-outcome", "step.after-outcome"]


@pytest.mark.parametrize("point", [STEP_POINTS[1], *(pytest.param(each, marks=pytest.mark.slow) for each in STEP_POINTS[::2])])
def test_a_step_that_is_killed_near_its_end_is_done_once(lab: Path, tmp_path: Path, point: str) -> None:
    kind, inputs, params = METHODS["lora"]
    cut = Cut(lab, tmp_path / "cut", faults=f"{point}=kill")
    outcome, _, action = cut.attempt(kind, inputs, **params | {"max_steps": 6})
    first = read_outcome(cut.attempts[0])
    assert (first is not None and first["status"] == "ok") is (point == "step.after-outcome")
    # Published before the kill, or made by the second attempt.
    assert outcome["status"] == "ok" and outcome["cached"] is (point != "step.before-save")
    assert cut.store.verify(action["digest"]) == []


@pytest.mark.slow
@pytest.mark.parametrize(("point", "status"), [("step.before-outcome", "failed"), ("step.after-outcome", "done")])
def test_a_run_whose_steps_are_all_killed_goes_on(lab_profile, cli: Commands, point: str, status: str) -> None:
    words = run_words(lab_profile(), "r", 1)
    done = cli(*words, LAMDATUI_FAULTS=f"{point}=kill")
    shown = cli.show("r")
    assert [trial["status"] for trial in shown["trials"]] == [status], (done.stderr, shown["problems"])
    if status == "done":
        assert_nothing_lost_or_repeated(cli, "r", 1)
    else:
        assert shown["trials"][0]["error"]["class"] == "killed"
