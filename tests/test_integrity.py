"""What is read is what was promised, or it is refused, put aside or made again: never used silently."""

from __future__ import annotations

import json
import os
import random
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from lamdatui.base import fingerprint
from lamdatui.base.fingerprint import Changed, DamagedObject, hashes
from lamdatui.base.jsonio import Damaged, file_digest, read_record, sealed, write_json, write_record
from lamdatui.inputs.modelfiles import inspect_model, model_digests
from lamdatui.step.files import OLDER_OUTCOME, claim, read_claim, read_outcome, write_outcome
from lamdatui.store.artifacts import MANIFEST, Store
from lamdatui.store.journal import read_state
from tests.landed import Landed


@contextmanager
def times_kept(path: Path) -> Iterator[None]:
    """A change that leaves the file's times as they were."""
    before = path.stat()
    yield
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def flip(path: Path, rng: random.Random) -> None:
    """Turn one bit of a file round, with its times put back."""
    with times_kept(path):
        content = bytearray(path.read_bytes())
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        path.write_bytes(content)


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


# --- inputs of the profile -----------------------------------------------------------------------------------------


@pytest.mark.slow  # `test_step_inputs` and `test_upkeep` show it without a run
def test_a_dataset_that_changed_is_refused_until_it_is_restored(landed: Landed) -> None:
    data = landed.project / "copy.jsonl"
    whole = data.read_bytes()
    data.write_bytes(b"".join(whole.splitlines(keepends=True)[:3]))
    done = landed.go_on("finished", 4)
    assert done.returncode == 2, done.stderr
    assert (
        "the dataset copy has changed since trial 3" in done.stderr and "restore it" in done.stderr and "--name" in done.stderr
    )
    assert len(landed.show("finished")["trials"]) == 3
    data.write_bytes(whole)
    done = landed.go_on("finished", 4)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("what", ["task", "weights", "tokenizer"])
def test_another_input_that_changed_is_refused(landed: Landed, what: str) -> None:
    """A corrected task file made the run die at every start; half of a base's weights set to zero were not noticed."""
    if what == "task":
        row = json.loads((landed.project / "call.jsonl").read_text().splitlines()[0])
        reference = row["reference"] if isinstance(row["reference"], str) else row["reference"][0]
        edit(landed.project / "call.jsonl", f'"{reference}"', f'"{reference}x"')
        told = "the task call has changed"
    elif what == "weights":
        file = landed.project / "base" / "model.safetensors"
        with times_kept(file):
            content = bytearray(file.read_bytes())
            content[-1000:] = bytes(1000)
            file.write_bytes(content)
        told = "the model base has changed"
    else:
        edit(landed.project / "base" / "chat_template.jinja", "{%", "{% if true %}{% endif %}{%")
        told = "the model base has changed"
    for _ in range(2):
        done = landed.go_on("finished", 4)
        assert done.returncode == 2, done.stderr
        assert told in done.stderr and "Traceback" not in done.stderr
    assert len(landed.show("finished")["trials"]) == 3


def test_an_input_that_was_moved_is_found_again(landed: Landed) -> None:
    (landed.project / "base").rename(landed.project / "moved")
    profile = landed.runs / "finished" / "profile.yaml"
    profile.write_text(profile.read_text().replace("project/base", "project/moved"))
    # The path belongs to what the run searches: the frozen profile is what says where things are.
    done = landed.go_on("finished", 4)
    assert done.returncode == 0, done.stderr
    assert landed.show("finished")["trials"][3]["status"] == "done"


def test_a_change_while_a_run_goes_ends_it_with_the_reason_and_costs_no_trial(landed: Landed) -> None:
    # Between the engine's look and the step's own: the step is held before it begins.
    data, whole = landed.project / "copy.jsonl", (landed.project / "copy.jsonl").read_bytes()

    def change() -> None:
        while not list((landed.runs / "finished" / "steps").glob("4/1/action.json")):
            threading.Event().wait(0.02)
        data.write_bytes(whole + whole)

    thread = threading.Thread(target=change, daemon=True)
    thread.start()
    done = landed.go_on("finished", 4, LAMDATUI_FAULTS="step.before-claim=sleep:3")
    thread.join(10)
    assert done.returncode == 1, done.stderr
    found = landed.show("finished")
    assert found["status"] == "failed" and "the dataset copy has changed since" in found["reason"]
    assert found["trials"][3]["status"] == "stopped" and found["trials"][3]["error"]["class"] == "changed"
    data.write_bytes(whole)
    done = landed.go_on("finished", 4)
    assert done.returncode == 0, done.stderr
    assert [trial["status"] for trial in landed.show("finished")["trials"]][3:] == ["stopped", "done"]


