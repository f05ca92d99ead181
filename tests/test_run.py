"""A real run on the lab: real TRL, PEFT and mergekit, the real engine, its command line."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lamdatui.cli.show import TRIAL_FIELDS
from lamdatui.domain.state import RunState
from lamdatui.inputs.profile import load_profile
from lamdatui.store.journal import read_state
from lamdatui.wire.rundir import StartOptions, prepare_run, start_engine
from tests.conftest import Commands


def executions(runs: Path) -> list[str]:
    """Digest of each time that the work of an action began, from the evidence on disk."""
    return [json.loads(path.read_text())["digest"] for path in runs.glob("*/steps/*/*/trained.json")]


@pytest.fixture
def finished(lab_profile, cli: Commands) -> subprocess.CompletedProcess[str]:
    profile = str(lab_profile())
    return cli("run", profile, "--name", "first", "--headless", "--mode", "auto", "--max-trials", "4", "--json")


def test_a_run_trains_prefers_merges_and_reports(finished, lab_profile, cli: Commands) -> None:
    assert finished.returncode == 0, finished.stderr
    events = [json.loads(line) for line in finished.stdout.splitlines()]
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    assert events[-1]["kind"] == "run.ended"
    # The declared hyperparameters come once, not with each proposal.
    (started,) = [event["data"] for event in events if event["kind"] == "engine.started"]
    assert set(started["types"]["sft"]) == {"summary", "family", "output", "slots", "params"}
    proposals = [event["data"]["proposal"] for event in events if event["kind"] == "trial.proposed"]
    assert all("declaration" not in proposal for proposal in proposals)
    assert all(len(json.dumps(proposal | {"alternatives": []})) < 1500 for proposal in proposals)

    found = cli.show("first")
    assert found["status"] == "done"
    assert len(found["trials"]) == 4
    assert all(set(trial) == {*TRIAL_FIELDS, "details", "shadows"} for trial in found["trials"])
    assert [trial["proposed_by"] for trial in found["trials"]] == ["opening"] * 3 + ["surrogate"]
    assert [trial["shadows"] for trial in found["trials"][:3]] == [[]] * 3
    assert [shadow["policy"] for shadow in found["trials"][3]["shadows"]] == ["tpe", "evolution", "random"]
    assert found["trials"][3]["details"]["chooser"] == "surrogate"
    assert [trial["action"]["type"] for trial in found["trials"]][:2] == ["sft", "dpo"]
    assert found["trials"][2]["action"]["type"].startswith("merge")
    assert {trial["status"] for trial in found["trials"]} == {"done"}
    for trial in found["trials"]:
        parts = trial["seconds"]
        explained = parts["plan"] + parts["wait"] + parts["execute"] + parts["evaluate"] + parts["overhead"]
        assert parts["total"] == pytest.approx(explained, abs=0.01)
    best = max(found["trials"], key=lambda trial: trial["objective"])
    assert found["winner"]["model"] == best["model"]
    for model in (found["base"], found["winner"]):
        for splits in model["scores"].values():
            assert splits["search"]["n"] == 100
            assert splits["sealed"]["n"] == 200
            assert splits["sealed"]["interval"][0] <= splits["sealed"]["mean"] <= splits["sealed"]["interval"][1]
    sealed = found["gain"]["sealed"]["objective"]
    assert found["beats_base"] is (sealed["interval"][0] > 0)
    others = [model for model in found["models"] if model["model"] not in (found["base"]["model"], best["model"])]
    assert all("sealed" not in splits for model in others for splits in model["scores"].values())
    assert len(executions(cli.runs)) == 4

    ledgers = {one["name"]: one for one in found["ledgers"]}
    assert (ledgers["trials"]["used"], ledgers["trials"]["limit"]) == (4, 4)
    assert 0 < ledgers["step time"]["used"] < ledgers["wall"]["used"] < ledgers["wall"]["limit"] == 600
    assert ledgers["disk"]["used"] > 4 * 10**5
    assert ledgers["wall"]["reserved"] == 0

    again_in_another_run(lab_profile, cli)
    export_and_load(cli)
    one_step_again_beside_the_run(cli)
    a_finished_run_goes_on_only_with_more_trials(lab_profile, cli)


def again_in_another_run(lab_profile, cli: Commands) -> None:
    done = cli("run", str(lab_profile()), "--name", "second", "--headless", "--mode", "auto", "--max-trials", "4")
    assert done.returncode == 0, done.stderr
    first, second = cli.show("first"), cli.show("second")
    assert all(trial["cached"] for trial in second["trials"])
    assert next(one["used"] for one in second["ledgers"] if one["name"] == "disk") == 0
    assert [t["objective"] for t in first["trials"]] == [t["objective"] for t in second["trials"]]
    assert len(executions(cli.runs)) == 4


def export_and_load(cli: Commands) -> None:
    done = cli("export", "first", "--to", "out")
    assert done.returncode == 0, done.stderr
    import torch
    import yaml
    from transformers import AutoModelForCausalLM, AutoTokenizer

    out = cli.folder / "out"
    model = AutoModelForCausalLM.from_pretrained(out)
    tokenizer = AutoTokenizer.from_pretrained(out)
    assert torch.isfinite(model(**tokenizer("rev:abc=", return_tensors="pt")).logits).all()
    recipe = yaml.safe_load((out / "recipe.yaml").read_text())
    winner = cli.show("first")["winner"]["model"]
    assert recipe["steps"][-1]["makes"] == winner
    assert all(step["params"] for step in recipe["steps"])
    assert recipe["bases"]
    again = cli("export", "first", "--to", "out")
    assert again.returncode == 2
    assert "exists already" in again.stderr


def one_step_again_beside_the_run(cli: Commands) -> None:
    before, counted = cli.show("first"), len(executions(cli.runs))
    done = cli("step", "first", "1", "--set", "max_steps=3")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "step 3/3" in done.stdout
    assert "ok: " in done.stdout
    assert cli.show("first") == before
    assert len(executions(cli.runs)) == counted
    for words, told in ((["1", "--set", "max_stepz=3"], "did you mean 'max_steps'"), (["99"], "has no step")):
        refused = cli("step", "first", *words)
        assert refused.returncode == 2
        assert told in refused.stderr


def a_finished_run_goes_on_only_with_more_trials(lab_profile, cli: Commands) -> None:
    same = cli("run", str(lab_profile()), "--name", "first", "--headless", "--mode", "auto")
    assert same.returncode == 0
    assert "finished" in same.stderr
    more = cli("run", str(lab_profile()), "--name", "first", "--headless", "--mode", "auto", "--max-trials", "5")
    assert more.returncode == 0, more.stderr
    assert len(cli.show("first")["trials"]) == 5
    other = cli("run", str(lab_profile(("seed: 1", "seed: 2"))), "--name", "first", "--headless", "--mode", "auto")
    assert other.returncode == 2
    assert "another profile" in other.stderr


def test_headless_must_name_its_mode_and_asking_nobody_is_refused(lab_profile, cli: Commands) -> None:
    profile = str(lab_profile())
    assert cli("run", profile, "--headless").returncode == 2
    asked = cli("run", profile, "--name", "asks", "--headless", "--mode", "ask")
    assert asked.returncode == 3, asked.stderr
    found = cli.show("asks")
    assert found["trials"][0]["status"] == "rejected"
    assert executions(cli.runs) == []


def test_read_only_proposes_and_runs_nothing(lab_profile, cli: Commands) -> None:
    done = cli("run", str(lab_profile()), "--name", "look", "--headless", "--mode", "read-only", "--max-trials", "2")
    assert done.returncode == 0, done.stderr
    assert [trial["status"] for trial in cli.show("look")["trials"]] == ["rejected", "rejected"]
    assert executions(cli.runs) == []


def test_nothing_is_imported_from_the_current_folder(lab_profile, cli: Commands) -> None:
    for name in ("psutil", "torch", "datasets", "numpy"):
        (cli.folder / f"{name}.py").write_text(f"open('{name}-was-run', 'w'); raise SystemExit(9)\n")
    command = [str(Path(sys.executable).parent / "lamdatui"), "run", str(lab_profile()), "--name", "here"]
    command += ["--headless", "--mode", "auto", "--max-trials", "1"]
    done = subprocess.run(command, cwd=cli.folder, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    assert list(cli.folder.glob("*-was-run")) == []


def test_a_mode_given_for_a_run_that_is_going_is_taken(lab_profile, cli: Commands) -> None:
    profile = lab_profile(("trials: 12", "trials: 1"))
    run_dir = prepare_run(load_profile(profile), "going", cli.runs)
    start_engine(run_dir, StartOptions(mode="ask"))
    wait_for(cli, "going", lambda state: state.phase == "waiting")
    done = cli("run", str(profile), "--name", "going", "--headless", "--mode", "auto")
    assert done.returncode == 0, done.stderr
    assert cli.show("going")["trials"][0]["decision"]["by"] == "mode auto"


def test_ctrl_c_stops_the_step_cleanly_and_the_run_goes_on_later(lab_profile, cli: Commands) -> None:
    profile = str(lab_profile(("max_steps: { default: 40,", "max_steps: { default: 400,")))
    process = cli.popen("run", profile, "--name", "cut", "--headless", "--mode", "auto", "--max-trials", "1")
    wait_for(cli, "cut", lambda state: any(step.status == "running" and step.trial for step in state.steps.values()))
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 130
    found = cli.show("cut")
    assert found["status"] == "stopped"
    assert found["trials"][0]["error"]["class"] == "killed"
    assert no_process_below(cli.folder)
    more = cli("run", profile, "--name", "cut", "--headless", "--mode", "auto", "--max-trials", "1", "--json")
    assert more.returncode == 0, more.stderr
    assert [trial["status"] for trial in cli.show("cut")["trials"]] == ["stopped", "done"]


@pytest.mark.slow
def test_a_spare_host_does_the_same_work_as_a_fork(lab_profile, cli: Commands) -> None:
    words = ["--headless", "--mode", "auto", "--max-trials", "2"]
    for kind in ("fork", "spare"):
        done = cli("run", str(lab_profile()), "--name", "x", "--runs-dir", kind, *words, LAMDATUI_STEP_HOST=kind)
        assert done.returncode == 0, done.stderr
    found = [json.loads(cli("show", "x", "--runs-dir", kind, "--json").stdout) for kind in ("fork", "spare")]
    forked, spared = ([(t["action"]["digest"], t["objective"]) for t in run["trials"]] for run in found)
    assert forked == spared
    assert not any(trial["cached"] for run in found for trial in run["trials"])


def test_stop_lets_the_step_end_and_the_run_goes_on_later(lab_profile, cli: Commands) -> None:
    words = ["run", str(lab_profile()), "--name", "later", "--headless", "--mode", "auto", "--max-trials", "3"]
    process = cli.popen(*words)
    wait_for(cli, "later", lambda state: any(step.status == "running" and step.trial for step in state.steps.values()))
    assert cli("stop", "later").returncode == 0
    process.communicate(timeout=120)
    assert process.returncode == 0
    found = cli.show("later")
    assert found["status"] == "stopped"
    assert found["trials"][0]["status"] == "done"
    again = cli(*words)
    assert again.returncode == 0, again.stderr
    assert [trial["status"] for trial in cli.show("later")["trials"]] == ["done"] * 3
    assert len(set(executions(cli.runs))) == len(executions(cli.runs)) == 3


def wait_for(cli: Commands, run: str, condition, seconds: float = 120) -> RunState:
    """The run's state once the condition holds; fails when it does not within the time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        path = cli.runs / run / "run.db"
        if path.exists():
            state = read_state(path)
            if condition(state):
                return state
        time.sleep(0.05)
    pytest.fail(f"{run} did not get there within {seconds} s")


