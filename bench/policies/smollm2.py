"""The table of real weights: a run of `smollm2.yaml` as rows, kept in `tables/smollm2.json` and printed.

python -m bench.policies.smollm2 lamdatui-runs/smollm2     takes a run in, then prints
python -m bench.policies.smollm2                           prints what was taken in
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

TABLE = Path(__file__).parent / "tables" / "smollm2.json"


def take_in(run_dir: Path) -> dict[str, Any]:
    """The nodes of a run: how each was made, its scores on search rows with intervals, seconds."""
    asked = [sys.executable, "-m", "lamdatui", "show", str(run_dir), "--json"]
    told = json.loads(subprocess.run(asked, check=True, capture_output=True, text=True).stdout)
    nodes = []
    for trial in told["trials"]:
        action = trial["action"]
        nodes.append(
            {
                "model": trial["model"] or f"m{trial['number']}",
                "status": trial["status"],
                "type": action["type"],
                "inputs": action["inputs"],
                "params": {key: action["params"][key] for key in ("learning_rate", "max_steps") if key in action["params"]},
                "scores": {task: splits["search"] for task, splits in trial["scores"].items()},
                "gain": trial["gain"],
                "seconds": trial["seconds"],
            }
        )
    return {"base": told["base"], "winner": told["winner"], "gain": told["gain"], "nodes": nodes}


def described(node: dict[str, Any]) -> str:
    """`dpo(m2, preferences) lr 1e-04`."""
    names = ", ".join("+".join(ids) for ids in node["inputs"].values() if ids)
    params = " ".join(f"{name} {value:g}" for name, value in node["params"].items())
    return f"{node['type']}({names}) {params}".strip()


def table(found: dict[str, Any]) -> str:
    """The nodes as Markdown, best first."""
    base = {task: splits["search"] for task, splits in found["base"]["scores"].items()}
    tasks = list(base)
    lines = ["| model | how | " + " | ".join(tasks) + " | gain [95%] | s |", "|---|---|" + "---|" * (len(tasks) + 2)]
    lines.append("| base | SmolLM2-135M-Instruct | " + " | ".join(f"{base[task]['mean']:.3f}" for task in tasks) + " |  |  |")
    done = [node for node in found["nodes"] if node["gain"]]
    for node in sorted(done, key=lambda each: -each["gain"]["mean"]):
        low, high = node["gain"]["interval"]
        means = " | ".join(f"{node['scores'][task]['mean']:.3f}" for task in tasks)
        gain = f"{node['gain']['mean']:+.3f} [{low:+.3f}, {high:+.3f}]"
        lines.append(f"| {node['model']} | {described(node)} | {means} | {gain} | {node['seconds']['total']:.0f} |")
    failed = [f"{node['model']} {described(node)}: {node['status']}" for node in found["nodes"] if not node["gain"]]
    return "\n".join([*lines, *failed])


def main() -> None:
    """Take a run in where one is named; print."""
    if len(sys.argv) > 1:
        TABLE.write_text(json.dumps(take_in(Path(sys.argv[1])), indent=1) + "\n")
    print(table(json.loads(TABLE.read_text())))


if __name__ == "__main__":
    main()
