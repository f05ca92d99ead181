"""A step that works on data alone imports no torch, waits for no host, and is fenced and outlives its engine as the host's steps do."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from lamdatui.base.network import KERNEL
from lamdatui.step.request import is_bare
from tests.conftest import Commands
from tests.test_run import no_process_below

ACTION = '''"""Says where it runs, and draws a number from torch, which nobody has imported for it."""
import os
import sys

from lamdatui.actions import ActionType, Estimate, Slot


class Says(ActionType):
    name = "says"
    summary = "the same rows, and what the process is"
    family = "data"
    source = "lamdatui"
    output = "dataset"
    slots = (Slot("dataset", "dataset", "rows", ("sft",)),)
    params = ()

    def estimate(self, call):
        return Estimate(seconds=1.0, memory_bytes=2**28, disk_bytes=2**20)

    def run(self, step):
        before = [name for name in ("torch", "transformers", "datasets", "trl") if name in sys.modules]
        with open("/proc/net/dev") as devices:
            interfaces = [line.split(":")[0].strip() for line in devices if ":" in line]
        import torch

        drawn = [int(number) for number in torch.randint(1000, (4,))]
        told = {"before": before, "interfaces": interfaces, "drawn": drawn, "threads": torch.get_num_threads()}
        told |= {"session": os.getsid(0) == os.getpid(), "parent": os.getppid()}
        step.finish_dataset(list(step.rows("dataset")), "sft", told)


ACTION = Says()
'''


def test_a_step_on_data_alone_has_no_torch_until_its_action_imports_it(home: Path, lab_profile, cli: Commands) -> None:
    import torch

    (home / "config" / "actions").mkdir(parents=True)
    (home / "config" / "actions" / "says.py").write_text(ACTION)
    profile = lab_profile(("  merge_linear: {}", "  merge_linear: {}\n  says: {}"))
    step = "{type: says, inputs: {dataset: copy}}"
    sets = ("--set", f"policy={{name: scripted, opening: false, script: [{step}]}}")
    done = cli("run", str(profile), "--name", "x", "--headless", "--mode", "auto", "--max-trials", "1", *sets)
    assert done.returncode == 0, done.stderr
    shown = cli.show("x")
    (trial,) = shown["trials"]
    assert trial["status"] == "done", trial["error"]
    folder = cli.runs / "x" / "steps" / "1" / "1"
    assert is_bare(json.loads((folder / "action.json").read_text()))
    told = json.loads((cli.runs / "store" / "objects" / trial["action"]["digest"] / "provenance.json").read_text())
    assert told["before"] == []
    assert told["session"] and told["threads"] == 1
    drawn = torch.randint(1000, (4,), generator=torch.Generator().manual_seed(trial["action"]["seed"]))
    assert told["drawn"] == drawn.tolist(), "it is seeded as any step is"
    if shown["network"] == KERNEL:
        assert told["interfaces"] == ["lo"]
    assert no_process_below(cli.folder)


def test_what_waits_for_a_module_is_done_once_and_in_order() -> None:
    code = """
import sys
from lamdatui.step.whenloaded import when_loaded
said = []
when_loaded("colorsys", lambda module: said.append(("first", hasattr(module, "rgb_to_hls"))))
when_loaded("colorsys", lambda module: said.append(("second", hasattr(module, "rgb_to_hls"))))
assert said == [] and "colorsys" not in sys.modules
import colorsys
import colorsys
when_loaded("colorsys", lambda module: said.append(("third", module is colorsys)))
print(said == [("first", True), ("second", True), ("third", True)], type(sys.meta_path[0]).__name__)
"""
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True)
    assert done.stdout.split()[:1] == ["True"], done.stdout + done.stderr
    assert "_Watch" not in done.stdout


def test_only_steps_without_a_model_are_bare() -> None:
    data = {"action": {"type": "mix"}, "models": {"judge": []}, "evaluations": []}
    assert is_bare(data)
    assert not is_bare(data | {"models": {"judge": [{"id": "llama"}]}})
    assert not is_bare(data | {"evaluations": [{"task": "copy"}]})
    assert not is_bare(data | {"action": None}), "an evaluation of a base"
