"""The store: whole or absent, the first one wins, bytes are checked."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from lamdatui.store.artifacts import Store

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
