"""What a model is exported with: everything to make it again without lamdatui, and to find out when something of it was changed."""

from __future__ import annotations

import gzip
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from safetensors.torch import load_file, save_file

from lamdatui.base.jsonio import read_json
from lamdatui.export import proof
from lamdatui.export.report import Section, _html, _markdown
from tests import chromium
from tests.conftest import CHECKOUT, Commands

PARAMS = {"max_steps": 3, "batch_size": 4, "max_length": 64}
STEPS: list[dict[str, Any]] = [
    {"type": "sft", "inputs": {"model": "llama", "dataset": "reverse"}, "params": {"method": "lora", "neftune_alpha": 5.0}},
    {"type": "simpo", "inputs": {"model": "llama", "dataset": "prefer"}, "params": {"method": "lora"}},
    {"type": "merge_adapters", "inputs": {"models": ["m1", "m2"]}, "params": {"combination": "dare_ties_svd"}},
    {"type": "dpo", "inputs": {"model": "m3", "dataset": "prefer"}, "params": {"method": "full"}},
    {"type": "merge_dare_ties", "inputs": {"base": "llama", "models": ["m4", "m3"]}},
]
MORE: list[dict[str, Any]] = [
    {"type": "sft", "inputs": {"model": "llama", "dataset": "copy"}, "params": {"method": "full", "packing": True}},
    {"type": "kto", "inputs": {"model": "m1", "dataset": "prefer"}, "params": {"method": "full"}},
    {"type": "orpo", "inputs": {"model": "m2", "dataset": "prefer"}, "params": {"method": "dora"}},
    {"type": "merge_linear", "inputs": {"models": ["m3", "m2"]}},
]


def ran(folder: Path, steps: list[dict[str, Any]]) -> Commands:
    """A run `r` of these steps, in a folder."""
    script = [
        {**step, "params": {**(PARAMS if "dataset" in step["inputs"] else {}), **step.get("params", {})}} for step in steps
    ]
    profile = yaml.safe_load((CHECKOUT / "profiles" / "lab.yaml").read_text())
    profile |= {"policy": {"name": "scripted", "opening": False, "script": script}}
    for task in profile["tasks"].values():
        task["rows"] = {"search": 10, "sealed": 10}
    profile["budget"] = {"trials": len(steps), "baselines": 0, "replicates": 0}
    profile["actions"] = {step["type"]: {} for step in steps}
    folder.mkdir(exist_ok=True)
    (folder / "lab.yaml").write_text(yaml.safe_dump(profile))
    commands = Commands(folder)
    done = commands("run", "lab.yaml", "--name", "r", "--headless", "--mode", "auto")
    assert done.returncode == 0, done.stderr
    return commands


@pytest.fixture(scope="module")
def run(lab: Path, tmp_path_factory: pytest.TempPathFactory) -> Commands:
    return ran(tmp_path_factory.mktemp("export"), STEPS)


@pytest.fixture(scope="module")
def exported(run: Commands) -> Path:
    done = run("export", "r", "--model", "m5", "--to", "out")
    assert done.returncode == 0, done.stderr
    assert "fingerprint" in done.stderr and "rows of your data" in done.stderr
    return run.folder / "out"


@pytest.fixture
def copy(exported: Path, tmp_path: Path) -> Path:
    """A copy that may be changed."""
    return Path(shutil.copytree(exported, tmp_path / "out"))