# --- the store -----------------------------------------------------------------------------------------------------


def damage(landed: Landed, digest: str) -> Path:
    """Flip a bit of an object's weights."""
    folder = landed.runs / "store" / "objects" / digest
    weights = next(folder.glob("*.safetensors"))
    with times_kept(weights):
        content = bytearray(weights.read_bytes())
        content[-5] ^= 0x40
        weights.write_bytes(content)
    return folder


def test_a_damaged_parent_is_put_aside_and_made_again(landed: Landed) -> None:
    """The merge's result is damaged, and the adapter below it too: both are made again before a step stands on them."""
    before = landed.show("finished")["trials"]
    digests = [trial["action"]["digest"] for trial in before]
    first, third = (landed.runs / "store" / "objects" / digests[index] for index in (0, 2))
    good = {folder: file_digest(next(folder.glob("*.safetensors"))) for folder in (first, third)}
    damage(landed, digests[0])
    damage(landed, digests[2])
    done = landed.go_on("finished", 4)
    assert done.returncode == 0, done.stderr
    # The fixture was made on another machine, whose processor may round otherwise: then the run says so.
    same = all(file_digest(next(folder.glob("*.safetensors"))) == digest for folder, digest in good.items())
    assert all(Store(landed.runs / "store").verify(folder.name) == [] for folder in good)
    assert len(list((landed.runs / "store" / "damaged").iterdir())) == 2
    found = landed.show("finished")
    told = " ".join(problem["message"] for problem in found["problems"])
    assert "m3 (trial 3) is damaged in the store: model.safetensors; it is made again" in told
    assert ("not the same to the bit" in told) is not same
    assert [trial["status"] for trial in found["trials"]] == ["done"] * 4, "what is made again opens no closed trial"
    # What trial 4 learned from is whole again: it has the digest and, from the same bits, the score that it has without damage.
    whole = json.loads((landed.folder / "expected" / "resumed" / "finished.json").read_text())["trials"][3]
    assert found["trials"][3]["action"]["digest"] == whole["action"]["digest"]
    assert not same or found["trials"][3]["objective"] == whole["objective"]


@pytest.mark.slow  # `test_step_inputs` and `test_upkeep` show it without a run
def test_a_damaged_result_is_not_served_from_the_store(landed: Landed) -> None:
    digest = landed.show("finished")["trials"][1]["action"]["digest"]
    damage(landed, digest)
    for file in (landed.runs / "store" / "evaluations").glob("*.json"):
        if json.loads(file.read_text())["model"] == digest:
            file.unlink()
    done = landed.go_on("reuse", 3)
    assert done.returncode == 0, done.stderr
    found = landed.show("reuse")
    assert [trial["cached"] for trial in found["trials"]] == [True, False, True]
    assert [trial["objective"] for trial in found["trials"]] == [
        trial["objective"] for trial in landed.show("finished")["trials"]
    ]


def test_what_can_not_be_made_again_is_told_as_lost(landed: Landed) -> None:
    digests = [trial["action"]["digest"] for trial in landed.show("finished")["trials"]]
    damage(landed, digests[2])
    done = landed.go_on("finished", 4, LAMDATUI_FAULTS="store.before-manifest=error@1")
    assert done.returncode == 0, done.stderr
    found = landed.show("finished")
    assert "m3" in found["lost"] and "could not make m3 again" in found["lost"]["m3"]
    assert (found["trials"][3]["status"], found["trials"][3]["error"]["class"]) == ("failed", "lost")
    assert found["winner"]["model"] != "m3"


