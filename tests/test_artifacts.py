"""The store: whole or absent, the first one wins, bytes are checked."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import signal
import subprocess
import sys
from hashlib import blake2b
from pathlib import Path
from typing import Any

import pytest

from lamdatui.base import fingerprint
from lamdatui.base.fingerprint import DamagedObject
from lamdatui.base.jsonio import Damaged, read_json, write_json, write_record
from lamdatui.store.artifacts import MANIFEST, Store, file_hash

ROW = {"id": "a", "score": 1.0}
PUBLISH = (
    "import sys; from pathlib import Path; from lamdatui.store.artifacts import Store\n"
    "store = Store(Path(sys.argv[1]))\n"
    "with store.staging() as staged:\n"
    "    (staged / 'sub').mkdir(); (staged / 'sub' / 'w').write_bytes(b'x' * 1000); (staged / 'c').write_text('{}')\n"
    "    store.publish(staged, 'd1', {'kind': 'full'})\n"
)


def publish(root: Path, faults: str = "") -> int:
    return subprocess.run([sys.executable, "-c", PUBLISH, str(root)], env={**os.environ, "LAMDATUI_FAULTS": faults}).returncode


def test_a_published_directory_is_found_and_verifies(tmp_path: Path) -> None:
    assert publish(tmp_path) == 0
    store = Store(tmp_path)
    path = store.find("d1")
    assert path is not None and (path / "sub" / "w").read_bytes() == b"x" * 1000
    assert store.verify("d1") == []
    assert list((tmp_path / "staging").iterdir()) == []


@pytest.mark.parametrize(
    ("point", "there"), [("store.before-manifest", False), ("store.before-rename", False), ("store.after-rename", True)]
)
def test_a_kill_while_publishing_leaves_whole_or_nothing(tmp_path: Path, point: str, there: bool) -> None:
    assert publish(tmp_path, f"{point}=kill") == -signal.SIGKILL
    assert (Store(tmp_path).find("d1") is not None) is there
    assert publish(tmp_path) == 0
    assert Store(tmp_path).verify("d1") == []


def test_what_a_killed_process_left_is_swept_and_what_lives_is_not(tmp_path: Path) -> None:
    assert publish(tmp_path, "store.before-manifest=kill") == -signal.SIGKILL
    store = Store(tmp_path)
    with store.staging() as alive:
        (alive.parent / f"{alive.name}-parent").mkdir()
        assert store.sweep() == 1
        assert alive.is_dir()
        assert sorted(path.name for path in alive.parent.iterdir()) == sorted(
            [alive.name, f"{alive.name}-parent", f"{alive.name}.lock"]
        )
    assert list((tmp_path / "staging").iterdir()) == []


def test_what_a_power_cut_left_without_its_lock_is_swept(tmp_path: Path) -> None:
    store = Store(tmp_path)
    (tmp_path / "staging" / "left").mkdir()
    (tmp_path / "staging" / "left-parent").mkdir()
    with store.staging() as alive:
        (alive.parent / f"{alive.name}-parent").mkdir()
        assert store.sweep() == 2
        assert len(list(alive.parent.iterdir())) == 3


@pytest.mark.parametrize(("point", "there"), [("store.before-drop", True), ("store.after-drop", False)])
def test_a_kill_while_dropping_leaves_a_whole_object_or_its_record(tmp_path: Path, point: str, there: bool) -> None:
    drop = (
        "import sys; from pathlib import Path; from lamdatui.store.artifacts import Store; Store(Path(sys.argv[1])).drop('d1')"
    )
    assert publish(tmp_path) == 0
    words = [sys.executable, "-c", drop, str(tmp_path)]
    done = subprocess.run(words, env={**os.environ, "LAMDATUI_FAULTS": f"{point}=kill"})
    store = Store(tmp_path)
    assert done.returncode == -signal.SIGKILL and (store.find("d1") is not None) is there
    assert set(store.dropped("d1")["files"]) == {"sub/w", "c"}
    assert not there or (store.verify("d1") == [] and store.drop("d1"))
    assert store.sweep() == 1 and list((tmp_path / "staging").iterdir()) == []
    # It can be made again.
    assert publish(tmp_path) == 0 and store.verify("d1") == []


def test_work_that_is_done_does_not_fail_for_what_it_leaves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """rmtree raises what it meets while it looks at a folder, also when it is told to ignore errors."""
    store = Store(tmp_path)
    with store.staging() as staged:
        (staged / "weights").write_bytes(b"x")
        (staged.parent / f"{staged.name}-parent").mkdir()
        store.publish(staged, "d1", {"kind": "full"})

        def fail(*_: object, **__: object) -> None:
            raise OSError(errno.EIO, "Input/output error")

        monkeypatch.setattr("shutil.rmtree", fail)
    monkeypatch.undo()
    assert store.verify("d1") == [] and store.sweep() == 1


def test_a_lock_that_the_system_refuses_is_told_by_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path)

    def fail(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(fcntl, "flock", fail)
    for held in (store.lock("d1"), store.using(["d1"]), store.staging()):
        with pytest.raises(OSError, match=str(tmp_path)), held:
            pass


def test_a_sweep_takes_all_that_is_dead_and_nothing_that_lives(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with contextlib.ExitStack() as stack:
        living = {stack.enter_context(store.staging()).name for _ in range(12)}
        for number in range(12):
            (tmp_path / "staging" / f"dead{number}").mkdir()
            (tmp_path / "staging" / f"dead{number}.lock").touch()
        assert store.sweep() == 12
        assert {path.name for path in (tmp_path / "staging").iterdir() if path.is_dir()} == living


def test_only_what_is_small_is_hashed_at_each_look_unless_always(
    store: Store, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fingerprint, "WHOLE_BYTES", 10)
    assert Store(store.root, always=True).verify("d1") == []
    assert not (home / "state" / "fingerprints").exists()
    assert Store(store.root).verify("d1") == []
    assert len(list((home / "state" / "fingerprints").iterdir())) == 1


def test_publishing_the_same_digest_again_keeps_the_first(tmp_path: Path) -> None:
    assert publish(tmp_path) == 0
    before = (tmp_path / "objects" / "d1").stat().st_ino
    assert publish(tmp_path) == 0
    assert (tmp_path / "objects" / "d1").stat().st_ino == before


def test_a_directory_without_a_whole_manifest_does_not_exist(tmp_path: Path) -> None:
    publish(tmp_path)
    store = Store(tmp_path)
    (tmp_path / "objects" / "d1" / "sub" / "w").write_bytes(b"short")
    assert store.find("d1") is None


def test_a_flipped_bit_is_found(tmp_path: Path) -> None:
    publish(tmp_path)
    (tmp_path / "objects" / "d1" / "sub" / "w").write_bytes(b"x" * 999 + b"y")
    assert Store(tmp_path).verify("d1") == ["sub/w"]
    (tmp_path / "objects" / "d1" / "sub" / "w").unlink()
    assert Store(tmp_path).verify("d1") == ["sub/w"]


# --- guards ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A store with the object `d1`."""
    found = Store(tmp_path / "store")
    with found.staging() as staged:
        (staged / "weights").write_bytes(b"x" * 100)
        found.publish(staged, "d1", {"kind": "full"})
    return found


