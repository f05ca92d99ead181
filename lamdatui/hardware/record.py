"""`python -m lamdatui.hardware.record FILE`: record this machine's GPUs for `lamdatui run --fake-gpu FILE`."""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

from lamdatui.base.errors import EXIT_DONE, EXIT_FAILED, EXIT_USAGE
from lamdatui.hardware.gpu import read_gpus
from lamdatui.hardware.processes import describe


def record(path: Path, seconds: float, every: float) -> int:
    """Write a reading every `every` seconds for `seconds`; how many were written. Raises FileExistsError."""
    began, count = time.monotonic(), 0
    with path.open("x", encoding="utf-8") as handle:
        while (at := time.monotonic() - began) < seconds:
            gpus, reason = read_gpus()
            describe(gpus, {})
            handle.write(json.dumps({"at": round(at, 3), "gpus": gpus, "reason": reason}, separators=(",", ":")) + "\n")
            handle.flush()
            count += 1
            time.sleep(max(0.0, every - (time.monotonic() - began - at)))
    return count


def main() -> int:
    """Parse and record; Ctrl-C ends a recording early and keeps what there is."""
    parser = argparse.ArgumentParser(prog="python -m lamdatui.hardware.record", description=__doc__)
    parser.add_argument("file", type=Path, help="JSONL file to make; it must not exist")
    parser.add_argument("--seconds", type=float, default=60.0, help="how long (60)")
    parser.add_argument("--every", type=float, default=1.0, help="seconds between readings (1)")
    options = parser.parse_args()
    if not (0 < options.every <= options.seconds):
        parser.error("--every is above 0 and at most --seconds")
    gpus, reason = read_gpus()
    if not gpus:
        print(f"error: there is no GPU to record\n  where: {reason}", file=sys.stderr)
        return EXIT_FAILED
    try:
        count = record(options.file, options.seconds, options.every)
    except OSError as error:
        print(f"error: can't write: {error.strerror}\n  where: {options.file}", file=sys.stderr)
        return EXIT_USAGE
    except KeyboardInterrupt:
        print(f"ended early: {options.file}", file=sys.stderr)
        return EXIT_DONE
    print(f"{count} readings of {len(gpus)} GPU{'s' if len(gpus) > 1 else ''} in {options.file}", file=sys.stderr)
    return EXIT_DONE


if __name__ == "__main__":
    sys.exit(main())