def test_a_result_that_is_damaged_before_it_is_scored_is_lost_and_the_run_goes_on(landed: Landed) -> None:
    """Its evaluation and itself, between the end of its step and the score: no trial of the run has made it yet."""
    run_dir, store = landed.runs / "finished", landed.runs / "store"
    damaged: list[str] = []

    def harm() -> None:
        engine = psutil.Process(wait_for_stopped(run_dir))
        state = read_state(run_dir / "run.db")
        damaged.append(state.trials[4].action["digest"])  # type: ignore[index]
        damage(landed, damaged[0])
        for file in (store / "evaluations").glob("*.json"):
            if json.loads(file.read_text())["model"] == damaged[0]:
                file.unlink()
        engine.resume()

    thread = threading.Thread(target=harm, daemon=True)
    thread.start()
    done = landed.go_on("finished", 5, LAMDATUI_FAULTS="loop.before-score=stop@1")
    thread.join(60)
    assert damaged and done.returncode == 0, done.stderr
    found = landed.show("finished")
    assert (found["trials"][3]["status"], found["trials"][3]["error"]["class"]) == ("failed", "lost")
    assert f"the store has lost {damaged[0][:12]}" in found["trials"][3]["error"]["message"]
    assert "m4" in found["lost"] and found["winner"]["model"] != "m4"
    assert found["status"] == "done"


def wait_for_stopped(run_dir: Path) -> int:
    """The process of the run's engine, once it is stopped at a fault point."""
    while True:
        pid = read_state(run_dir / "run.db").engine_pid
        if pid and psutil.pid_exists(pid) and psutil.Process(pid).status() == psutil.STATUS_STOPPED:
            return pid
        threading.Event().wait(0.1)


def test_a_full_disk_makes_nothing_lost(landed: Landed) -> None:
    """ENOSPC while a damaged object is made again: the run waits for room, and a stop leaves the object to the next start."""
    digests = [trial["action"]["digest"] for trial in landed.show("finished")["trials"]]
    damage(landed, digests[2])
    stopped: list[Any] = []

    def stop() -> None:
        while not landed.show("finished")["paused"]:
            threading.Event().wait(0.2)
        stopped.append(landed.cli("stop", "finished", "--now").returncode)

    thread = threading.Thread(target=stop, daemon=True)
    thread.start()
    landed.go_on("finished", 4, LAMDATUI_FAULTS="store.before-manifest=enospc")
    thread.join(60)
    assert stopped == [0]
    found = landed.show("finished")
    assert (found["lost"], found["status"]) == ({}, "stopped")
    done = landed.go_on("finished", 4)
    assert done.returncode == 0, done.stderr
    found = landed.show("finished")
    assert found["lost"] == {} and found["trials"][-1]["status"] == "done"


@pytest.mark.slow  # `test_upkeep` shows it without a run
@pytest.mark.parametrize("how", ["flipped", "truncated", "deleted", "another score"])
def test_a_damaged_evaluation_is_made_again(landed: Landed, how: str) -> None:
    """A run whose evaluation was damaged died at every start."""
    before = landed.show("finished")
    for file in sorted((landed.runs / "store" / "evaluations").glob("*.json")):
        value = json.loads(file.read_text())
        if value["split"] != "search":
            continue
        if how == "truncated":
            file.write_bytes(file.read_bytes()[:100])
        elif how == "deleted":
            file.unlink()
        elif how == "another score":
            value["rows"][0]["score"] = 1.0 - value["rows"][0]["score"]
            file.write_text(json.dumps(value))
        else:
            flip(file, random.Random(file.name))
    done = landed.go_on("finished", 4)
    assert done.returncode == 0, done.stderr
    found = landed.show("finished")
    assert found["status"] == "done"

    def means(scores: dict[str, Any]) -> list[tuple[str, str, float]]:
        # Intervals of what is made again are those of today.
        return [(task, split, value["mean"]) for task, splits in scores.items() for split, value in splits.items()]

    assert sorted(means(found["base"]["scores"])) == sorted(means(before["base"]["scores"]))
    whole = json.loads((landed.folder / "expected" / "resumed" / "finished.json").read_text())["trials"][3]
    assert found["trials"][3]["objective"] == whole["objective"]


