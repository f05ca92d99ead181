"""What counts as written survives a power cut: data is synced before its name appears, and the name after that."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path

import apsw
import pytest

from lamdatui.base.jsonio import (
    file_digest,
    fsync_dir,
    fsync_tree,
    make_folder,
    read_json,
    write_atomic,
    write_json,
    write_record,
)
from lamdatui.export import bundle
from lamdatui.inputs import trust
from lamdatui.inputs.profile import load_profile
from lamdatui.step.files import claim, write_outcome, write_request
from lamdatui.store.artifacts import Store, file_hash
from lamdatui.store.journal import SCHEMA_VERSION, Journal
from lamdatui.wire.rundir import prepare_run
from tests.landed import Landed


def state_of(path: Path | int) -> tuple[int, int]:
    """What changes when a file or a directory is written to: its size and its modification time."""
    now = os.stat(path)
    return now.st_size, now.st_mtime_ns


class Disk:
    """Watches the calls that make things durable, in order; they are made all the same.

    When a name appears (rename, replace, link), everything below it has to be synced as it is at that moment.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, looks_at_data: bool = True) -> None:
        self.looks_at_data = looks_at_data
        self.calls: list[tuple[str, Path]] = []
        self._synced: dict[int, tuple[int, int]] = {}
        self._sync = os.fsync
        monkeypatch.setattr(os, "fsync", self._fsync)
        for name in ("rename", "replace", "link"):
            monkeypatch.setattr(os, name, self._naming(name, getattr(os, name)))

    def _fsync(self, fd: int) -> None:
        self._sync(fd)
        self._synced[os.fstat(fd).st_ino] = state_of(fd)
        self.calls.append(("fsync", Path(os.readlink(f"/proc/self/fd/{fd}"))))

    def _naming(self, name: str, call: Callable[..., None]) -> Callable[..., None]:
        def called(source: str | Path, target: str | Path) -> None:
            unsynced = [path for path in [Path(source), *Path(source).rglob("*")] if not self.is_synced(path)]
            assert not (self.looks_at_data and unsynced), f"{name} to {target} before {unsynced} is on disk"
            call(source, target)
            self.calls.append((name, Path(target)))

        return called

    def is_synced(self, path: Path) -> bool:
        """Whether the file or directory was synced after its last change."""
        return self._synced.get(path.stat().st_ino) == state_of(path)

    def assert_named(self, path: Path) -> None:
        """The name appeared, and its directory was synced after that."""
        names = [index for index, (call, target) in enumerate(self.calls) if target == path and call != "fsync"]
        assert names, f"{path} did not get its name at once"
        assert ("fsync", path.parent) in self.calls[names[-1] :]


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    return Disk(monkeypatch)


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("text", lambda path: write_atomic(path, "x" * 9000)),
        ("json", lambda path: write_json(path, {"a": 1})),
        ("record", lambda path: write_record(path, {"a": 1})),
        ("claim.json", lambda path: claim(path.parent, "step")),
        ("action.json", lambda path: write_request(path.parent, {"step": "1/1"})),
        ("outcome.json", lambda path: write_outcome(path.parent, {"status": "ok"})),
    ],
)
def test_a_file_is_on_disk_before_its_name_is_and_the_name_after_that(
    tmp_path: Path, disk: Disk, name: str, write: Callable[[Path], object]
) -> None:
    write(tmp_path / name)
    disk.assert_named(tmp_path / name)
    assert disk.is_synced(tmp_path / name)


def test_a_file_that_is_written_again_is_replaced_by_a_whole_one(tmp_path: Path, disk: Disk) -> None:
    path = tmp_path / "record.json"
    for value in (1, 2):
        write_record(path, {"a": value})
    disk.assert_named(path)
    assert [call for call, target in disk.calls if target == path] == ["replace", "replace"]


def test_a_write_that_fails_leaves_the_old_file_and_nothing_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "record.json"
    path.write_text("old")
    for broken in ("fsync", "replace"):
        with monkeypatch.context() as patched:

            def fail(*_: object) -> None:
                raise OSError(28, "No space left on device")

            patched.setattr(os, broken, fail)
            with pytest.raises(OSError, match="No space left"):
                write_atomic(path, "new")
        assert (path.read_text(), list(tmp_path.glob(".record*"))) == ("old", [])


def test_a_folder_and_those_above_it_are_on_disk_before_anything_inside_is(tmp_path: Path, disk: Disk) -> None:
    make_folder(tmp_path / "a" / "b" / "c")
    synced = [path for call, path in disk.calls]
    assert set(synced) == {tmp_path, tmp_path / "a", tmp_path / "a" / "b"}
    make_folder(tmp_path / "a" / "b" / "c")
    assert len(disk.calls) == 3
    Store(tmp_path / "store")
    assert ("fsync", tmp_path / "store") in disk.calls and disk.calls[-1][1] == tmp_path / "store"


