"""Hostile planners, models, data, profiles and project folders: unapproved effects 0, canaries touched 0; and that the canaries notice."""

from __future__ import annotations

import asyncio
import json
import os
import pickle
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jinja2
import pytest
import yaml

from lamdatui.domain.choice import Proposal
from lamdatui.engine import approval
from lamdatui.engine.approval import Approvals, Decision
from lamdatui.engine.selection import Selection
from lamdatui.planner import answers, session
from lamdatui.planner.client import PlannerClient
from tests.conftest import Commands
from tests.corpus import commands, court
from tests.corpus.answers import AnswerCase, answer_cases, obeying
from tests.corpus.canaries import VARIABLE, Canaries
from tests.corpus.commands import Session, counted
from tests.corpus.data import data_cases, task_cases
from tests.corpus.making import Touch, code
from tests.corpus.models import model_cases
from tests.corpus.projects import GOOD, file_cases, profile_cases

EACH = 64
"""Of planners, one of so many is tried in each run of the tests, and the first of each family."""


@pytest.fixture
def nest(tmp_path: Path) -> Iterator[Canaries]:
    canaries = Canaries(tmp_path / "canaries")
    yield canaries
    canaries.close()


@pytest.fixture
def office(nest: Canaries, tmp_path: Path, lab: Path, monkeypatch: pytest.MonkeyPatch) -> Session:
    """The command line, with a home of its own."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    commands.use_base(lab / "llama")
    return Session(nest, tmp_path / "work")


def named(nest: Canaries, name: str) -> AnswerCase:
    (found,) = [case for case in answer_cases(nest) if str(case) == name]
    return found


def sample(cases: list[Any], each: int) -> list[Any]:
    """The first of each family, and each so-manieth."""
    first = {case.family: case for case in reversed(cases)}
    return [*first.values(), *(case for case in cases[::each] if case not in first.values())]


def test_there_are_as_many_as_are_promised_and_each_has_a_name(nest: Canaries, lab: Path) -> None:
    planners = answer_cases(nest)
    others = [*model_cases(nest, lab / "llama"), *data_cases(nest), *task_cases(nest), *profile_cases(nest), *file_cases(nest)]
    assert len(planners) >= 200 and len(others) >= 150
    for cases in (planners, others):
        assert len({str(case) for case in cases}) == len(cases)
        assert all(case.tries for case in cases)
    assert min(counted(planners).values()) >= 10
    assert nest.touched() == []


# --- a part of all, in each run of the tests -------------------------------------------------------------------------


async def test_some_hostile_planners_bring_about_nothing(nest: Canaries, tmp_path: Path) -> None:
    assert await court.everything(nest, tmp_path / "court", sample(answer_cases(nest), EACH)) == {}


def test_some_hostile_inputs_are_refused_or_harmless(office: Session, nest: Canaries) -> None:
    commands.group(office, "model", model_cases(nest, commands.BASE)[::8])
    commands.group(office, "dataset", data_cases(nest)[::8])
    commands.group(office, "task", [case for case in task_cases(nest) if case.family == "tasks"])
    commands.profiles(office, [case for case in profile_cases(nest)[::24] if case.want == "refused"])
    commands.project(office, file_cases(nest), short=True)
    assert office.wrong == {}
    assert len(office.said) > 90


# --- all of them -----------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.timeout(3600)
async def test_all_hostile_planners_bring_about_nothing(nest: Canaries, tmp_path: Path) -> None:
    assert await court.everything(nest, tmp_path / "court") == {}


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("kind", ["models", "data", "tasks", "profiles", "project"])
def test_all_hostile_inputs_are_refused_or_harmless(office: Session, nest: Canaries, kind: str) -> None:
    cases = {
        "models": lambda: model_cases(nest, commands.BASE),
        "data": lambda: data_cases(nest),
        "tasks": lambda: task_cases(nest),
    }
    cases |= {"profiles": lambda: profile_cases(nest), "project": lambda: file_cases(nest)}
    getattr(commands, kind)(office, cases[kind]())
    assert office.wrong == {}


RUN = {
    **GOOD,
    "policy": {"name": "hybrid", "share": 1.0, "adapt": False, "opening": False},
    "datasets": {name: {"path": f"catalogue:lab-bases/data/{name}.jsonl"} for name in ("copy", "reverse", "call")},
    "actions": {"sft": {**GOOD["actions"]["sft"], "learning_rate": {"default": 1e-3, "choices": [1e-3, 2e-3, 3e-3, 4e-3]}, "warmup_ratio": {"default": 0.1, "choices": [0.0, 0.1, 0.2, 0.3]}}},
}  # fmt: skip


async def run_before(liar: court.Liar, cli: Commands, name: str, *words: str) -> subprocess.CompletedProcess[str]:
    """A run whose planner is this server."""
    planner = {
        "backend": "openai",
        "url": liar.url,
        "sleep": "never",
        "first_token_seconds": 1,
        "idle_seconds": 1,
        "total_seconds": 5,
        "shortlist": 3,
        "rotations": 1,
    }
    (cli.folder / "p.yaml").write_text(json.dumps({**RUN, "planner": planner}))
    return await asyncio.to_thread(cli, "run", "p.yaml", "--name", name, "--headless", *words, timeout=1500)


@pytest.mark.slow
@pytest.mark.timeout(1800)
async def test_a_real_run_before_dozens_of_hostile_planners_proposes_and_does_nothing_unasked(
    nest: Canaries, cli: Commands
) -> None:
    cases = answer_cases(nest)
    turns = [case for case in cases if case.family in ("streams", "http")][::2] + cases[:320:16]
    async with court.lying() as liar:
        liar.case, liar.turns = turns[0], turns[1:]
        done = await run_before(liar, cli, "x", "--mode", "read-only", "--max-trials", str(len(turns)))
        assert liar.turns == []
        told = [*liar.told]
    found = cli.show("x")
    assert (done.returncode, "Traceback (most recent call last)" in done.stderr) == (0, False), done.stderr[-2000:]
    assert [trial["status"] for trial in found["trials"]] == ["rejected"] * len(turns)
    assert {trial["decision"]["by"] for trial in found["trials"]} == {"mode read-only"}
    assert [folder.name for folder in (cli.runs / "x" / "steps").iterdir()] == ["base-llama"]
    written = [path.read_bytes() for path in cli.runs.rglob("*") if path.is_file()]
    assert nest.touched([done.stdout, done.stderr, *told, *written]) == []


@pytest.mark.slow
@pytest.mark.timeout(900)
async def test_what_a_real_run_executes_is_what_was_decided(nest: Canaries, cli: Commands) -> None:
    turns = [named(nest, name) for name in ("shell-0-words", "code-2-words", "streams-error-person", "claims-17-words")]
    async with court.lying() as liar:
        liar.case, liar.turns = turns[0], turns[1:]
        done = await run_before(liar, cli, "x", "--mode", "auto", "--max-trials", "4")
        assert done.returncode == 0, done.stderr
        found = cli.show("x")
        for trial in found["trials"]:
            assert (trial["status"], trial["decision"]["by"]) == ("done", "mode auto")
            step = json.loads((cli.runs / "x" / "steps" / str(trial["number"]) / "1" / "action.json").read_text())
            assert step["action"]["digest"] == trial["action"]["digest"]
        # Nobody is there to be asked: no words of a server stand for a person.
        liar.case, liar.turns = named(nest, "streams-error-person"), []
        done = await run_before(liar, cli, "y", "--mode", "ask", "--max-trials", "2")
        (trial,) = cli.show("y")["trials"]
        assert (trial["status"], trial["decision"]["by"]) == ("rejected", "nobody")
        assert "root@pts/3" in trial["proposed_by"]
        told = [*liar.told]
    written = [path.read_bytes() for path in cli.runs.rglob("*") if path.is_file()]
    assert nest.touched([done.stdout, done.stderr, *told, *written]) == []


# --- that the canaries notice ----------------------------------------------------------------------------------------


def wide(by: str) -> bool:
    """Who a person was, once."""
    return by == "person" or "@" in by


def approving(self: Approvals, state: Any, proposal: Proposal, seconds: float | None) -> Decision:
    """A guard that lets all pass."""
    return Decision("approve", proposal.proposed_by, "", proposal.action)


def following(make: Callable[..., None]) -> Callable[..., None]:
    """A client that goes where it is sent."""

    def made(self: PlannerClient, *words: Any, **settings: Any) -> None:
        make(self, *words, **settings)
        self._http.follow_redirects = True

    return made


def running(text: str, limit: int = 0) -> str:
    """A reader that has a shell read."""
    subprocess.run(["sh", "-c", text], capture_output=True, timeout=20, check=False)
    return "read"


async def unchecked(self: Selection, policy: Any, view: Any) -> Proposal:
    """A selection that takes what it is given, with another seed."""
    proposal = await policy.propose(view)
    object.__setattr__(proposal.action, "seed", proposal.action.seed + 1)
    return proposal


@pytest.mark.parametrize(
    ("name", "hole", "seen"),
    [
        ("streams-error-person", lambda patch: patch.setattr(approval, "by_person", wide), "an unapproved effect"),
        ("claims-0-words", lambda patch: patch.setattr(Approvals, "standing", approving), "an unapproved effect"),
        ("http-redirect-307", lambda patch: patch.setattr(PlannerClient, "__init__", following(PlannerClient.__init__)), "connections"),
        ("shell-0-words", lambda patch: patch.setattr(answers, "whole_sentences", running), "made planner"),
        ("claims-0-words", lambda patch: patch.setattr(Selection, "_checked", unchecked), "not what its digest says"),
        ("code-6-words", lambda patch: patch.setattr(session.PromptBook, "render", expanding(session.PromptBook.render)), f"{VARIABLE} was told"),
    ],
    ids=["author", "approval", "redirect", "shell", "selection", "prompt"],
)  # fmt: skip
async def test_a_hole_is_noticed(
    nest: Canaries,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    hole: Callable[[pytest.MonkeyPatch], None],
    seen: str,
) -> None:
    case = named(nest, name)
    assert await court.everything(nest, tmp_path / "sound", [case], ["ask"]) == {}
    hole(monkeypatch)
    found = await court.everything(nest, tmp_path / "holed", [case], ["ask"])
    assert seen in " ".join(found[f"{case} in mode ask"])


def expanding(render: Callable[..., str]) -> Callable[..., str]:
    """Prompts in which variables of the environment are filled in."""
    return lambda self, name, **fields: os.path.expandvars(render(self, name, **fields))


def test_what_is_hostile_acts_where_somebody_lets_it(nest: Canaries, tmp_path: Path, lab: Path) -> None:
    """Each kind of payload, given to what it is meant for."""
    models = {str(case): case for case in model_cases(nest, lab / "llama")}
    shutil.copytree(lab / "llama", tmp_path / "model")
    models["pickles-beside"].make(tmp_path / "model")
    pickle.loads((tmp_path / "model" / "pytorch_model.bin").read_bytes())
    assert nest.touched() == ["made pickles-beside"]
    models["templates-lipsum"].make(tmp_path / "model")
    jinja2.Environment().from_string((tmp_path / "model" / "chat_template.jinja").read_text()).render(messages=[])
    assert nest.touched() == ["made templates-lipsum"]
    profiles = {str(case): case for case in profile_cases(nest)}
    yaml.load(profiles["yaml-tag"].text, Loader=yaml.UnsafeLoader)
    assert nest.touched() == ["made values"]
    for case in file_cases(nest):
        if case.path.endswith(".py") and case.family in ("shadows", "python"):
            exec(compile(case.text, case.path, "exec"), {})
            assert nest.touched() == [f"made {case}"]
    exec(code(nest.path("x")))
    pickle.loads(pickle.dumps(Touch(nest.path("y"))))
    subprocess.run([nest.program], check=True)
    assert nest.touched() == ["made program", "made x", "made y"]
    nest.file.read_text()
    socket.create_connection(("127.0.0.1", nest.port)).recv(1)
    assert nest.touched([f"a {nest.variable}"]) == ["1 connections", "the secret's file was opened", f"{VARIABLE} was told"]
    assert nest.touched([nest.secret]) == ["the secret was told"]


def test_a_module_of_the_current_folder_is_not_taken_for_a_package(nest: Canaries, tmp_path: Path, cli: Commands) -> None:
    """`python -m lamdatui` puts the folder that one is in before all packages."""
    for case in file_cases(nest):
        if case.family == "shadows" and "/" not in case.path:
            (cli.folder / case.path).write_text(case.text)
    done = cli("actions")
    assert (done.returncode, nest.touched()) == (0, []), done.stderr
    subprocess.run([sys.executable, "-c", "import torch"], cwd=cli.folder, capture_output=True, check=False)
    assert nest.touched() == ["made shadows-torch.py"]


def test_an_obeying_planner_is_taken_at_its_word(nest: Canaries) -> None:
    """Else the half of the texts that stand in reasons and memories would never come so far."""
    assert b'"A"' in b"".join(obeying("x")({"max_tokens": 1, "logprobs": True}))
    assert b'"x"' in b"".join(obeying("x")({"max_tokens": 60}))