def test_export_refuses_what_is_damaged(landed: Landed) -> None:
    digests = [trial["action"]["digest"] for trial in landed.show("finished")["trials"]]
    damage(landed, digests[0])
    done = landed.cli("export", "finished", "--to", str(landed.folder / "out"))
    assert done.returncode == 1 and "is damaged: adapter_model.safetensors" in done.stderr
    assert not (landed.folder / "out").exists()


# --- every reader, many bits ---------------------------------------------------------------------------------------


@pytest.fixture
def store(tmp_path: Path) -> Store:
    found = Store(tmp_path / "store")
    with found.staging() as staged:
        (staged / "model.safetensors").write_bytes(random.Random(1).randbytes(3000))
        write_json(staged / "config.json", {"a": 1.5, "b": ["x", "y"]})
        found.publish(staged, "d" * 64, {"kind": "full", "action": {"type": "sft", "params": {"learning_rate": 0.001}}})
    found.record_evaluation("k", {"model": "m", "key": "k", "task": "t", "split": "search", "rows": ROWS, "seconds": 1.25})
    return found


ROWS = [{"id": str(i), "score": float(i % 2), "completion": f"answer {i}"} for i in range(12)]
OUTCOME = {"status": "ok", "cached": False, "seconds": {"execute": 1.5, "evaluate": 0.25}, "error": None, "peak_rss": 1234567}


def test_no_flipped_bit_of_a_store_object_is_used(store: Store) -> None:
    folder, rng = store.root / "objects" / ("d" * 64), random.Random(7)
    for number in range(200):
        file = folder / rng.choice(["model.safetensors", "config.json", MANIFEST])
        whole = file.read_bytes()
        flip(file, rng)
        if file.name == MANIFEST and json_equal(whole, file.read_bytes()):
            continue
        with pytest.raises(DamagedObject):
            store.resolve(f"store:{'d' * 64}")
        file.write_bytes(whole)
        assert store.resolve(f"store:{'d' * 64}") == folder, number


def json_equal(before: bytes, after: bytes) -> bool:
    try:
        return json.loads(before) == json.loads(after)
    except ValueError:
        return False


def test_a_file_that_nobody_published_is_damage_too(store: Store) -> None:
    (store.root / "objects" / ("d" * 64) / "adapter_config.json").write_text("{}")
    with pytest.raises(DamagedObject, match="adapter_config"):
        store.resolve(f"store:{'d' * 64}")


def test_no_flipped_bit_of_a_record_is_used(store: Store, tmp_path: Path) -> None:
    """Evaluations, claims and outcomes: what can still be read is what was written."""
    write_outcome(tmp_path, OUTCOME)
    assert claim(tmp_path, "step")
    evaluation = store.root / "evaluations" / "k.json"
    readers: dict[Path, Any] = {
        evaluation: lambda: store.evaluation("k"),
        tmp_path / "outcome.json": lambda: read_outcome(tmp_path),
        tmp_path / "claim.json": lambda: read_claim(tmp_path),
    }
    rng, refused = random.Random(8), 0
    for file, read in readers.items():
        whole, value = file.read_bytes(), read()
        assert value is not None
        for _ in range(100):
            flip(file, rng)
            try:
                found = read()
            except Damaged:
                found = None
            assert found in (None, value)
            refused += found is None
            file.write_bytes(whole)
    assert refused > 250


def test_a_record_without_a_seal_is_one_of_the_first_version_or_none(tmp_path: Path) -> None:
    path = tmp_path / "outcome.json"
    write_json(path, OUTCOME)
    assert read_record(path, OLDER_OUTCOME) == OUTCOME
    with pytest.raises(Damaged, match="without its seal"):
        read_record(path)
    path.write_text(json.dumps({**OUTCOME, "seconds": {"execute": float("nan")}}))
    with pytest.raises(Damaged, match="holds what none can"):
        read_record(path, OLDER_OUTCOME)
    renamed = {("sfal" if name == "seal" else name): value for name, value in sealed(OUTCOME).items()}
    write_json(path, renamed)
    with pytest.raises(Damaged, match="without its seal"):
        read_record(path, OLDER_OUTCOME)


