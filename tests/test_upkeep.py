"""What a run looks after, and how its engine begins and ends, without a process of its own: results, scores, room on the disk, promises, last words."""

from __future__ import annotations

import argparse
import asyncio
import errno
import stat
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import apsw
import pytest

from lamdatui.base.errors import EXIT_FAILED
from lamdatui.base.fingerprint import Changed
from lamdatui.domain.actions import action_from_json
from lamdatui.domain.objects import ModelObject, object_from_json, object_to_json
from lamdatui.engine import __main__ as engines
from lamdatui.engine import upkeep as upkeeps
from lamdatui.engine.__main__ import Engine
from lamdatui.engine.approval import Approvals
from lamdatui.engine.integrity import check_promises, damaged, promised
from lamdatui.engine.loop import Loop
from lamdatui.engine.scoring import Scoring
from lamdatui.engine.upkeep import SearchEnded, Upkeep
from lamdatui.inputs.profile import load_profile
from lamdatui.inputs.workspace import open_workspace
from lamdatui.store import journal as journals
from lamdatui.store.artifacts import Store
from lamdatui.store.journal import Journal, JournalFailed, read_state
from lamdatui.wire import lastwords
from lamdatui.wire.rundir import prepare_run
from tests.landed import Landed
from tests.test_approval import MACHINE, proposal
from tests.test_candidates import TYPES, model, pool
from tests.test_journal import ACTION, CREATED, MODEL, PROPOSAL, fill
from tests.test_scoring import BASE, record, scoring

__all__ = ["scoring"]  # the fixture


class Run:
    """As much of a run as upkeep looks at; its journal, store and scores are real."""

    def __init__(self, folder: Path, scoring: Scoring) -> None:
        self.journal = Journal(folder / "run.db")
        self.journal.append(("run.created", CREATED), ("object.added", {"object": MODEL}))
        self.store, self.scoring, self.woken = scoring.store, scoring, asyncio.Event()
        budget = SimpleNamespace(keep_free_mib=64, disk_gib=None)
        self.workspace = SimpleNamespace(tasks=scoring.tasks, profile=SimpleNamespace(budget=budget))
        self.requests = SimpleNamespace(evaluation=lambda *_: {})
        self.steps: list[str] = []
        self.phases: list[str] = []

    @property
    def state(self) -> Any:
        return self.journal.state

    def record(self, *facts: Any) -> None:
        self.journal.append(*facts)

    def phase(self, phase: str, detail: str = "") -> None:
        self.phases.append(f"{phase}: {detail}")

    def problem(self, where: str, message: str) -> None:
        self.record(("problem.noted", {"where": where, "message": message}))

    def is_done(self, action: Any) -> bool:
        return self.store.find(action.digest) is not None

    async def step(self, name: str, request: Any) -> dict[str, Any]:
        self.steps.append(name)
        record(self.scoring, "x", BASE)
        return {"status": "ok"}


@pytest.fixture
def run(tmp_path: Path, scoring: Scoring) -> Run:
    return Run(tmp_path, scoring)


def of(run: Run) -> Upkeep:
    return Upkeep(cast(Any, run))


# --- results and scores ----------------------------------------------------------------------------------------------


def published(store: Store, digest: str) -> Path:
    with store.staging() as staged:
        (staged / "model.safetensors").write_bytes(b"x" * 100)
        return store.publish(staged, digest, {"kind": "full"})


async def test_a_result_that_is_damaged_in_the_store_is_none_and_is_told(run: Run) -> None:
    """It was served: only sizes were compared."""
    action = action_from_json(ACTION)
    folder = published(run.store, action.digest)
    assert await of(run).has_result(action)
    (folder / "model.safetensors").write_bytes(b"x" * 99 + b"y")
    assert run.is_done(action) and not await of(run).has_result(action)
    assert "is damaged in the store: model.safetensors; it is made again" in run.state.problems[-1]["message"]


