"""Every reader of what others wrote, asked with wrong input by the ten thousand: `python -m tests.fuzz --target X --count N --seed S`.

A case comes from (target, seed, number) alone. It is bad when the reader raises anything but the product's own errors, when it takes more than two
seconds of CPU, when the process grows by more than `MOST_GROWTH_MIB`, and when the error is not one that a person can read. `tests.fuzz_texts` and
`tests.fuzz_folders` say how inputs are made and who reads them. Each target is read in a process of its own, which may end: that is told, too.
"""

from __future__ import annotations

import argparse
import contextlib
import mmap
import multiprocessing
import os
import random
import resource
import signal
import struct
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lamdatui.base.errors import LamdatuiError

Make = Callable[[random.Random], Any]
Read = Callable[[Any], None]
MOST_SECONDS = 2.0
"""Of CPU, for one case."""
STUCK_SECONDS = 60
"""Of the clock: a case that takes longer is ended."""
MOST_GROWTH_MIB = 200
"""Of a target's process, once it has read `WARM` cases."""
WARM = 200
TEXT_CHARS, TEXT_LINES = 4000, 3
"""Of an error: more is none that a person reads."""
BROKEN = 70
"""Exit status of a target's process that did not work itself."""
ROOM_BYTES = 6 * 2**30


@dataclass(frozen=True)
class Target:
    """A reader. `open` gets an empty folder and gives what makes a case and what reads it; `allowed`: errors beside LamdatuiError that the
    reader promises to raise; `whole`: as many cases are tried in the long tests; `room`: bytes of address space that its process may take beyond what
    it has, where a bomb ends in a MemoryError."""

    open: Callable[[Path], tuple[Make, Read]]
    allowed: tuple[type[BaseException], ...] = ()
    whole: int = 100_000
    room: int = ROOM_BYTES


@dataclass
class Report:
    """What became of the cases of a target."""

    target: str
    seed: int
    cases: int = 0
    refused: int = 0
    bad: dict[str, list[int]] = field(default_factory=dict)
    """What is wrong → the numbers of the cases."""
    slowest: tuple[float, int] = (0.0, 0)
    """CPU seconds, and the case."""
    growth: float = 0.0
    """MiB."""
    peak: float = 0.0
    errors: Counter[str] = field(default_factory=Counter)

    @property
    def is_good(self) -> bool:
        return not self.bad and self.growth <= MOST_GROWTH_MIB

    def __str__(self) -> str:
        seconds, number = self.slowest
        lines = [
            f"{self.target}: {self.cases:,} cases (seed {self.seed}), {self.refused:,} refused, {sum(map(len, self.bad.values()))} bad of {len(self.bad)} kinds; "
            f"slowest {seconds:.2f} s (case {number}), grown by {self.growth:.0f} MiB to {self.peak:.0f} MiB"
        ]
        return "\n".join(lines + [f"  BAD × {len(found)}, cases {found[:4]}: {why}" for why, found in self.bad.items()])


class _Stuck(BaseException):
    pass


def targets() -> dict[str, Target]:
    """By name."""
    from tests import fuzz_folders, fuzz_frames, fuzz_texts

    return fuzz_texts.TARGETS | fuzz_frames.TARGETS | fuzz_folders.TARGETS


def dice_of(target: str, seed: int, number: int) -> random.Random:
    """What a case is made with."""
    return random.Random(f"{target} {seed} {number}")


def peak_mib() -> float:
    """The most memory that this process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def unclear(error: BaseException) -> str:
    """Why nobody can read an error; empty where they can."""
    text = str(error)
    if isinstance(error, LamdatuiError) and not error.what.strip():
        return "it says nothing"
    if len(text) > TEXT_CHARS:
        return f"it is {len(text)} characters long"
    if isinstance(error, LamdatuiError) and len(text.splitlines()) > TEXT_LINES:
        return "it has more than three lines"
    return ""


def place_of(error: BaseException) -> str:
    """Kind of an exception, and the innermost lines of the product that it went through."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [
        f"{Path(each.filename).name}:{each.lineno}"
        for each in frames
        if "/lamdatui/" in each.filename or "/actions/" in each.filename
    ]
    return f"{type(error).__name__} at {' < '.join(reversed(ours[-3:])) or '?'}: {' '.join(str(error)[:160].split())}"


def judged(read: Read, case: Any, allowed: tuple[type[BaseException], ...]) -> tuple[str, str]:
    """(what is bad, the refusal) of one case, each empty where there is none."""
    before = signal.signal(signal.SIGALRM, _stop)
    signal.setitimer(signal.ITIMER_REAL, STUCK_SECONDS / 2)
    try:
        read(case)
    except (LamdatuiError, *allowed) as error:
        if why := unclear(error):
            return f"unclear ({why}): {place_of(error)[:120]}", ""
        return "", place_of(error)
    except _Stuck:
        return f"more than {STUCK_SECONDS / 2:g} s", ""
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # noqa: BLE001 (that is what is looked for)
        return place_of(error), ""
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    return "", ""


def _stop(*_: object) -> None:
    raise _Stuck