def no_process_below(folder: Path, seconds: float = 15) -> bool:
    """Whether every engine, host and step of this folder ends by itself."""
    import psutil

    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        left = [
            p
            for p in psutil.process_iter(["cmdline", "cwd", "status"])
            if p.info["cwd"] == str(folder) and any("lamdatui." in w for w in p.info["cmdline"] or [])
        ]
        if not left:
            return True
        time.sleep(0.1)
    return False


def test_names_that_the_terminals_encoding_lacks_fail_nothing(lab_profile, cli: Commands) -> None:
    data = "datasets.données={path: 'catalogue:lab-bases/data/copy.jsonl'}"
    step = "{type: sft, inputs: {model: llama, dataset: données}, params: {max_steps: 2}}"
    sets = ("--set", data, "--set", f"policy={{name: scripted, opening: false, script: [{step}]}}")
    ascii_only = {"PYTHONIOENCODING": "ascii"}
    words = ("run", str(lab_profile()), "--name", "seen", "--headless", "--mode", "auto", "--max-trials", "1", *sets)
    done = cli(*words, **ascii_only)
    assert done.returncode == 0, done.stderr
    (trial,) = cli.show("seen")["trials"]
    assert trial["status"] == "done" and trial["action"]["inputs"]["dataset"] == ["données"]
    assert json.loads(cli("show", "seen", "--json", **ascii_only).stdout)["trials"] == [trial]
    assert "données" in (cli.runs / "seen" / "steps" / trial_step(cli, "seen") / "log.txt").read_text(encoding="utf-8")
    again = cli("step", "seen", "1", "--dry-run", **ascii_only)
    assert again.returncode == 0, again.stderr


def trial_step(cli: Commands, run: str) -> str:
    """The directory of the first trial's step below `steps/`."""
    (found,) = (cli.runs / run / "steps" / "1").iterdir()
    return f"1/{found.name}"
