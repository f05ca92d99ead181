"""`python -m tests.corpus`: how many hostile cases there are of each family; `python -m tests.corpus run`: what came of all of them."""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from pathlib import Path

from lamdatui.base import paths
from tests.corpus import commands, court
from tests.corpus.answers import answer_cases
from tests.corpus.canaries import Canaries
from tests.corpus.commands import Session, counted
from tests.corpus.data import data_cases, task_cases
from tests.corpus.models import model_cases
from tests.corpus.projects import file_cases, profile_cases


def main() -> int:
    """Print the counts, and with `run` what is wrong; 1 where something is."""
    catalogue = paths.cache_dir() / "catalogue"
    with tempfile.TemporaryDirectory(prefix="lamdatui-corpus-") as folder:
        root = Path(folder)
        nest = Canaries(root / "canaries")
        kinds = {
            "planner": answer_cases(nest),
            "models": model_cases(nest, catalogue / "lab-bases" / "llama"),
            "data": [*data_cases(nest), *task_cases(nest)],
            "profiles": profile_cases(nest),
            "project folder": file_cases(nest),
        }
        for kind, cases in kinds.items():
            told = ", ".join(f"{family} {count}" for family, count in counted(cases).items())
            print(f"{kind}: {len(cases)} ({told})")
        print(f"together: {sum(map(len, kinds.values()))}")
        wrong = _run(nest, root, catalogue) if sys.argv[1:] == ["run"] else {}
        nest.close()
    for case, words in wrong.items():
        print(f"{case}: {'; '.join(words)}")
    return int(bool(wrong))


def _run(nest: Canaries, root: Path, catalogue: Path) -> dict[str, list[str]]:
    began = time.monotonic()
    commands.environment(root / "home", catalogue)
    wrong = asyncio.run(court.everything(nest, root / "court"))
    print(f"planner: {len(wrong)} wrong, {time.monotonic() - began:.0f} s", flush=True)
    session = Session(nest, root / "work")
    commands.everything(session, catalogue)
    print(f"all others: {len(session.wrong)} wrong, {time.monotonic() - began:.0f} s")
    return wrong | session.wrong


if __name__ == "__main__":
    sys.exit(main())