def hunt(name: str, target: Target, seed: int, numbers: range, beat: Callable[[int], None] = lambda _: None) -> Report:
    """Read some cases of a target in this process."""
    report = Report(name, seed)
    with folder_in_memory() as folder:
        make, read = target.open(folder)
        began = 0.0
        for number in numbers:
            beat(number)
            case = make(dice_of(name, seed, number))
            start = time.process_time()
            bad, refusal = judged(read, case, target.allowed)
            took = time.process_time() - start
            if took > MOST_SECONDS and not bad:
                bad = f"more than {MOST_SECONDS:g} s of CPU"
            if bad:
                report.bad.setdefault(bad, []).append(number)
            report.cases += 1
            report.refused += bool(refusal)
            report.errors[refusal] += bool(refusal)
            report.slowest = max(report.slowest, (took, number))
            if number - numbers.start == min(WARM, len(numbers) - 1):
                began = peak_mib()
        report.peak = peak_mib()
        report.growth = report.peak - began
    return report


@contextlib.contextmanager
def folder_in_memory() -> Iterator[Path]:
    """An empty folder, in memory where the machine has such a file system; the home of the product's own files is in it."""
    memory = Path("/dev/shm")
    before, home = os.getcwd(), os.environ.get("LAMDATUI_HOME")
    with tempfile.TemporaryDirectory(prefix="lamdatui-fuzz-", dir=memory if os.access(memory, os.W_OK) else None) as name:
        folder = Path(name)
        os.environ["LAMDATUI_HOME"] = str(folder / "home")
        (folder / "work").mkdir()
        os.chdir(folder / "work")
        try:
            yield folder / "work"
        finally:
            os.chdir(before)
            os.environ.pop("LAMDATUI_HOME")
            if home is not None:
                os.environ["LAMDATUI_HOME"] = home


def hunt_apart(name: str, seed: int, count: int, first: int = 0) -> Report:
    """The same in a process of its own. One that ends or hangs at a case is told as that, and another one goes on behind it."""
    whole, place, end = Report(name, seed), first, first + count
    while place < end:
        beat = mmap.mmap(-1, 8)
        ours, theirs = multiprocessing.Pipe(duplex=False)
        pid = os.fork()
        if not pid:
            _apart(name, seed, range(place, end), beat, theirs)
        theirs.close()
        found = _watched(pid, beat, ours)
        (at,) = struct.unpack("q", beat[:8])
        if isinstance(found, Report):
            _add(whole, found)
            break
        whole.bad.setdefault(found, []).append(at)
        whole.cases += at - place + 1
        place = at + 1
    return whole


def _add(whole: Report, part: Report) -> None:
    whole.cases += part.cases
    whole.refused += part.refused
    for why, numbers in part.bad.items():
        whole.bad.setdefault(why, []).extend(numbers)
    whole.slowest = max(whole.slowest, part.slowest)
    whole.growth, whole.peak = max(whole.growth, part.growth), max(whole.peak, part.peak)
    whole.errors.update(part.errors)


def _apart(name: str, seed: int, numbers: range, beat: mmap.mmap, pipe: Any) -> None:
    code = BROKEN
    try:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        space = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
        resource.setrlimit(resource.RLIMIT_AS, (space + targets()[name].room, resource.RLIM_INFINITY))

        def told(number: int) -> None:
            beat[:8] = struct.pack("q", number)

        pipe.send(hunt(name, targets()[name], seed, numbers, told))
        code = 0
    except BaseException:  # noqa: BLE001 (told, and then the process ends)
        traceback.print_exc()
    finally:
        os._exit(code)


def _watched(pid: int, beat: mmap.mmap, pipe: Any) -> Report | str:
    """The report of a process, or how it ended without one."""
    seen, since = b"", time.monotonic()
    try:
        while not pipe.poll(1):
            if beat[:8] != seen:
                seen, since = beat[:8], time.monotonic()
            elif time.monotonic() - since > STUCK_SECONDS:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
                return f"stuck for {STUCK_SECONDS} s, in a call that does not return"
        report = pipe.recv()
        os.waitpid(pid, 0)
        return report
    except EOFError:
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        if status == BROKEN:
            raise RuntimeError("the target can't be opened: see above") from None
        return f"the process ended with {signal.Signals(-status).name if status < 0 else status}"


def main() -> int:
    """The command; 1 where something is bad."""
    known = targets()
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--target", action="append", choices=[*known, "all"])
    parser.add_argument("--count", type=int, help="cases of each target; what the long tests try, where not given")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--first", type=int, default=0, help="the number of the first case")
    parser.add_argument("--case", type=int, help="read this one case only, and show it")
    parser.add_argument("--errors", action="store_true", help="show how often each error came")
    asked = parser.parse_args()
    names = list(known) if not asked.target or "all" in asked.target else asked.target
    good = True
    for name in names:
        if asked.case is not None:
            with folder_in_memory() as folder:
                make, read = known[name].open(folder)
                case = make(dice_of(name, asked.seed, asked.case))
                print(repr(case)[:20_000])
                read(case)
            continue
        report = hunt_apart(name, asked.seed, asked.count or known[name].whole, asked.first)
        print(report, flush=True)
        if asked.errors:
            print("\n".join(f"    {count:6} {why}" for why, count in report.errors.most_common(40)))
        good &= report.is_good
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