def test_what_a_step_stands_on_is_read_before_it_begins(run: Run) -> None:
    standing = cast(ModelObject, object_from_json({**MODEL, "id": "m1", "weights": "store:parent", "adapters": ["store:lora"]}))
    folders = {name: published(run.store, name) for name in ("parent", "lora")}
    assert damaged(run.store, [standing]) == {}
    (folders["lora"] / "model.safetensors").write_bytes(b"y" * 100)
    assert damaged(run.store, [standing]) == {"lora": ["model.safetensors"]}
    run.store.put_aside("parent")
    assert damaged(run.store, [standing]) == {"parent": [], "lora": ["model.safetensors"]}


async def test_scores_on_record_whose_evaluation_is_gone_are_measured_again(run: Run) -> None:
    """Every start of the run ended: the scores were on record, so that nothing was evaluated, and then there were no rows."""
    base = run.state.pool.model("base")
    record(run.scoring, "x", BASE)
    await of(run).evaluate(base, "search", "base-base")
    assert run.steps == []
    known = run.state.scores["base"]
    for file in (run.store.root / "evaluations").iterdir():
        file.write_bytes(file.read_bytes()[:100])
    await of(run).evaluate(base, "search", "base-base")
    assert run.steps == ["base-base"] and run.state.scores["base"] == known
    assert run.scoring.gain("x", "x", "search")["mean"] == 0.0


# --- the disk --------------------------------------------------------------------------------------------------------