def test_a_runs_folder_is_on_disk_before_its_profile_is(lab_profile, tmp_path: Path, disk: Disk) -> None:
    run_dir = prepare_run(load_profile(lab_profile()), "x", tmp_path / "runs")
    before = disk.calls[: disk.calls.index(("replace", run_dir / "profile.yaml"))]
    assert {("fsync", tmp_path), ("fsync", tmp_path / "runs"), ("fsync", run_dir)} <= set(before)


@pytest.mark.parametrize(
    "act",
    [
        lambda path: write_atomic(path, "x"),
        lambda path: fsync_tree(path.parent),
        lambda path: fsync_dir(path.parent),
        lambda path: claim(path.parent, "step"),
        lambda path: write_request(path.parent, {}),
        read_json,
        file_digest,
        file_hash,
    ],
    ids=["text", "tree", "folder", "claim", "request", "read", "digest", "hash"],
)
def test_an_error_of_the_disk_says_of_which_file_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, act: Callable[[Path], object]
) -> None:
    """A descriptor's error names none: "Input/output error" was all that was told."""
    (tmp_path / "file").write_text("{}")

    class Broken:
        def __enter__(self) -> Broken:
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def fail(self, *_: object, **__: object) -> None:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

        fileno = lambda self: -1  # noqa: E731
        read = readinto = fail

    monkeypatch.setattr(os, "fsync", Broken().fail)
    if act in (read_json, file_digest, file_hash):
        monkeypatch.setattr(Path, "open", lambda *_, **__: Broken())
        monkeypatch.setattr(Path, "read_text", Broken().fail)
        monkeypatch.setattr("hashlib.file_digest", Broken().fail)
    with pytest.raises(OSError) as refused:
        act(tmp_path / "file")
    assert str(refused.value.filename).startswith(str(tmp_path)) and refused.value.errno == errno.EIO
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith((".claim", ".file"))] == []


def test_an_object_is_on_disk_with_its_manifest_and_folders_before_it_is_published(tmp_path: Path, disk: Disk) -> None:
    store = Store(tmp_path / "store")
    with store.staging() as staged:
        (staged / "sub").mkdir()
        (staged / "sub" / "weights").write_bytes(b"x" * 9000)
        (staged / "config.json").write_text("{}")
        target = store.publish(staged, "d1", {"kind": "full"})
    disk.assert_named(target)
    assert disk.is_synced(target / "sub" / "weights") and disk.is_synced(target / "config.json")


def test_an_exported_model_is_on_disk_before_it_has_its_name(
    landed: Landed, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(run_dir: Path, state: object, model: object, store: Store, staged: Path, say: object, **_: object) -> None:
        (staged / "model.safetensors").write_bytes(b"x" * 9000)

    monkeypatch.setattr(bundle, "_write", write)
    target = landed.folder / "out" / "winner"
    bundle.export_model(landed.runs / "finished", target, None, print)
    disk.assert_named(target)
    assert disk.is_synced(target / "model.safetensors")


def test_an_evaluation_is_on_disk(tmp_path: Path, disk: Disk) -> None:
    store = Store(tmp_path / "store")
    store.record_evaluation("k", {"key": "k", "rows": [1]})
    disk.assert_named(store.root / "evaluations" / "k.json")


def test_the_space_of_an_outcome_is_taken_on_disk_and_is_there_when_it_is_written(tmp_path: Path, disk: Disk) -> None:
    write_request(tmp_path, {"step": "1/1"})
    (room,) = (path for path in tmp_path.iterdir() if path.name.startswith(".room"))
    assert disk.is_synced(room) and room.stat().st_blocks * 512 >= room.stat().st_size == 64 * 1024
    write_outcome(tmp_path, {"status": "ok"})
    assert not room.exists()


def test_a_confirmation_is_on_disk_and_private(home: Path, disk: Disk) -> None:
    trust.confirm({"url": "https://example.org"})
    file = trust.confirmed_file()
    assert disk.is_synced(file) and disk.calls[-1] == ("fsync", file.parent)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_a_journal_gets_its_name_once_it_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    versions: list[int] = []
    rename = os.rename

    def watched(source: Path, target: Path) -> None:
        # SQLite syncs the file itself; closed and checkpointed, it has nothing beside it that the rename would leave behind.
        assert [path.name for path in Path(source).parent.iterdir()] == [target.name]
        db = apsw.Connection(str(source), flags=apsw.SQLITE_OPEN_READONLY)
        versions.append(next(iter(db.execute("PRAGMA user_version")))[0])
        db.close()
        rename(source, target)

    monkeypatch.setattr(os, "rename", watched)
    disk = Disk(monkeypatch, looks_at_data=False)
    Journal(tmp_path / "run.db").close()
    disk.assert_named(tmp_path / "run.db")
    assert versions == [SCHEMA_VERSION]
