"""The planner's adapter from a run of bench/planner/train.yaml: one LoRA for llama.cpp, in GGUF.

    python -m bench.planner.adapter lamdatui-runs/planner --to planner-lora.gguf [--model m1]

A step's adapter stands on its parent's merged weights, so those of a chain add up: the rows of all A's and the columns of all B's are
joined to one adapter of the ranks' sum, which is exact.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

from lamdatui.base.jsonio import read_json
from lamdatui.catalogue.fetch import resolve
from lamdatui.catalogue.lora_gguf import write_lora
from lamdatui.store.artifacts import Store
from lamdatui.store.journal import read_state


def joined(folders: list[Path], target: Path) -> None:
    """One PEFT adapter that does what those of `folders` do together; alpha equals the rank, so that its scale is 1."""
    parts: dict[str, list[np.ndarray]] = {}
    for folder in folders:
        settings = read_json(folder / "adapter_config.json")
        scale = settings["lora_alpha"] / settings["r"]
        for name, tensor in load_file(folder / "adapter_model.safetensors").items():
            values = tensor.astype(np.float32)
            parts.setdefault(name, []).append(values * scale if ".lora_B." in name else values)
    found = {name: np.concatenate(each, axis=1 if ".lora_B." in name else 0) for name, each in parts.items()}
    rank = next(tensor.shape[0] for name, tensor in found.items() if ".lora_A." in name)
    save_file(found, target / "adapter_model.safetensors")
    (target / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": rank, "lora_alpha": rank}))


def main() -> None:
    """Parse and convert."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--to", type=Path, required=True)
    parser.add_argument("--model", help="a model of the run; the last one when not given")
    options = parser.parse_args()
    state = read_state(options.run / "run.db")
    model = state.pool.model(options.model) if options.model else state.pool.models[-1]
    store = Store(options.run.parent / "store")
    with tempfile.TemporaryDirectory() as scratch:
        joined([store.resolve(each) for each in model.adapters], Path(scratch))
        count = write_lora(Path(scratch), resolve("catalogue:smollm2-135m") / "config.json", options.to)
    print(f"{options.to}: {model.id}, {count} tensors, {options.to.stat().st_size / 2**20:.1f} MiB")


if __name__ == "__main__":
    main()