@pytest.mark.slow
def test_whole_runs_over_flipped_bits(landed: Landed, tmp_path: Path) -> None:
    """Twenty times a bit of anything that the run reads is turned round; the run goes on as if it had not been, or says what is wrong."""
    whole = json.loads((landed.folder / "expected" / "resumed" / "finished.json").read_text())
    rng, outcomes = random.Random(2), {"same": 0, "refused": 0}
    good = tmp_path / "good"
    shutil.copytree(landed.folder, good)
    for number in range(20):
        shutil.rmtree(landed.folder)
        shutil.copytree(good, landed.folder)
        if number % 2:
            # Half of them on what this version has written: everything sealed and chained.
            assert landed.go_on("finished", 4).returncode == 0
        trials = 4 + number % 2
        kinds = ["runs/store/objects/*/*", "runs/store/evaluations/*", "runs/finished/run.db", "runs/finished/steps/*/*/*.json"]
        kind = [*kinds, "project/*.jsonl", "project/base/*"][number % 6]
        file = rng.choice(sorted(path for path in landed.folder.glob(kind) if path.stat().st_size))
        flip(file, rng)
        done = landed.go_on("finished", trials)
        assert "Traceback" not in done.stderr, (file, done.stderr)
        shown = landed.cli("show", "finished", "--json")
        if done.returncode:
            assert done.stderr.startswith("error: ") or "error: " in done.stderr, (file, done.stderr)
            outcomes["refused"] += 1
            continue
        found = json.loads(shown.stdout)
        for old, new in zip(whole["trials"], found["trials"], strict=False):
            assert (old["objective"], old["status"]) == (new["objective"], new["status"]), (file, new)
        outcomes["same"] += 1
    assert outcomes["same"] and outcomes["refused"], outcomes
    print(outcomes)


# --- large files ---------------------------------------------------------------------------------------------------


def test_large_files_are_hashed_once_and_again_when_they_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fingerprint, "WHOLE_BYTES", 1000)
    file, said, count = tmp_path / "large", [], []

    def counting(path: Path) -> str:
        count.append(path)
        return file_digest(path)

    file.write_bytes(b"x" * 2000)
    first = hashes([file], counting, say=said.append)
    assert hashes([file], counting) == first and len(count) == 1 and "once" in said[0]
    assert hashes([file], counting, always=True) == first and len(count) == 2
    with times_kept(file):
        file.write_bytes(b"x" * 1999 + b"y")
    assert hashes([file], counting) != first and len(count) == 3
    # A remembered hash that was damaged is not believed.
    [memory] = (Path(os.environ["LAMDATUI_HOME"]) / "state" / "fingerprints").iterdir()
    write_json(memory, {**json.loads(memory.read_text()), "hash": "0" * 64})
    assert hashes([file], counting) == {file: file_digest(file)} and len(count) == 4


def test_the_files_of_a_model_are_one_object(tmp_path: Path, lab: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert model_digests(lab / "llama")[0] == inspect_model(lab / "llama").digest
    monkeypatch.setattr(fingerprint, "WHOLE_BYTES", 1000)
    assert model_digests(lab / "llama")[0] == inspect_model(lab / "llama", always=True).digest


def test_a_step_names_the_input_that_changed(tmp_path: Path, lab: Path) -> None:
    from lamdatui.inputs.datafiles import read_dataset, read_task_rows

    data = tmp_path / "d.jsonl"
    data.write_text('{"prompt": "a", "completion": "b"}\n')
    promised = file_digest(data)
    assert len(read_dataset(data, promised)) == 1
    rng, whole = random.Random(9), data.read_bytes()
    for _ in range(60):
        flip(data, rng)
        with pytest.raises(Exception) as caught:
            read_dataset(data, promised)
        assert isinstance(caught.value, fingerprint.LamdatuiError)
        data.write_bytes(whole)
    task = lab / "tasks" / "copy.jsonl"
    with pytest.raises(Changed):
        read_task_rows(task, "0" * 64)


def test_records_are_whole_or_absent(tmp_path: Path) -> None:
    write_record(tmp_path / "r.json", {"a": "é\ud800", "b": [1, 2.5, None]})
    assert read_record(tmp_path / "r.json") == {"a": "é\ud800", "b": [1, 2.5, None]}