def reproduce(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """The script where lamdatui can't be imported."""
    code = "import runpy, sys; sys.modules['lamdatui'] = None; sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"
    script = [sys.executable, "-c", code, str(folder / "reproduce.py"), *words]
    return subprocess.run(script, capture_output=True, text=True, timeout=240, check=False)


def checks(folder: Path, **more: Any) -> dict[str, bool | None]:
    _, found = proof.verify(folder, **{"reproduce": False, "bases": [], "say": print, **more})
    return {check.subject: check.sound for check in found}


def resealed(folder: Path) -> None:
    """As somebody would who knows how the list of files is made."""
    told = read_json(folder / proof.FILE)
    (folder / proof.FILE).unlink()
    proof.write(folder, told["run"], told["model"])


def test_the_weights_are_made_again_to_the_bit_without_lamdatui(exported: Path, tmp_path: Path) -> None:
    done = reproduce(exported, "--to", str(tmp_path / "again"))
    assert done.returncode == 0, done.stderr[-2000:]
    count = len(load_file(exported / "model.safetensors"))
    assert f"{count} of {count} tensors are the same to the bit" in done.stdout
    assert (tmp_path / "again" / "config.json").exists()


def test_another_base_or_another_version_of_it_is_refused(copy: Path, lab: Path, tmp_path: Path) -> None:
    for words, said in (
        (["--base", f"llama={lab / 'phi'}"], "not the file that was used"),
        (["--base", f"lama={lab}"], "NAME one of llama"),
        (["--base", f"llama={tmp_path}"], "--base llama=FOLDER"),
    ):
        done = reproduce(copy, *words)
        assert done.returncode == 2 and said in done.stderr and "Traceback" not in done.stderr


def test_an_export_that_nobody_touched_is_sound(run: Commands, exported: Path) -> None:
    done = run("verify", str(exported), "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert {each["subject"]: each["status"] for each in found["checks"]} == dict.fromkeys(
        ("files", "recipe", "answers", "scores"), "ok"
    )
    assert len(found["fingerprint"]) == 64
    card = (exported / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: transformers\n") and "sealed" in card and "merge_dare_ties" in card
    assert yaml.safe_load(card.split("---\n")[1])["pipeline_tag"] == "text-generation"


def change_weight(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    name = sorted(weights)[0]
    weights[name].view(-1)[0] += 1e-3
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


def change_row(folder: Path) -> None:
    path = folder / "reproduce" / "01-m1" / "rows.jsonl.gz"
    lines = gzip.decompress(path.read_bytes()).decode().splitlines()
    path.write_bytes(gzip.compress("\n".join(lines[1:]).encode()))


def change_hyperparameter(folder: Path) -> None:
    told = yaml.safe_load((folder / "recipe.yaml").read_text())
    told["steps"][0]["params"]["learning_rate"] *= 2
    (folder / "recipe.yaml").write_text(yaml.safe_dump(told))


def change_seed(folder: Path) -> None:
    told = yaml.safe_load((folder / "recipe.yaml").read_text())
    told["steps"][1]["seed"] += 1
    (folder / "recipe.yaml").write_text(yaml.safe_dump(told))


def change_score(folder: Path) -> None:
    told = yaml.safe_load((folder / "recipe.yaml").read_text())
    told["scores"]["copy"]["search"]["mean"] -= 0.1
    (folder / "recipe.yaml").write_text(yaml.safe_dump(told))


def change_answer(folder: Path) -> None:
    lines = [json.loads(line) for line in (folder / "answers.jsonl").read_text().splitlines()]
    wrong = next(line for line in lines if line["score"] == 0 and line["model"] == "m5")
    wrong["score"] = 1.0
    (folder / "answers.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def drop_answers(folder: Path) -> None:
    lines = (folder / "answers.jsonl").read_text().splitlines(keepends=True)
    (folder / "answers.jsonl").write_text("".join(lines[:-3]))


CHANGES: dict[Callable[[Path], None], str | None] = {
    change_weight: None,
    change_row: None,
    change_hyperparameter: "recipe",
    change_seed: "recipe",
    change_score: "scores",
    change_answer: "answers",
    drop_answers: "scores",
}
"""What is changed → the check that finds it although the list of files was made anew; None: only making the weights again does."""


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_what_was_changed_is_found(copy: Path, run: Commands, change: Callable[[Path], None]) -> None:
    change(copy)
    assert checks(copy)["files"] is False
    assert run("verify", str(copy)).returncode == 1
    resealed(copy)
    found = checks(copy)
    assert found.pop("files") is True
    if (subject := CHANGES[change]) is not None:
        assert found[subject] is False, found


@pytest.mark.parametrize("change", [change_weight, pytest.param(change_row, marks=pytest.mark.slow)])
def test_making_the_weights_again_finds_what_hashes_can_not(copy: Path, change: Callable[[Path], None]) -> None:
    change(copy)
    resealed(copy)
    assert checks(copy, reproduce=True)["weights"] is False


def test_nothing_of_the_folder_is_run_and_nothing_is_written_beside_it(copy: Path, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    (copy / "reproduce.py").write_text(f"open({str(canary)!r}, 'w')")
    plan = read_json(copy / "reproduce" / "plan.json")
    plan["steps"][0]["makes"] = "../../canary"
    (copy / "reproduce" / "plan.json").write_text(json.dumps(plan))
    resealed(copy)
    _, found = proof.verify(copy, reproduce=True, bases=[], say=print)
    assert found[-1].sound is None and "no name" in found[-1].detail
    assert not canary.exists()


def test_files_that_are_missing_or_strange_are_named(copy: Path) -> None:
    (copy / "reproduce" / "plan.json").unlink()
    (copy / "pytorch_model.bin").write_bytes(b"pickle")
    _, (files, *_) = proof.verify(copy, reproduce=False, bases=[], say=print)
    assert (
        files.sound is False and "missing: reproduce/plan.json" in files.detail and "added: pytorch_model.bin" in files.detail
    )


def test_what_can_not_be_read_is_a_finding_and_what_is_no_export_an_error(copy: Path, run: Commands, tmp_path: Path) -> None:
    (copy / "recipe.yaml").write_text("steps: 7\n")
    assert checks(copy)["recipe"] is False
    (copy / proof.FILE).write_text("{")
    assert checks(copy) == {"proof": False}
    done = run("verify", str(tmp_path))
    assert done.returncode == 2 and "lamdatui export" in done.stderr


def test_an_adapter_is_exported_alone_and_made_again(run: Commands) -> None:
    done = run("export", "r", "--model", "m1", "--adapter", "--to", "adapter")
    assert done.returncode == 0, done.stderr
    folder = run.folder / "adapter"
    assert (folder / "adapter_model.safetensors").exists() and not (folder / "model.safetensors").exists()
    assert "lab-bases" in read_json(folder / "adapter_config.json")["base_model_name_or_path"]
    assert checks(folder, reproduce=True)["weights"] is True
    refused = run("export", "r", "--model", "m5", "--adapter", "--to", "x")
    assert refused.returncode == 2 and "without --adapter" in refused.stderr


def test_a_bare_export_has_no_rows_of_data(run: Commands) -> None:
    done = run("export", "r", "--model", "m4", "--bare", "--to", "bare")
    assert done.returncode == 0 and "rows of your data" not in done.stderr
    folder = run.folder / "bare"
    assert not any((folder / name).exists() for name in ("answers.jsonl", "reproduce", "reproduce.py"))
    assert checks(folder, reproduce=True) == {"files": True, "recipe": True, "answers": None, "weights": None}


@pytest.mark.slow
def test_other_trainers_are_made_again_to_the_bit(lab: Path, tmp_path: Path) -> None:
    commands = ran(tmp_path / "more", MORE)
    done = commands("export", "r", "--model", "m4", "--to", "out")
    assert done.returncode == 0 and "can't make" not in done.stderr, done.stderr
    assert reproduce(commands.folder / "out").returncode == 0


# --- the report


def test_a_report_says_what_the_run_has_found(run: Commands) -> None:
    for name in ("report.html", "report.md"):
        done = run("report", "r", "--to", name)
        assert done.returncode == 0, done.stderr
        text = (run.folder / name).read_text()
        assert "merge_adapters(m1, m2)" in text and "Rows of copy" in text and "sealed" in text
    assert "<script" not in (run.folder / "report.html").read_text()
    assert run("report", "r", "--bare", "--to", "report.md").returncode == 0
    assert "Rows of copy" not in (run.folder / "report.md").read_text()
    refused = run("report", "r", "--to", "report.pdf")
    assert refused.returncode == 2 and ".html" in refused.stderr


def test_what_models_say_is_text_in_a_report() -> None:
    hostile = "<img src=x onerror=alert(1)>\x1b[31m | `a`"
    section = Section("Rows", [hostile], ["a"], [[hostile]])
    page, text = _html(hostile, [section]), _markdown(hostile, [section])
    assert "<img" not in page and "&lt;img" in page
    assert "\x1b" not in text and "<img" not in text.split("| --- |")[1] and "\\|" in text


@pytest.mark.skipif(chromium.find() is None, reason="no Chromium is installed")
async def test_a_browser_shows_the_report_and_asks_for_nothing(run: Commands, tmp_path: Path) -> None:
    assert run("report", "r", "--to", "page.html").returncode == 0
    async with chromium.chromium(tmp_path / "browser") as page:
        await page.ask("Page.navigate", url=(run.folder / "page.html").as_uri())
        assert await page.run("new Promise(done => setTimeout(() => done(document.querySelectorAll('tr').length), 300))") > 10
        printed = await page.ask("Page.printToPDF")
        assert len(printed["data"]) > 10_000
        assert page.complaints == [] and all(url.startswith("file:") for url in page.requests)
