"""Durable operations, one for each process: `python -P tests/operations.py prepare|do NAME FOLDER`.

A process says `ready` before its operation, and `acknowledged` each time that a part of it has returned: from then on that part has to
survive anything. `check` looks, with the product's own readers, at what is there.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import apsw

from lamdatui.base.errors import LamdatuiError
from lamdatui.base.jsonio import naming, read_json, read_record, write_atomic, write_json, write_record
from lamdatui.step.files import claim, read_claim, read_outcome, write_outcome, write_request
from lamdatui.store.artifacts import MANIFEST, Store
from lamdatui.store.checkpoints import Checkpoints, folder_of, kept_steps
from lamdatui.store.journal import Journal, read_run, read_state

READY, ACKNOWLEDGED, REFUSED = "ready", "acknowledged", "refused "
ROWS = [{"id": 1, "score": 1.0}] * 90
MODEL = {"kind": "model", "id": "base", "digest": "x", "architecture": "llama", "layout": "l", "weights": "/w", "adapters": [], "parameters": 1,
         "trial": None}  # fmt: skip
ACTION = {"type": "sft", "inputs": {"model": ["base"]}, "params": {"learning_rate": 0.1}, "seed": 1, "digest": "a"}
DIGEST = "d" * 64
OLD, NEW = "old " * 700, "new " * 900


OUT = 1
"""Where it is said."""


def say(text: str) -> None:
    os.write(OUT, f"{text}\n".encode())


def acknowledge() -> None:
    say(ACKNOWLEDGED)


def opened(*numbers: int) -> list[tuple[str, dict[str, Any]]]:
    return [("trial.opened", {"number": number}) for number in numbers]


# --- files -----------------------------------------------------------------------------------------------------------


def prepare_text(folder: Path) -> None:
    write_atomic(folder / "text", OLD)


def do_text(folder: Path) -> None:
    write_atomic(folder / "text", NEW)
    acknowledge()


def check_text(folder: Path, said: int) -> None:
    assert (folder / "text").read_text() in ((OLD, NEW) if not said else (NEW,)), "a text is neither the old nor the new one"


def prepare_record(folder: Path) -> None:
    write_json(folder / "value.json", {"a": OLD})


def do_record(folder: Path) -> None:
    write_json(folder / "value.json", {"a": NEW})
    acknowledge()
    write_record(folder / "record.json", {"a": NEW})
    acknowledge()


def check_record(folder: Path, said: int) -> None:
    assert read_json(folder / "value.json") in ([{"a": OLD}] if not said else []) + [{"a": NEW}], "JSON is not what was written"
    if said == 2 or (folder / "record.json").exists():
        assert read_record(folder / "record.json") == {"a": NEW}, "a record is not what was written"


def do_attempt(folder: Path) -> None:
    from lamdatui.base.jsonio import make_folder

    place = folder / "steps" / "1" / "1"
    make_folder(place)
    write_request(place, {"step": "1/1"})
    acknowledge()
    # Whoever comes second finds it taken.
    claim(place, "step")
    acknowledge()
    write_outcome(place, {"status": "ok"})
    acknowledge()


def check_attempt(folder: Path, said: int) -> None:
    place = folder / "steps" / "1" / "1"
    if said >= 1 or (place / "action.json").exists():
        assert read_record(place / "action.json") == {"step": "1/1"}, "a request is not what was written"
    found = read_claim(place)
    assert found is not None or said < 2, "a claim is gone"
    outcome = read_outcome(place)
    assert outcome == {"status": "ok"} or (outcome is None and said < 3), "an outcome is gone"


# --- the store -------------------------------------------------------------------------------------------------------


def staged_files(staged: Path) -> None:
    (staged / "sub").mkdir()
    for name in ("sub/weights", "config.json"):
        with naming(staged / name):
            (staged / name).write_bytes(bytes(range(256)) * 20)


def do_publish(folder: Path) -> None:
    store = Store(folder / "store")
    store.sweep()
    with store.lock(DIGEST), store.staging() as staged:
        staged_files(staged)
        store.publish(staged, DIGEST, {"kind": "full"})
        acknowledge()


def check_publish(folder: Path, said: int) -> None:
    store = Store(folder / "store")
    found = store.find(DIGEST)
    assert found is not None or not said, "a published object is gone"
    if found is not None:
        assert store.verify(DIGEST) == [], "a published object is not what was published"
        assert (store.resolve(f"store:{DIGEST}") / "sub" / "weights").stat().st_size == 5120


def prepare_drop(folder: Path) -> None:
    store = Store(folder / "store")
    with store.staging() as staged:
        staged_files(staged)
        store.publish(staged, DIGEST, {"kind": "full"})


def do_drop(folder: Path) -> None:
    Store(folder / "store").drop(DIGEST)
    acknowledge()


def check_drop(folder: Path, said: int) -> None:
    store = Store(folder / "store")
    if store.find(DIGEST) is None:
        assert set(store.dropped(DIGEST)["files"]) == {"sub/weights", "config.json"}, "what was dropped is not on record"
    else:
        assert store.verify(DIGEST) == [], "an object is there by half"
    # That it is gone is no promise: should it be there again, it is whole.


def do_evaluation(folder: Path) -> None:
    Store(folder / "store").record_evaluation("key", {"key": "key", "rows": ROWS})
    acknowledge()


def check_evaluation(folder: Path, said: int) -> None:
    store = Store(folder / "store")
    found = store.evaluation("key")
    assert found == {"key": "key", "rows": ROWS} or (found is None and not said), "an evaluation is gone"
    assert not (store.root / "damaged").exists(), "an evaluation was there by half"


def prepare_checkpoint(folder: Path) -> None:
    for step in (5, 10):
        take(folder, step)


def take(folder: Path, step: int) -> None:
    written = folder / "written"
    shutil.rmtree(written, ignore_errors=True)
    written.mkdir()
    for name in ("adapter_model.safetensors", "optimizer.pt"):
        with naming(written / name):
            (written / name).write_bytes(f"{name} of {step} ".encode() * 100)
    Checkpoints(folder / "store", DIGEST, 0.0, print, lambda: False).take(written, step)


def do_checkpoint(folder: Path) -> None:
    take(folder, 15)
    acknowledge()


def check_checkpoint(folder: Path, said: int) -> None:
    told: list[str] = []
    found = Checkpoints(folder / "store", DIGEST, 0.0, told.append, lambda: False).newest()
    assert found is not None and not told, f"a checkpoint is damaged: {told}"
    assert found.name in (("10", "15") if not said else ("15",)), "a checkpoint is gone"
    assert kept_steps(folder_of(folder / "store", DIGEST))[-1] == int(found.name) and (found / MANIFEST).exists()


# --- the journal -----------------------------------------------------------------------------------------------------


def do_create(folder: Path) -> None:
    journal = Journal(folder / "run.db")
    acknowledge()
    journal.close()


def check_create(folder: Path, said: int) -> None:
    if said or (folder / "run.db").exists():
        assert read_state(folder / "run.db").last_seq == 0 and read_run(folder / "run.db")[1] == 0


def prepare_commits(folder: Path) -> None:
    journal = Journal(folder / "run.db")
    journal.append(*opened(1, 2, 3))
    journal.close()


def do_commits(folder: Path) -> None:
    journal = Journal(folder / "run.db")
    first = max(journal.state.trials) + 1
    for number in range(first, 10, 3):
        journal.append(*opened(number, number + 1, number + 2))
        acknowledge()
    journal.close()


def check_commits(folder: Path, said: int) -> None:
    state = read_state(folder / "run.db")
    count = len(state.trials)
    assert sorted(state.trials) == list(range(1, count + 1)) and count % 3 == 0, f"a commit is there by half: {count} trials"
    assert count in (3 + 3 * said, min(6 + 3 * said, 9)), f"{said} commits were acknowledged, and {count} trials are there"
    assert read_run(folder / "run.db")[1] == count, "the summary is not of the events"


def prepare_migrate(folder: Path) -> None:
    prepare_commits(folder)
    db = apsw.Connection(str(folder / "run.db"))
    db.execute("DROP TABLE chain")
    # The layout before every event had a hash.
    db.execute("PRAGMA user_version=1")
    db.close()


def do_migrate(folder: Path) -> None:
    journal = Journal(folder / "run.db")
    if 4 not in journal.state.trials:
        journal.append(*opened(4))
    acknowledge()
    journal.close()


def check_migrate(folder: Path, said: int) -> None:
    count = len(read_state(folder / "run.db").trials)
    assert count in (3, 4)[said:], "an older run is not what it was"


def prepare_decision(folder: Path) -> None:
    journal = Journal(folder / "run.db")
    journal.append(*opened(1))
    cost = {"seconds": None, "memory_bytes": None, "disk_bytes": None, "measured": 0}
    proposal = {"id": "p", "action": ACTION, "proposed_by": "random", "reason": "because", "seconds": 0.1}
    proposal |= {"alternatives": [], "estimate": cost, "opening": False, "fallback": None, "details": {}}
    journal.append(("object.added", {"object": MODEL}), ("trial.proposed", {"number": 1, "proposal": proposal}))
    journal.close()


def do_decision(folder: Path) -> None:
    from lamdatui.domain.actions import action_from_json
    from lamdatui.engine.approval import Approvals, Decision

    journal = Journal(folder / "run.db")
    if (decided := journal.state.trials[1].decision) is None:
        decision = Decision("veto", "person", "no", action_from_json(ACTION))
        data = {"number": 1, "verdict": "veto", "by": "person", "reason": "no", "action": ACTION}
        approvals = Approvals({}, None)  # type: ignore[arg-type]  # nothing is judged here
        journal.append(("trial.decided", data), *approvals.consequences(journal.state, 1, decision))
        approvals.answer(decision)
    else:
        assert decided["verdict"] == "veto"
    acknowledge()
    journal.close()


def check_decision(folder: Path, said: int) -> None:
    state = read_state(folder / "run.db")
    decided = state.trials[1].decision
    assert decided is None or decided["verdict"] == "veto"
    assert (decided is not None) == bool(state.constraints), "a decision is there by half"
    assert decided is not None or not said, "a decision was answered and is gone"


class Operation(NamedTuple):
    prepare: Callable[[Path], None]
    do: Callable[[Path], None]
    check: Callable[[Path, int], None]
    """Of a folder, and how many parts were acknowledged. Raises AssertionError; whatever else a reader raises is wrong, too."""
    parts: int = 1


def _nothing(_: Path) -> None:
    """A new folder."""


def _store(folder: Path) -> None:
    Store(folder / "store")


OPERATIONS = {
    "text": Operation(prepare_text, do_text, check_text),
    "record": Operation(prepare_record, do_record, check_record, 2),
    "attempt": Operation(_nothing, do_attempt, check_attempt, 3),
    "publish": Operation(_store, do_publish, check_publish),
    "publish-first": Operation(_nothing, do_publish, check_publish),
    "drop": Operation(prepare_drop, do_drop, check_drop),
    "evaluation": Operation(_store, do_evaluation, check_evaluation),
    "checkpoint": Operation(prepare_checkpoint, do_checkpoint, check_checkpoint),
    "create": Operation(_nothing, do_create, check_create),
    "commits": Operation(prepare_commits, do_commits, check_commits, 2),
    "migrate": Operation(prepare_migrate, do_migrate, check_migrate),
    "decision": Operation(prepare_decision, do_decision, check_decision),
}


def main(what: str, name: str, folder: Path) -> int:
    """Prepare or do; what the command line and the engine tell of an error is said as one line of JSON."""
    if what == "prepare":
        OPERATIONS[name].prepare(folder)
        return 0
    if name == "decision":
        import lamdatui.engine.approval  # noqa: F401 (what is imported is no part of the operation)
    say(READY)
    try:
        OPERATIONS[name].do(folder)
    except LamdatuiError as error:
        say(REFUSED + json.dumps({"what": error.what, "where": error.where, "fix": error.fix}))
        return 1
    except OSError as error:
        say(REFUSED + json.dumps({"what": error.strerror, "where": error.filename, "fix": ""}))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2], Path(sys.argv[3])))
