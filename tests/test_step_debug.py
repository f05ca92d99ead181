"""`lamdatui step`: a trial that failed on purpose, run again with another value, dry, and in the debugger on a terminal."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path

import pexpect
import pytest

from lamdatui.domain.state import RunState
from lamdatui.domain.trials import Trial
from lamdatui.step.rerun import _why_not
from tests.conftest import Commands
from tests.test_authoring import profile_with

FAILS = '''\
"""Fails unless it is told otherwise."""

import time

from lamdatui.domain.actions import ActionType, Param, Slot


class Fragile(ActionType):
    name = "fragile"
    summary = "a step that fails for a small amount"
    family = "supervised"
    source = "nobody"
    slots = (Slot("model", "model", "what to copy"),)
    params = (Param("amount", "int", 1, "fails below 5", low=0, high=9),)

    def run(self, step):
        amount = step.params["amount"]
        step.configured("a copy", {"amount": amount, "dtype": str(step.dtype)})
        self.halve(amount * 21)
        step.finish_training(step.load_model("model"), step.load_tokenizer("model"))

    def halve(self, number):
        if number < 100:
            raise ValueError(f"{number} is too small")
        if number > 180:
            print("waiting", flush=True)
            time.sleep(100)


ACTION = Fragile()
'''
ROWS = '''\
"""The first rows of a dataset."""

from lamdatui.actions import ActionType, Param, Slot


class Head(ActionType):
    name = "head"
    summary = "the first rows of a dataset"
    family = "data"
    output = "dataset"
    source = "nobody"
    slots = (Slot("dataset", "dataset", "what to cut", formats=("sft",)),)
    params = (Param("count", "int", 7, "rows that are kept", low=1, high=100, unit="rows"),)

    def run(self, step):
        step.finish_dataset(step.rows("dataset")[: step.params["count"]], "sft", {"kept": step.params["count"]})


ACTION = Head()
'''


@pytest.fixture(autouse=True)
def _scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Scratch directories of these tests go with the tests."""
    (tmp_path / "scratch").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "scratch"))


@pytest.fixture
def failed(cli: Commands, home: Path, lab_profile) -> Commands:
    """A run whose first trial failed."""
    folder = home / "config" / "actions"
    folder.mkdir(parents=True)
    (folder / "fragile.py").write_text(FAILS)
    (folder / "head.py").write_text(ROWS)
    goes_on(cli, str(profile_with(lab_profile, {"fragile": {}, "head": {}})), "auto", 1)
    (trial,) = cli.show("broken")["trials"]
    assert (trial["action"]["type"], trial["status"]) == ("fragile", "failed")
    return cli


def goes_on(cli: Commands, profile: str, mode: str, trials: int) -> None:
    words = ["--name", "broken", "--headless", "--mode", mode, "--max-trials", str(trials)]
    done = cli("run", profile, *words)
    assert done.returncode == 0, done.stderr


def contents(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.suffix not in (".db-wal", ".db-shm")}


def scratch_of(told: str) -> Path:
    found = re.search(r"records of this try: (\S+)", told)
    assert found, told
    return Path(found.group(1))


def test_a_failed_trial_is_run_again_dry_and_changed(failed: Commands) -> None:
    profile = str(failed.folder / "lab.yaml")
    goes_on(failed, profile, "auto", 2)
    goes_on(failed, profile, "read-only", 3)
    before, kept = failed.show("broken")["trials"], contents(failed.runs)
    assert [trial["status"] for trial in before] == ["failed", "done", "rejected"]

    again = failed("step", "broken", "1")
    assert again.returncode == 1
    assert "ValueError: 21 is too small" in again.stdout
    assert "failed: bug: ValueError: 21 is too small" in again.stdout
    assert not (scratch_of(again.stderr) / "store").exists()

    dry = failed("step", "broken", "1", "--dry-run", "--set", "amount=3")
    assert dry.returncode == 0, dry.stdout + dry.stderr
    assert "amount: 3" in dry.stdout
    assert "dtype: torch.float32" in dry.stdout
    assert "Traceback" not in dry.stdout

    mended = failed("step", "broken", "1", "--set", "amount=5")
    assert mended.returncode == 0, mended.stdout + mended.stderr
    assert "ok: execute" in mended.stdout
    assert (scratch_of(mended.stderr) / "outcome.json").exists()

    made_data(failed)
    bad_words(failed)
    assert failed.show("broken")["trials"] == before
    assert contents(failed.runs) == kept


def test_a_failed_trial_in_the_debugger_and_after_a_change_of_its_file(failed: Commands, home: Path) -> None:
    kept = contents(failed.runs)
    in_the_debugger(failed)
    interrupted(failed)
    changed(failed, home)
    assert contents(failed.runs) == kept


