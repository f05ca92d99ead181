"""Who proposes and what it is told, changed from outside: real engines, the real socket, the real command line."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from lamdatui.base.errors import LamdatuiError
from lamdatui.domain.policies import SUMMARIES
from lamdatui.domain.state import RunState
from lamdatui.inputs.profile import load_profile
from lamdatui.policy import CHEAP
from lamdatui.store.journal import Journal, read_state
from lamdatui.wire.client import Client
from lamdatui.wire.rundir import StartOptions, prepare_run, start_engine
from tests.conftest import Commands
from tests.test_journal import ACTION, PROPOSAL, fill
from tests.test_run import executions, wait_for

POLICY = "policy: { name: hybrid }"
QUICK = ("max_steps: { default: 40, choices: [40, 120, 240] }", "max_steps: { default: 20, choices: [20] }")
HEADLESS = ("--headless", "--json")


def events_of(text: str, kind: str) -> list[dict[str, Any]]:
    """The data of each event of a kind, from the JSON lines of a headless run."""
    return [event["data"] for event in map(json.loads, text.splitlines()) if event["kind"] == kind]


# --- the command line --------------------------------------------------------------------------------------------------


def test_a_run_goes_on_under_another_policy(lab_profile, cli: Commands) -> None:
    profile = str(lab_profile((POLICY, "policy: { name: hybrid, opening: false }"), QUICK))
    words = ["run", profile, "--name", "x", *HEADLESS, "--mode"]
    first = cli(*words, "auto", "--policy", "tpe", "--max-trials", "2")
    assert first.returncode == 0, first.stderr
    assert events_of(first.stdout, "run.created")[0]["policy"] == "tpe"
    assert events_of(first.stdout, "policy.changed") == []
    second = cli(*words, "auto", "--policy", "evolution", "--max-trials", "3")
    assert second.returncode == 0, second.stderr
    assert events_of(second.stdout, "policy.changed") == [{"name": "evolution", "by": "command line"}]
    # Without a word about it, the policy stays what it was last.
    third = cli(*words, "read-only", "--max-trials", "4")
    assert third.returncode == 0, third.stderr
    assert len(events_of(third.stdout, "policy.changed")) == 1
    found = cli.show("x")
    assert [trial["proposed_by"] for trial in found["trials"]] == ["tpe", "tpe", "evolution", "evolution"]
    assert [trial["status"] for trial in found["trials"]] == ["done"] * 3 + ["rejected"]
    assert found["policy"] == "evolution"
    assert found["profile"]["policy"]["name"] == "hybrid"
    for trial in found["trials"][:3]:
        assert [shadow["policy"] for shadow in trial["shadows"]] == [name for name in CHEAP if name != trial["proposed_by"]]
        assert all(shadow["action"].startswith(("sft(", "dpo(", "merge_")) for shadow in trial["shadows"])
    assert found["trials"][3]["shadows"] == []
    assert len(events_of(third.stdout, "shadows.recorded")) == 3
    assert found["problems"] == []


def test_a_script_is_run_from_its_first_step_to_its_last(lab_profile, cli: Commands) -> None:
    script = """policy:
  name: scripted
  opening: false
  script:
    - { type: sft, inputs: { model: llama, dataset: call_replay }, params: { max_steps: 20 } }
    - { type: dpo, inputs: { model: [m1], dataset: prefer }, params: { max_steps: 5, learning_rate: 0.0001 } }
"""
    done = cli("run", str(lab_profile((POLICY, script))), "--name", "x", *HEADLESS, "--mode", "auto")
    assert done.returncode == 0, done.stderr
    found = cli.show("x")
    assert (found["status"], found["reason"]) == ("done", "the script is over after its 2 steps")
    assert [(t["action"]["type"], t["proposed_by"], t["status"]) for t in found["trials"][:2]] == [
        ("sft", "scripted", "done"),
        ("dpo", "scripted", "done"),
    ]
    assert [trial["details"]["step"] for trial in found["trials"][:2]] == [0, 1]
    assert found["trials"][0]["action"]["params"]["max_steps"] == 20
    assert found["trials"][0]["action"]["params"]["learning_rate"] == 0.002
    assert found["trials"][1]["action"]["inputs"] == {"model": ["m1"], "dataset": ["prefer"]}
    assert [shadow["policy"] for shadow in found["trials"][1]["shadows"]] == list(CHEAP)
    assert found["winner"]["model"] in ("m1", "m2")
    assert found["problems"] == []


def test_a_step_that_is_not_legal_yet_leaves_the_trial_to_another_policy(lab_profile, cli: Commands) -> None:
    script = """policy:
  name: scripted
  opening: false
  script:
    - { type: sft, inputs: { model: llama, dataset: reverse } }
    - { type: sft, inputs: { model: m1, dataset: call } }
