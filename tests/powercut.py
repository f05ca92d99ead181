"""What may be on a disk after a power cut, at any moment of a recorded operation.

strace records every call that changes a file or a name. What was synced is on the disk. Of the rest, each 512-byte sector of a write may
be there or not, a size may have changed before its data came, and names may be there or not: as a prefix of what was done, where names go
through one journal which the sync of a file commits (`ext4`), or any of them (`strict`: only the sync of a folder makes its names durable,
and a rename happens whole or not at all).
"""

from __future__ import annotations

import random
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.operations import ACKNOWLEDGED, OPERATIONS
from tests.syscalls import Lab, after

SECTOR = 512
MODELS = ("ext4", "strict")
MODES = ("none", "all", "prefix", "writes", "sectors")
"""Which unsynced data is there: none, all, the first so many writes, any writes, any sectors."""
NAMES = "openat,open,creat,write,pwrite64,writev,pwritev,ftruncate,truncate,fallocate,copy_file_range,sendfile,lseek"
NAMES += ",rename,renameat,renameat2,link,linkat,symlink,symlinkat,unlink,unlinkat,mkdir,mkdirat,rmdir,fsync,fdatasync"
_CALL = re.compile(r"^(?:\d+ +)?(\w+)\((.*)\) += (-?\d+)(?:<([^>]*)>)?")
_ARGUMENT = re.compile(r'"((?:\\x[0-9a-f]{2})*)"|([^,<"]+)(?:<([^>]*)>)?')


@dataclass(frozen=True)
class Call:
    """A call that succeeded. `arguments` are bytes for strings, text for the rest; `fds` the paths of descriptors among them."""

    name: str
    arguments: tuple[bytes | str, ...]
    fds: tuple[str, ...]
    result: int


def _bytes(text: str) -> bytes:
    return bytes.fromhex(text.replace("\\x", ""))


def _text(text: str) -> str:
    return _bytes(text).decode() if text.startswith("\\x") else text


def calls_of(trace: str) -> Iterator[Call]:
    """The calls of a trace made with -xx -y that succeeded."""
    for line in trace.splitlines():
        if not (found := _CALL.match(line)) or int(found[3]) < 0:
            continue
        arguments: list[bytes | str] = []
        paths: list[str] = []
        for one in _ARGUMENT.finditer(found[2]):
            quoted, plain, path = one.groups(default="")
            if one[0].strip():
                arguments.append(_bytes(quoted) if one[0].startswith('"') else plain.strip())
                paths.append(_text(path))
        yield Call(found[1], tuple(arguments), tuple(paths), int(found[3]))


@dataclass
class Inode:
    """A file or a folder (`names` is not None): what is on the disk, and what was done since."""

    content: bytes = b""
    pending: list[tuple[int, bytes] | int] = field(default_factory=list)
    """Writes (offset, data), and sizes that were set."""
    names: dict[str, int] | None = None
    live: dict[str, int] = field(default_factory=dict)

    def size(self) -> int:
        size = len(self.content)
        for one in self.pending:
            size = one if isinstance(one, int) else max(size, one[0] + len(one[1]))
        return size

    def sync(self) -> None:
        self.content, self.pending = _applied(self.content, self.pending), []


def _applied(content: bytes, done: list[tuple[int, bytes] | int]) -> bytes:
    made = bytearray(content)
    for one in done:
        if isinstance(one, int):
            made = made[:one] + bytes(max(0, one - len(made)))
        else:
            offset, data = one
            made += bytes(max(0, offset + len(data) - len(made)))
            made[offset : offset + len(data)] = data
    return bytes(made)


Change = list[tuple[int, str, int | None]]
"""(folder, name, what it names from then on), all of it or nothing."""


