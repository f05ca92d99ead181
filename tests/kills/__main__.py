"""`python -m tests.kills`."""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

from tests.kills.campaign import Campaign
from tests.kills.making import KINDS


def main() -> None:
    """Do it, and print each kill as a JSON line and the sums; 1 where anything is wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=float("inf"), help="begin no run after that")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--kind", choices=KINDS, default="cheap", help="what trials do: wait and copy rows, or train a model of the lab"
    )
    parser.add_argument("--host", choices=("fork", "spare"), default="fork", help="how the step host starts trainings")
    parser.add_argument("--keep", action="store_true", help="keep the folder of the runs")
    given = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="lamdatui-kills-"))
    campaign = Campaign(folder, given.kind, given.seed, lambda text: print(text, flush=True), host=given.host)
    verdict = campaign.go(given.kills, given.seconds)
    if given.keep or verdict.told:
        print(folder)
    else:
        shutil.rmtree(folder)
    sys.exit(1 if verdict.told else 0)


if __name__ == "__main__":
    main()