@pytest.mark.parametrize(
    "change",
    [
        {"digest": "d2"},
        {"digest": "d0"},
        {"kind": "folder"},
        {"files": []},
        {"files": {}},
        {"files": {"weights": {"size": 100}}},
        {"files": {"weights": "100"}},
    ],
)
def test_a_manifest_that_says_something_else_is_none(store: Store, change: dict[str, Any]) -> None:
    write_record(store.root / "objects" / "d1" / MANIFEST, {**store.manifest("d1"), **change})
    with pytest.raises(Damaged, match="the manifest of d1"):
        store.manifest("d1")
    assert store.find("d1") is None and store.problem("d1") == [MANIFEST]
    with pytest.raises(DamagedObject, match=r"is damaged: manifest\.json"):
        store.resolve("store:d1")


def test_a_manifest_has_the_size_and_the_hash_of_every_file(store: Store) -> None:
    entry = {"size": 100, "blake2b": blake2b(b"x" * 100, digest_size=32).hexdigest()}
    assert store.manifest("d1") == {"digest": "d1", "files": {"weights": entry}, "kind": "full"}
    large = store.root / "large"
    large.write_bytes(b"y" * (2**20 + 5))
    assert file_hash(large) == blake2b(b"y" * (2**20 + 5), digest_size=32).hexdigest()
    # A later version may say more of a file.
    place = store.root / "objects" / "d1" / MANIFEST
    write_record(place, {**store.manifest("d1"), "files": {"weights": {**entry, "mode": 1}}})
    assert store.verify("d1") == []


def test_the_work_of_a_digest_is_done_by_one_at_a_time(store: Store) -> None:
    def is_held() -> bool:
        with (store.root / "locks" / "d1").open("w") as other:
            try:
                fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
            return False

    with store.lock("d1"), store.lock("d2"):
        assert is_held()
    assert not is_held()


def test_an_object_that_is_not_there_can_not_be_used(store: Store) -> None:
    assert store.problem("d2") == [] and store.find("d2") is None and store.put_aside("d2") is None
    with pytest.raises(DamagedObject, match="is not there"):
        store.resolve("store:d2")
    assert store.resolve("store:d1") == store.root / "objects" / "d1"
    assert store.resolve("/somewhere") == Path("/somewhere")


def test_an_evaluation_of_another_key_or_without_rows_is_put_aside(store: Store) -> None:
    for value in (
        {"key": "other", "rows": [ROW]},
        {"key": "a", "rows": [ROW]},
        {"key": "k", "rows": []},
        {"key": "k", "rows": "1"},
        {"key": "k"},
    ):
        store.record_evaluation("k", value)
        assert store.evaluation("k") is None
        assert not (store.root / "evaluations" / "k.json").exists()
    store.record_evaluation("k", {"key": "k", "rows": [ROW]})
    assert store.evaluation("k", lambda _: False) == {"key": "k", "rows": [ROW]}
    assert len(list((store.root / "damaged").iterdir())) == 5


def test_an_evaluation_of_the_first_version_is_taken_when_it_is_sound_and_gets_its_seal(store: Store) -> None:
    place, value = store.root / "evaluations" / "k.json", {"key": "k", "rows": [ROW]}
    write_json(place, value)
    assert store.evaluation("k", lambda found: found["rows"] == [ROW]) == value
    assert set(read_json(place)) == {"key", "rows", "seal"}
    write_json(place, value)
    assert store.evaluation("k") == value
    write_json(place, value)
    assert store.evaluation("k", lambda _: False) is None and not place.exists()


def test_an_object_that_is_damaged_is_published_again_and_kept_aside(store: Store) -> None:
    (store.root / "objects" / "d1" / "weights").write_bytes(b"short")
    with store.staging() as staged:
        (staged / "weights").write_bytes(b"x" * 100)
        store.publish(staged, "d1", {"kind": "full"})
    assert store.verify("d1") == []
    (aside,) = (store.root / "damaged").iterdir()
    assert (aside / "weights").read_bytes() == b"short" and aside.name.startswith("d1-")