"""
    words = ["--name", "x", *HEADLESS, "--mode", "read-only", "--max-trials", "3"]
    done = cli("run", str(lab_profile((POLICY, script))), *words)
    assert done.returncode == 0, done.stderr
    found = cli.show("x")
    assert [trial["proposed_by"].split(" ")[0] for trial in found["trials"]] == ["scripted", "surrogate", "surrogate"]
    proposals = [told["proposal"] for told in events_of(done.stdout, "trial.proposed")]
    assert [told["opening"] for told in proposals] == [False] * 3
    assert proposals[0]["fallback"] is None
    assert all(
        "step 2 of the script (sft) is not possible: model: no object 'm1'" in told["fallback"] for told in proposals[1:]
    )
    assert len(found["problems"]) == 2
    assert executions(cli.runs) == []


def test_policies_are_listed_and_a_wrong_name_is_one_clear_error(lab_profile, cli: Commands) -> None:
    listed = cli("policies").stdout.splitlines()
    assert [line.split()[0] for line in listed] == list(SUMMARIES)
    rows = json.loads(cli("policies", "--json").stdout)
    assert [row["name"] for row in rows if row["default"]] == ["hybrid"]
    assert {row["name"]: row["summary"] for row in rows} == SUMMARIES
    wrong = cli("run", str(lab_profile()), *HEADLESS, "--mode", "auto", "--policy", "hybird")
    assert wrong.returncode == 2
    assert "no policy named 'hybird'" in wrong.stderr
    assert "did you mean 'hybrid'" in wrong.stderr
    wrong = cli("run", str(lab_profile((POLICY, "policy: { name: evolutoin }"))), *HEADLESS, "--mode", "auto")
    assert wrong.returncode == 2
    assert "did you mean 'evolution'" in wrong.stderr
    assert not cli.runs.exists() or not list(cli.runs.glob("*/run.db"))


@pytest.mark.parametrize(("name", "said"), [("lamdagent", "needs a planner"), ("scripted", "needs a script")])
def test_a_policy_that_lacks_what_it_needs_is_refused_before_anything_runs(
    lab_profile, cli: Commands, name: str, said: str
) -> None:
    done = cli("run", str(lab_profile()), "--name", "x", *HEADLESS, "--mode", "auto", "--policy", name)
    assert done.returncode == 2
    assert said in done.stderr
    assert executions(cli.runs) == []


# --- while it runs ---------------------------------------------------------------------------------------------------


def started(cli: Commands, profile: Path, name: str = "x", mode: str = "ask") -> Path:
    """A run whose engine waits for a decision on its first trial."""
    run_dir = prepare_run(load_profile(profile), name, cli.runs)
    start_engine(run_dir, StartOptions(mode=mode))
    awaiting(cli, name, 1)
    return run_dir


def awaiting(cli: Commands, name: str, number: int) -> RunState:
    """The run's state once this trial waits for a decision."""

    def condition(state: RunState) -> bool:
        return state.phase == "waiting" and number in state.trials and state.trials[number].status == "awaiting"

    return wait_for(cli, name, condition)


@contextlib.asynccontextmanager
async def connected(run_dir: Path, role: str = "console") -> AsyncIterator[Client]:
    """A client that has attached."""
    client = await Client.connect(run_dir)

    async def drain() -> None:
        async for _ in client.frames():
            pass

    reading = asyncio.create_task(drain())
    await client.command("attach", role=role)
    yield client
    reading.cancel()
    await client.close()


def told(run_dir: Path, *commands: tuple[str, dict[str, Any]], role: str = "console") -> list[str]:
    """Send commands one after the other; what each was refused with, or ""."""

    async def body() -> list[str]:
        said = []
        async with connected(run_dir, role) as client:
            for command, args in commands:
                try:
                    await client.command(command, **args)
                    said.append("")
                except LamdatuiError as error:
                    said.append(error.what)
        return said

    return asyncio.run(body())


