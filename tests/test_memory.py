"""An action that runs out of memory: classed by what it was doing, tried once more with smaller micro-batches."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.conftest import Commands

GREEDY = """
from lamdatui.actions import ActionType, Param, Slot


class Greedy(ActionType):
    name = "greedy"
    summary = "takes more memory than there is, unless its micro-batches are small"
    family = "supervised"
    source = "a test"
    slots = (Slot("model", "model", "what to copy"),)
    params = (Param("limit", "int", {limit}, "largest micro-batch that fits", low=0, high=64),)

    def run(self, step):
        import torch

        step.phase = "{phase}"
        batch = step.batch(8)
        step.configured("greedy", batch)
        if batch["per_device_train_batch_size"] > step.params["limit"]:
            torch.empty(2**48)
        step.finish_training(step.load_model(), step.load_tokenizer())


ACTION = Greedy()
"""


@pytest.fixture
def greedy(home: Path, lab_profile):
    """A profile whose only action is greedy, with the largest micro-batch that fits."""

    def make(limit: int, phase: str = "train") -> str:
        folder = home / "config" / "actions"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "greedy.py").write_text(GREEDY.format(limit=limit, phase=phase))
        path = lab_profile()
        text = path.read_text()
        head, _, rest = text.partition("actions:\n")
        tail = rest[rest.index("# Who chooses") :]
        path.write_text(f"{head}actions:\n  greedy: {{}}\n{tail}")
        return str(path)

    return make


def attempts(cli: Commands, run: str) -> list[dict]:
    """What each attempt at trial 1 was asked, and how it ended."""
    found = []
    for folder in sorted((cli.runs / run / "steps" / "1").iterdir()):
        request, outcome = (json.loads((folder / name).read_text()) for name in ("action.json", "outcome.json"))
        config = json.loads((folder / "config.json").read_text())
        found.append({"small": request["small"], "batch": config, "error": outcome["error"], "digest": request["digest"]})
    return found


def test_it_is_tried_once_more_with_the_same_effective_batch(cli: Commands, greedy) -> None:
    done = cli("run", greedy(2), "--name", "r", "--headless", "--mode", "auto", "--max-trials", "1")
    assert done.returncode == 0, done.stderr
    first, second = attempts(cli, "r")
    assert first["error"]["class"] == "oom-train"
    assert second["error"] is None
    assert (first["small"], second["small"]) == (False, True)
    assert first["digest"] == second["digest"]
    sizes = [a["batch"]["per_device_train_batch_size"] * a["batch"]["gradient_accumulation_steps"] for a in (first, second)]
    assert sizes == [8, 8]
    shown = cli.show("r")
    assert shown["trials"][0]["status"] == "done"
    assert any("smaller micro-batches" in problem["message"] for problem in shown["problems"])


def test_what_never_fits_fails_with_its_class_after_two_attempts(cli: Commands, greedy) -> None:
    done = cli("run", greedy(0, "merge"), "--name", "r", "--headless", "--mode", "auto", "--max-trials", "1")
    assert done.returncode == 0, done.stderr
    assert [attempt["error"]["class"] for attempt in attempts(cli, "r")] == ["oom-merge", "oom-merge"]
    (trial,) = cli.show("r")["trials"]
    assert trial["status"] == "failed"
    assert trial["error"]["class"] == "oom-merge"


HEAP = """
import ctypes, sys, torch
from lamdatui.step.heap import give_back
class Info(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost".split()]
libc = ctypes.CDLL(None)
libc.mallinfo2.restype = Info
if sys.argv[1] == "back":
    assert give_back()
torch.empty(30 * 2**20, dtype=torch.uint8)  # freed at once: from now on glibc by itself keeps smaller ones
before = libc.mallinfo2().hblks
held = [torch.empty(8 * 2**20, dtype=torch.uint8) for _ in range(5)]
print(libc.mallinfo2().hblks - before)
"""


def test_a_step_that_is_short_of_memory_gives_freed_blocks_back() -> None:
    import ctypes
    import subprocess
    import sys

    if not hasattr(ctypes.CDLL(None), "mallinfo2"):
        pytest.skip("not glibc 2.33 or later")
    mapped = {
        how: int(subprocess.run([sys.executable, "-c", HEAP, how], capture_output=True, text=True, check=True).stdout)
        for how in ("keep", "back")
    }
    assert mapped == {"keep": 0, "back": 5}