def made_data(cli: Commands) -> None:
    done = cli("step", "broken", "2", "--set", "count=4")
    assert done.returncode == 0, done.stdout + done.stderr
    found = re.search(r"made a dataset of 4 rows \(sft\): (\S+)", done.stdout)
    assert found, done.stdout
    assert len(Path(found.group(1)).read_text().splitlines()) == 4
    dry = cli("step", "broken", "2", "--dry-run")
    assert dry.returncode == 1
    assert "no dry run" in dry.stderr


def bad_words(cli: Commands) -> None:
    for words, told in (
        (["3"], "mode read-only"),
        (["9"], "there is no such trial"),
        (["1", "--set", "amount"], "PARAM=VALUE"),
        (["1", "--set", "amont=5"], "did you mean 'amount'"),
        (["1", "--set", "amount=50"], "at most 9"),
        (["1", "--pdb"], "--pdb needs a terminal"),
    ):
        refused = cli("step", "broken", *words)
        assert refused.returncode == 2, words
        assert told in refused.stderr
        assert refused.stderr.startswith("error: ")
        assert len(refused.stderr.strip().splitlines()) <= 3


def spawn(cli: Commands, *words: str) -> pexpect.spawn:
    line = cli.line("step", "broken", *words)
    return pexpect.spawn(
        line[0],
        line[1:],
        cwd=str(cli.folder),
        env={**os.environ, "TERM": "dumb"},
        timeout=180,
        encoding="utf-8",
        # Tests that are started in the background ignore Ctrl-C, and what they start would inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )


def in_the_debugger(cli: Commands) -> None:
    (cli.folder / ".pdbrc").write_text("import os; os.mkdir('pdbrc-was-run')\n")
    terminal = spawn(cli, "1", "--pdb")
    terminal.expect("ValueError: 21 is too small")
    terminal.expect(r"fragile\.py\(\d+\)halve\(\)")
    terminal.expect(r"\(Pdb\) ")
    terminal.sendline("p number")
    terminal.expect(r"\b21\r\n")
    terminal.expect(r"\(Pdb\) ")
    terminal.sendline("up")
    terminal.expect(r"\(Pdb\) ")
    terminal.sendline("p amount + 1000")
    terminal.expect("1001")
    terminal.expect(r"\(Pdb\) ")
    # Ctrl-C at the prompt stays there.
    terminal.sendintr()
    terminal.expect(r"\(Pdb\) ")
    terminal.sendline("q")
    terminal.expect("failed: bug: ValueError")
    terminal.expect(pexpect.EOF)
    terminal.close()
    assert terminal.exitstatus == 1
    assert not (cli.folder / "pdbrc-was-run").exists()
    (cli.folder / ".pdbrc").unlink()


def interrupted(cli: Commands) -> None:
    """Ctrl-C while the step works ends it, without the debugger."""
    terminal = spawn(cli, "1", "--pdb", "--set", "amount=9")
    terminal.expect("waiting")
    terminal.sendintr()
    terminal.expect(pexpect.EOF)
    terminal.close()
    assert terminal.exitstatus == 130
    assert "(Pdb)" not in (terminal.before or "")


def changed(cli: Commands, home: Path) -> None:
    """The file is taken as it is now, with a hyperparameter that the trial did not have."""
    text = FAILS.replace("amount", "size").replace('"int", 1', '"int", 6')
    (home / "config" / "actions" / "fragile.py").write_text(text)
    done = cli("step", "broken", "1")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "it has no hyperparameter amount any more" in done.stderr
    (home / "config" / "actions" / "fragile.py").write_text("no Python\n")
    refused = cli("step", "broken", "1")
    assert refused.returncode == 2
    assert "SyntaxError" in refused.stderr


def test_why_a_trial_never_ran_is_told() -> None:
    def trial(**facts) -> Trial:
        return Trial(1, **facts)

    assert _why_not(None) == "there is no such trial"
    assert _why_not(trial(status="done", cached=True)) == "its result was in the store already"
    assert _why_not(trial(status="awaiting")) == "it is still awaiting"
    vetoed = trial(status="vetoed", decision={"verdict": "veto", "by": "person", "reason": "too long"})
    assert _why_not(vetoed) == "it was vetoed by person (too long)"
    assert _why_not(trial(status="stopped")) == "it was stopped"


def test_a_run_has_ended_when_it_is_neither_new_nor_going() -> None:
    assert [RunState(status=status).has_ended for status in ("new", "running", "interrupted", "done", "stopped")] == [
        False,
        False,
        False,
        True,
        True,
    ]