class Disk:
    """A folder as the calls of a process change it."""

    def __init__(self, folder: Path, source: Path, model: str) -> None:
        self.folder, self.model = str(folder), model
        self.inodes: list[Inode] = []
        self.open: dict[int, tuple[int, int]] = {}
        """Descriptor → (inode, offset)."""
        self.changes: list[Change] = []
        self.acknowledged = 0
        self._load(source)

    def _load(self, path: Path) -> int:
        number = len(self.inodes)
        if path.is_dir():
            self.inodes.append(Inode(names={}))
            found = {each.name: self._load(each) for each in path.iterdir()}
            self.inodes[number].names, self.inodes[number].live = dict(found), dict(found)
        else:
            self.inodes.append(Inode(path.read_bytes()))
        return number

    def _find(self, path: str) -> tuple[int, str, int | None] | None:
        """(folder, name, inode or None) of a path; None outside of our folder."""
        if not path.startswith(f"{self.folder}/"):
            return None
        number = 0
        *folders, name = Path(path).relative_to(self.folder).parts
        for part in folders:
            number = self.inodes[number].live[part]
        return number, name, self.inodes[number].live.get(name)

    def _change(self, *change: tuple[int, str, int | None]) -> None:
        for folder, name, inode in change:
            if inode is None:
                self.inodes[folder].live.pop(name)
            else:
                self.inodes[folder].live[name] = inode
        self.changes.append(list(change))

    def _commit(self, folder: int | None) -> None:
        """Make changes of names durable: all, or those of a folder."""
        left: list[Change] = []
        for change in self.changes:
            if folder is None or any(place == folder for place, _, _ in change):
                _name(self.inodes, change)
                # What was done to the same names before, in other folders, is over.
                durable = {(place, name) for place, name, _ in change}
                left = [[one for one in older if one[:2] not in durable] for older in left]
            else:
                left.append(change)
        self.changes = left

    def apply(self, call: Call) -> None:
        """What a call does. Raises AssertionError for one that is not known."""
        paths = [str(Path(base or "/") / one.decode()) for one, base in _named(call)]
        match call.name:
            case "openat" | "open":
                self._opened(paths[0], str(call.arguments[2 if call.name == "openat" else 1]), call.result)
            case "write" if call.arguments[0] == "1":
                self.acknowledged += _acknowledges(call)
            case "mkdir" | "mkdirat" if found := self._find(paths[-1]):
                self.inodes.append(Inode(names={}))
                self._change((found[0], found[1], len(self.inodes) - 1))
            case "unlink" | "unlinkat" | "rmdir" if found := self._find(paths[-1]):
                self._change((found[0], found[1], None))
            case "link" if found := self._find(paths[1]):
                source = self._find(paths[0])
                assert source is not None
                self._change((found[0], found[1], source[2]))
            case "rename" if found := self._find(paths[1]):
                source = self._find(paths[0])
                assert source is not None
                self._change((found[0], found[1], source[2]), (source[0], source[1], None))
            case "lseek" | "write" | "pwrite64" | "ftruncate" | "fsync" | "fdatasync":
                fd = int(str(call.arguments[0]))
                if fd in self.open and call.fds[0].startswith(self.folder):
                    self._on_file(call, fd, *self.open[fd])
            case _:
                assert self.folder not in " ".join((*paths, *call.fds)), f"{call.name} is not known here"

    def _opened(self, path: str, flags: str, fd: int) -> None:
        self.open.pop(fd, None)
        if path == self.folder:
            self.open[fd] = (0, 0)
        if (found := self._find(path)) is None:
            return
        folder, name, inode = found
        if inode is None:
            self.inodes.append(Inode())
            inode = len(self.inodes) - 1
            self._change((folder, name, inode))
        elif "O_TRUNC" in flags:
            self.inodes[inode].pending.append(0)
        assert "O_APPEND" not in flags, "appending is not known here"
        self.open[fd] = (inode, 0)

    def _on_file(self, call: Call, fd: int, number: int, offset: int) -> None:
        inode = self.inodes[number]
        match call.name:
            case "lseek":
                self.open[fd] = (number, call.result)
            case "write":
                inode.pending.append((offset, _data(call)))
                self.open[fd] = (number, offset + call.result)
            case "pwrite64":
                inode.pending.append((int(str(call.arguments[3])), _data(call)))
            case "ftruncate":
                inode.pending.append(int(str(call.arguments[1])))
            case _ if inode.names is not None:
                self._commit(None if self.model == "ext4" else number)
            case _:
                inode.sync()
                # What fdatasync leaves to the file system is taken to be lost.
                if self.model == "ext4" and call.name == "fsync":
                    self._commit(None)

    def cut(self, target: Path, draw: random.Random) -> None:
        """The power goes: write what may be on the disk to `target`."""
        mode = draw.choice(MODES)
        share = draw.random()
        if self.model == "ext4":
            kept = self.changes[: draw.randint(0, len(self.changes))]
        else:
            kept = [change for change in self.changes if draw.random() < share]
        names = [Inode(names=None if one.names is None else dict(one.names)) for one in self.inodes]
        for change in kept:
            _name(names, change)
        self._write(0, names, target, mode, draw)

    def _write(self, number: int, names: list[Inode], target: Path, mode: str, draw: random.Random) -> None:
        entries = names[number].names
        if entries is None:
            target.write_bytes(_survived(self.inodes[number], mode, draw))
            return
        target.mkdir()
        for name, inode in entries.items():
            # SQLite makes its index of the log anew.
            if not name.endswith("-shm"):
                self._write(inode, names, target / name, mode, draw)