def veto(cli: Commands, run_dir: Path, number: int, reason: str) -> RunState:
    """Veto a waiting trial; the state when the next one waits."""
    state = awaiting(cli, run_dir.name, number)
    digest = state.trials[number].proposal["action"]["digest"]  # type: ignore[index]
    assert told(run_dir, ("decide", {"number": number, "digest": digest, "verdict": "veto", "reason": reason})) == [""]
    return awaiting(cli, run_dir.name, number + 1)


def test_a_person_changes_the_policy_hints_and_memory_of_a_run_that_is_going(lab_profile, cli: Commands) -> None:
    profile = lab_profile((POLICY, "policy: { name: hybrid, opening: false }"))
    run_dir = started(cli, profile)
    seq = read_state(run_dir / "run.db").last_seq
    refused = told(run_dir, ("hint", {"text": "x"}), ("policy", {"name": "tpe"}), ("memory", {"text": "x"}), role="viewer")
    assert refused == ["a viewer can't steer"] * 3
    refused = told(
        run_dir,
        ("policy", {"name": "evolutoin"}),
        ("policy", {"name": "lamdagent"}),
        ("policy", {}),
        ("hint", {"text": " \n\x1b "}),
        ("revoke", {"id": "h1"}),
    )
    assert refused[0] == "no policy named 'evolutoin'"
    assert "needs a planner" in refused[1]
    assert "missing argument" in refused[2]
    assert refused[3] == "a hint can't be empty"
    assert "no hint 'h1'" in refused[4]
    assert read_state(run_dir / "run.db").last_seq == seq

    said = told(
        run_dir,
        ("hint", {"text": "try merging\nfirst\x1b[2J"}),
        ("hint", {"text": "w " * 400}),
        ("memory", {"text": "Replay helps."}),
        ("policy", {"name": "tpe"}),
    )
    assert said == [""] * 4
    state = read_state(run_dir / "run.db")
    first, second = state.hints.values()
    assert (first["text"], first["by"], first["trial"]) == ("try merging first [2J", "person", 1)
    assert len(second["text"]) <= 300
    assert (state.memory, state.memory_by) == ("Replay helps.", "person")
    assert state.policy == "tpe"
    assert state.trials[1].proposed_by == "surrogate"
    assert told(run_dir, ("revoke", {"id": first["id"]})) == [""]
    assert [hint["id"] for hint in read_state(run_dir / "run.db").hints.values()] == [second["id"]]

    after = veto(cli, run_dir, 1, "not this one")
    assert after.trials[2].proposed_by == "tpe"
    process = cli.popen("run", str(profile), "--name", "x", "--headless", "--mode", "ask", "--policy", "random")
    wait_for(cli, "x", lambda state: state.policy == "random")
    assert veto(cli, run_dir, 2, "nor this one").trials[3].proposed_by == "random"
    assert told(run_dir, ("stop", {"when": "now"})) == [""]
    process.communicate(timeout=60)
    ended = wait_for(cli, "x", lambda state: state.status == "stopped")
    assert [trial.status for trial in ended.trials.values()] == ["vetoed", "vetoed", "stopped"]
    assert ended.memory == "Replay helps."
    assert executions(cli.runs) == []


# --- a planner in a run ------------------------------------------------------------------------------------------------