async def test_a_model_whose_manifest_is_damaged_gives_no_room_and_ends_no_run(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = published(run.store, "x")
    (folder / "manifest.json").write_text("{}")
    run.workspace.profile.budget.disk_gib = 0.001
    monkeypatch.setattr(upkeeps, "written", lambda _: 2**30)
    monkeypatch.setattr(upkeeps, "droppable", lambda _, keep: [name for name in ("base",) if name not in keep])
    await of(run).keep_within()
    assert folder.exists() and not run.state.dropped


async def test_a_disk_without_room_is_waited_for_with_the_reason(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run ended as done, with exit code 0, and no trial was done."""
    free = iter([2**20, 2**20, 2**30])
    monkeypatch.setattr(upkeeps, "free_bytes", lambda _: next(free))
    monkeypatch.setattr(upkeeps, "ROOM_SECONDS", 0.01)
    await of(run).have_room()
    kinds = [event.kind for event in run.journal.events() if event.kind.startswith("run.")]
    assert kinds == ["run.created", "run.paused", "run.unpaused"]
    assert "1 MiB are free on the disk of" in run.phases[0] and "64 MiB are needed" in run.phases[0]


class Ending:
    """As much of the loop as what is left to try concerns."""

    def __init__(self, counted: int) -> None:
        self.state = SimpleNamespace(counted=counted)
        self.waited: list[str] = []
        self.upkeep = SimpleNamespace(out_of_room=self._wait)

    async def _wait(self, why: str) -> None:
        self.waited.append(why)

    async def _choose(self, number: int) -> str:
        return f"another choice for trial {number}"


async def test_a_search_that_lacks_only_room_on_the_disk_waits_for_it() -> None:
    run = cast(Any, Ending(0))
    counts = {"sft": {"refused": {"it needs 3 GiB, 1 MiB are free on the disk": 8}}, "dpo": {"refused": {"no pairs": 2}}}
    assert await Loop._nothing_left(run, 1, counts) == "another choice for trial 1"
    assert run.waited == ["no action fits on the disk: sft: it needs 3 GiB, 1 MiB are free on the disk"]


@pytest.mark.parametrize(("counted", "status"), [(0, "refused"), (1, "refused"), (2, "done")])
async def test_a_search_in_which_nothing_was_possible_is_not_done_and_says_why(counted: int, status: str) -> None:
    """Nothing said what all actions were refused for."""
    counts = {"sft": {"refused": {"it takes 9 GiB of memory": 8, "tried already": 3}}}
    with pytest.raises(SearchEnded, match=r"no legal action is left .*\(sft: it takes 9 GiB of memory\)") as ended:
        await Loop._nothing_left(cast(Any, Ending(counted)), 1, counts)
    assert ended.value.status == status


# --- decisions -------------------------------------------------------------------------------------------------------


async def test_a_decision_whose_commit_fails_answers_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was answered ok, then lost; what had been vetoed was run by the next engine."""
    state = pool(model("base"))
    shown = proposal(state)
    journal = Journal(tmp_path / "run.db")
    told = {**PROPOSAL, "action": shown.action.to_json()}
    journal.append(*(("object.added", {"object": object_to_json(item)}) for item in state.pool.items.values()))
    journal.append(("trial.opened", {"number": 1}), ("trial.proposed", {"number": 1, "proposal": told}))
    loop = Loop.__new__(Loop)
    loop.journal, loop.publish, loop.approvals = journal, lambda _: None, Approvals(TYPES, MACHINE)
    asking = asyncio.create_task(loop.approvals.ask(1, shown))
    await asyncio.sleep(0)
    veto = {"number": 1, "digest": shown.action.digest, "verdict": "veto"}
    with monkeypatch.context() as patched:
        patched.setattr(journals, "fault", full)
        with pytest.raises(JournalFailed, match="the disk is full"):
            loop.decide(veto, "person")
    await asyncio.sleep(0)
    assert not asking.done() and read_state(tmp_path / "run.db").trials[1].decision is None
    asking.cancel()
    # With room, it is on record before anybody hears of it.
    again = loop.journal = Journal(tmp_path / "run.db")
    asking = asyncio.create_task(loop.approvals.ask(1, shown))
    await asyncio.sleep(0)
    heard: list[Any] = []
    monkeypatch.setattr(loop.approvals, "answer", lambda _: heard.append(read_state(tmp_path / "run.db").trials[1].decision))
    assert loop.decide(veto, "person") == "veto"
    assert heard == [{"verdict": "veto", "by": "person", "reason": ""}]
    asking.cancel()
    again.close()


def full(point: str) -> None:
    if point == "journal.before-commit":
        raise OSError(errno.ENOSPC, "No space left on device")


# --- an engine's beginning and end -----------------------------------------------------------------------------------


def engine_of(landed: Landed, name: str) -> Engine:
    """The engine of a landed run, not at work."""
    options = argparse.Namespace(view=False, network=None)
    return Engine(landed.runs / name, load_profile(landed.runs / name / "profile.yaml"), options)


async def test_an_engine_that_can_not_record_ends_and_leaves_the_reason(
    landed: Landed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It went on: what a client had been told was in memory alone."""
    engine = engine_of(landed, "awaiting")
    monkeypatch.setattr(journals, "fault", full)
    with pytest.raises(JournalFailed):
        engine.journal.append(("problem.noted", {"where": "x", "message": "y"}))
    assert engine.closing.is_set()
    words = lastwords.last_words(landed.runs / "awaiting")
    assert words is not None and "the disk is full" in words.what
    engine.journal.close()


async def test_where_an_engine_listens_is_written_before_anybody_is_greeted(
    landed: Landed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A command that returned when the engine had greeted it found no file."""
    engine = engine_of(landed, "awaiting")
    there: list[bool] = []
    start = engine.server.start

    async def watched() -> None:
        there.append((engine.run_dir / "socket").exists())
        await start()

    monkeypatch.setattr(engine.server, "start", watched)
    await engine._serve()
    assert there == [True] and Path((engine.run_dir / "socket").read_text()).is_socket()
    await engine.server.close()
    engine.journal.close()


@pytest.mark.parametrize("what", ["dataset", "weights", "task"])
def test_an_input_that_is_not_what_the_run_began_with_is_refused(landed: Landed, what: str) -> None:
    profile = load_profile(landed.runs / "finished" / "profile.yaml")
    state = read_state(landed.runs / "finished" / "run.db")
    check_promises(open_workspace(profile, promised=promised(state)), state)
    file = landed.project / {"dataset": "copy.jsonl", "weights": "base/model.safetensors", "task": "call.jsonl"}[what]
    data = bytearray(file.read_bytes())
    if what == "weights":
        data[-1000:] = bytes(1000)
    else:
        data = bytearray(b"".join(bytes(data).splitlines(keepends=True)[:-1]))
    file.write_bytes(data)
    with pytest.raises(Changed, match="has changed since"):
        check_promises(open_workspace(profile, promised=promised(state)), state)


def test_an_engine_leaves_its_reason_beside_the_socket_where_the_run_has_no_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Writing the reason failed of the same full disk, and the reason was lost."""
    write = lastwords.write_json

    def refusing(place: Path, value: Any) -> None:
        if place.parent == tmp_path:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(place, value)

    monkeypatch.setattr(lastwords, "write_json", refusing)
    error = engines.told_of(OSError(errno.ENOSPC, "No space left on device", "run.db"), tmp_path)
    assert error.what.startswith("the disk is full") and "free some space" in error.fix and error.exit_code == EXIT_FAILED
    lastwords.leave(tmp_path, error)
    words = lastwords.last_words(tmp_path)
    assert words is not None and (words.what, words.fix) == (error.what, error.fix)
    lastwords.forget(tmp_path)
    assert lastwords.last_words(tmp_path) is None


@pytest.mark.parametrize(
    ("free", "told"), [(2**19, "the disk is full (0.5 MiB free)"), (2**30, "its log ends with: so it was")]
)
def test_whoever_watched_an_engine_that_went_without_a_word_is_told_the_likely_cause(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int, told: str
) -> None:
    (tmp_path / "engine.log").write_text("first\nso it was\n")
    monkeypatch.setattr(lastwords.shutil, "disk_usage", lambda _: SimpleNamespace(free=free))
    assert told in lastwords.cause(tmp_path).what


def test_what_an_engine_makes_and_what_it_finds_is_its_users_alone(lab_profile, tmp_path: Path) -> None:
    """Databases, logs and metrics could be read by whoever was on the machine."""
    gone = load_profile(lab_profile(), ["datasets.copy.path=gone.jsonl"])
    run_dir = prepare_run(gone, "x", tmp_path / "runs")
    (run_dir / "metrics.jsonl").touch()
    (run_dir / "metrics.jsonl").chmod(0o644)
    words = [sys.executable, "-P", "-m", "lamdatui.engine", str(run_dir)]
    done = subprocess.run(words, umask=0o022, capture_output=True, text=True)
    assert done.returncode == 2 and "gone.jsonl" in done.stderr
    made = {path.name: stat.S_IMODE(path.stat().st_mode) for path in run_dir.iterdir() if path.is_file()}
    assert {"lock", "run.db", "engine-error.json", "metrics.jsonl"} <= set(made)
    assert {name for name, mode in made.items() if mode & 0o077} == set()


# --- where nothing can be written ------------------------------------------------------------------------------------


def test_a_run_is_read_where_sqlite_can_not_make_what_it_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a disk that is only read, or as another user: "unable to open database file"."""
    journal = Journal(tmp_path / "run.db")
    fill(journal)
    journal.close()
    state = read_state(tmp_path / "run.db")
    opened, connection = [], apsw.Connection

    class Refusing:
        """What SQLite does with a database in WAL mode beside which it can make no file."""

        def execute(self, *_: object) -> None:
            raise apsw.CantOpenError("unable to open database file")

        def close(self) -> None:
            pass

    def connected(name: str, **settings: Any) -> Any:
        opened.append(Path(name))
        return Refusing() if Path(name).parent == tmp_path else connection(name, **settings)

    monkeypatch.setattr(journals.apsw, "Connection", connected)
    assert read_state(tmp_path / "run.db") == state
    assert len(opened) == 2 and not opened[1].exists()