def _name(inodes: list[Inode], change: Change) -> None:
    for folder, name, inode in change:
        names = inodes[folder].names
        assert names is not None
        if inode is None:
            names.pop(name, None)
        else:
            names[name] = inode


def _named(call: Call) -> Iterator[tuple[bytes, str]]:
    """(path, the folder it is relative to) of the paths among a call's arguments."""
    if call.name in ("write", "pwrite64", "writev"):
        return
    base = ""
    for one, path in zip(call.arguments, call.fds, strict=True):
        if isinstance(one, bytes):
            yield one, base
        elif path:
            base = path


def _acknowledges(call: Call) -> bool:
    return call.name == "write" and call.arguments[:2] == ("1", f"{ACKNOWLEDGED}\n".encode())


def _data(call: Call) -> bytes:
    data = call.arguments[1]
    assert isinstance(data, bytes) and len(data) == call.result, "a write was recorded by half"
    return data


def _survived(inode: Inode, mode: str, draw: random.Random) -> bytes:
    """What is there of a file."""
    pending = inode.pending
    if mode == "none" or not pending:
        return inode.content
    if mode == "all":
        return _applied(inode.content, pending)
    if mode == "prefix":
        return _applied(inode.content, pending[: draw.randint(0, len(pending))])
    share = draw.random()
    kept: list[tuple[int, bytes] | int] = []
    for one in pending:
        if isinstance(one, int) or mode == "writes":
            kept += [one] if draw.random() < share else []
        else:
            kept += [piece for piece in _sectors(*one) if draw.random() < share]
    content = _applied(inode.content, kept)
    # A size may be there before what it is the size of.
    return content.ljust(inode.size(), b"\0") if draw.random() < 0.3 else content


def _sectors(offset: int, data: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at < len(data):
        end = min(len(data), at + SECTOR - (offset + at) % SECTOR)
        yield offset + at, data[at:end]
        at = end


@dataclass
class Recording:
    """An operation in a folder that was a copy of `source`."""

    operation: str
    folder: Path
    source: Path
    calls: list[Call]


def record(lab: Lab, operation: str) -> Recording:
    """Trace an operation that nothing befalls; what the calls add up to is compared with what is there."""
    folder = lab.prepared(operation)
    source, trace = folder.with_suffix(f"{folder.suffix}.source"), folder.with_suffix(f"{folder.suffix}.trace")
    shutil.copytree(folder, source)
    words = ["strace", "-f", "-y", "-qq", "-xx", "-s", "10000000", "--seccomp-bpf", "-e", f"trace={NAMES}", "-e", "signal=none"]
    done = subprocess.run([*words, "-o", str(trace), *lab.words(operation, folder)], env=lab.environment, capture_output=True)
    assert done.returncode == 0, done.stderr
    found = Recording(operation, folder, source, list(calls_of(trace.read_text())))
    trace.unlink()
    disk = Disk(folder, source, "strict")
    for call in found.calls:
        disk.apply(call)
    assert disk.acknowledged == OPERATIONS[operation].parts
    for inode in disk.inodes:
        if inode.names is None:
            inode.sync()
    disk._commit(None)
    made = lab.place / f"{operation}.made"
    disk.cut(made, random.Random(0))
    assert tree(made) == tree(folder), "the recording is not of what was done"
    shutil.rmtree(made)
    return found


def tree(folder: Path) -> dict[str, bytes | None]:
    """Path → content of all that is in a folder, but SQLite's index of its log."""
    found = [path for path in folder.rglob("*") if not path.name.endswith("-shm")]
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in found}


def replay(recording: Recording, model: str, target: Path, draw: random.Random) -> list[str]:
    """Cut the power at some moment, and see what is left with the product's own readers; what is wrong."""
    disk = Disk(recording.folder, recording.source, model)
    # The calls before the first one in its folder change nothing.
    first = next(n for n, call in enumerate(recording.calls) if _touches(recording, call))
    moment = draw.randint(first, len(recording.calls))
    if draw.random() < 0.3:
        # Right after something was acknowledged, when nothing that came later has made it durable.
        moment = draw.choice([n for n, call in enumerate(recording.calls, 1) if _acknowledges(call)])
    for call in recording.calls[:moment]:
        disk.apply(call)
    disk.cut(target, draw)
    wrong = after(recording.operation, target, disk.acknowledged)
    if not wrong:
        shutil.rmtree(target)
    return [f"{recording.operation}, {model}, after {moment} calls of {len(recording.calls)}: {one}" for one in wrong]


def _touches(recording: Recording, call: Call) -> bool:
    texts = [*call.fds, *(one.decode(errors="replace") for one in call.arguments if isinstance(one, bytes))]
    return any(text.startswith(f"{recording.folder}/") for text in texts) and call.name not in ("open", "openat")