class Planner(BaseHTTPRequestHandler):
    """An OpenAI-compatible server that prefers fine-tuning and keeps every question."""

    questions: list[str]

    def do_GET(self) -> None:
        self._send(b'{"data": [{"id": "planner-8b"}]}', "application/json")

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        user = request["messages"][-1]["content"]
        if len(request["messages"]) > 1:
            self.questions.append(user)
        lines = re.findall(r"^[A-Z]: .+$", user, re.MULTILINE)
        text = next((line[0] for line in lines if "sft(" in line), "A") if lines else "Fine-tuning is promising."
        choice: dict[str, Any] = {"index": 0, "delta": {"content": text}, "finish_reason": "stop"}
        if request.get("logprobs"):
            top = [{"token": line[0], "logprob": -0.1 if line[0] == text else -4.0} for line in lines or [text]]
            choice["logprobs"] = {"content": [{"token": text, "logprob": -0.1, "top_logprobs": top}]}
        self._send(f"data: {json.dumps({'choices': [choice]})}\n\ndata: [DONE]\n\n".encode(), "text/event-stream")

    def _send(self, body: bytes, kind: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing is logged."""


@pytest.fixture
def planner() -> Iterator[tuple[str, list[str]]]:
    """(address, questions so far) of a planner's server."""
    questions: list[str] = []
    handler: Callable[..., Any] = type("Asked", (Planner,), {"questions": questions})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", questions
        server.shutdown()


def test_what_people_say_reaches_the_planner_and_its_choices_are_recorded(lab_profile, cli: Commands, planner) -> None:
    url, questions = planner
    chooses = "policy: { name: hybrid, share: 1, opening: false }\nplanner: { backend: openai, shortlist: 4, url: '"
    chooses += f"{url}' }}"
    run_dir = started(cli, lab_profile((POLICY, chooses), QUICK))
    proposal = read_state(run_dir / "run.db").trials[1].proposal
    assert proposal is not None
    assert proposal["proposed_by"] == "hybrid"
    assert (proposal["details"]["chooser"], proposal["details"]["planner"]) == ("planner", "planner-8b")
    assert proposal["reason"] == "Fine-tuning is promising."
    assert sum(one["probability"] for one in proposal["alternatives"]) == pytest.approx(1, abs=1e-3)
    assert all("Hints from people: none" in question for question in questions)

    told(run_dir, ("hint", {"text": "phi is worth a try"}), ("memory", {"text": "Replay keeps what was known."}))
    asked = len(questions)
    state = veto(cli, run_dir, 1, "too slow")
    assert len(questions) > asked
    for question in questions[asked:]:
        assert "Hints from people: person: phi is worth a try" in question
        assert "Memory: Replay keeps what was known." in question
        assert ": too slow" in question
    told(run_dir, ("revoke", {"id": next(iter(state.hints))}))
    asked = len(questions)
    veto(cli, run_dir, 2, "nor this")
    assert all("Hints from people: none" in question for question in questions[asked:])

    # What the planner chose is run: it may rewrite the memory, and only then.
    digest = awaiting(cli, "x", 3).trials[3].proposal["action"]["digest"]  # type: ignore[index]
    assert told(run_dir, ("decide", {"number": 3, "digest": digest, "verdict": "approve"})) == [""]
    after = awaiting(cli, "x", 4)
    assert after.trials[3].status == "done"
    assert [shadow["policy"] for shadow in after.trials[3].shadows] == list(CHEAP)
    assert after.memory == "Fine-tuning is promising."
    assert after.memory_by == "hybrid (planner-8b)"
    assert told(run_dir, ("stop", {"when": "now"})) == [""]
    wait_for(cli, "x", lambda state: state.status == "stopped")


# --- the journal -----------------------------------------------------------------------------------------------------


def test_what_people_said_and_what_others_would_have_done_survive_in_the_journal(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "run.db")
    fill(journal)
    shadow = {"policy": "tpe", "action": "sft(model=base)", "digest": "a", "expected": None, "seconds": 0.1}
    for name in ("h1", "h2"):
        journal.append(("hint.added", {"id": name, "text": f"say {name}", "by": "person", "trial": None}))
    journal.append(
        ("hint.revoked", {"id": "h1", "by": "person"}),
        ("hint.revoked", {"id": "h9", "by": "person"}),
        ("policy.changed", {"name": "tpe", "by": "person"}),
        ("memory.updated", {"text": "Replay helps.", "by": "person"}),
        ("shadows.recorded", {"number": 2, "shadows": [shadow]}),
        ("budget.changed", {"max_trials": 9, "by": "person"}),
    )
    for name in ("q1", "q2", "q3"):
        journal.append(("action.queued", {"id": name, "action": ACTION, "note": "", "by": "person"}))
    journal.append(
        ("action.withdrawn", {"id": "q1", "by": "person"}),
        ("trial.opened", {"number": 3}),
        ("trial.proposed", {"number": 3, "proposal": {**PROPOSAL, "queued": "q2"}}),
    )
    before = journal.projections()
    journal.rebuild()
    assert journal.projections() == before
    journal.close()
    state = read_state(tmp_path / "run.db")
    assert [hint["text"] for hint in state.hints.values()] == ["say h2"]
    assert (state.policy, state.memory, state.memory_by) == ("tpe", "Replay helps.", "person")
    assert (list(state.queue), state.max_trials) == (["q3"], 9)
    assert (state.trials[1].shadows, state.trials[2].shadows) == ([], [shadow])
