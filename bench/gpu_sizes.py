"""Steps of real sizes on this machine: forecast against measured memory, for models of random weights with the sizes of known ones.

    python -m bench.gpu_sizes [--sizes Qwen3-1.7B Qwen3-8B] [--steps 3] [--vllm ~/.vllm/bin/vllm] [--keep FOLDER]

Each size gets LoRA, QLoRA and DoRA fine-tuning, full fine-tuning with 8-bit AdamW, DPO, GRPO (with vLLM's rollouts where it is in this
environment), a merge, and the evaluation of each result (with --vllm: by vLLM). What does not fit is told, not run. Random weights learn
nothing worth: seconds and bytes are what counts (GRPO ends as failed, because no answer earns a reward; what it took is told all the same). It needs `quickstart-data-2` and `smollm2-135m` of the catalogue, and disk for the weights.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
import yaml
from transformers import CONFIG_MAPPING, AutoModelForCausalLM

from bench.memory import FAMILIES, config_of
from lamdatui.inputs.workspace import locate

PROGRAM = [sys.executable, "-m", "lamdatui"]
TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "generation_config.json")
GIB = 2**30


def write_model(name: str, folder: Path, device: str) -> None:
    """Random weights of a known model's sizes, in bfloat16 on a GPU, with SmolLM2's tokenizer (its ids are in every vocabulary here)."""
    told, _ = config_of(name)
    small = locate("catalogue:smollm2-135m")
    ids = {key: json.loads((small / "config.json").read_text())[key] for key in ("bos_token_id", "eos_token_id")}
    config = CONFIG_MAPPING[told["model_type"]](**{key: value for key, value in told.items() if key != "model_type"}, **ids)
    torch.manual_seed(1)
    with torch.device(device):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16 if device == "cuda" else torch.float32)
    model.save_pretrained(folder)
    del model
    for file in TOKENIZER:
        shutil.copy(small / file, folder / file)


def profile(folder: Path, steps: int, vllm: str, device: str) -> dict[str, Any]:
    """A scripted run over one model."""
    short = {"max_steps": steps, "batch_size": 8}
    tune = {"type": "sft", "inputs": {"model": "base", "dataset": "mix"}}
    script: list[dict[str, Any]] = [{**tune, "params": {**short, "method": method}} for method in ("lora", "dora")]
    if importlib.util.find_spec("bitsandbytes"):
        script.append({**tune, "params": {**short, "method": "qlora"}})
        script.append({**tune, "params": {**short, "method": "full", "optimizer": "adamw_8bit_paged"}})
    script.append({"type": "dpo", "inputs": {"model": "base", "dataset": "pairs"}, "params": short})
    rollouts = "vllm" if device == "cuda" and importlib.util.find_spec("vllm") else "transformers"
    sampled = {**short, "samples": 4, "max_new_tokens": 128, "rollouts": rollouts}
    script.append({"type": "grpo", "inputs": {"model": "base", "dataset": "calls"}, "params": sampled})
    script.append({"type": "merge_linear", "inputs": {"models": ["m1", "m2"]}})
    data = "catalogue:quickstart-data-2"
    return {
        "name": "sizes",
        "seed": 1,
        "models": {"base": {"path": str(folder)}},
        "datasets": {
            "mix": {"path": f"{data}/mix.jsonl"},
            "pairs": {"path": f"{data}/preferences.jsonl"},
            "calls": {"path": f"{data}/call_rewards.jsonl"},
        },
        "tasks": {
            "tool_use": {
                "path": f"{data}/tool_use.jsonl",
                "scorer": "function_call",
                "max_new_tokens": 64,
                "rows": {"search": 32, "sealed": 8},
            }
        },
        "objective": {"weights": {"tool_use": 1.0}},
        "actions": dict.fromkeys(("sft", "dpo", "grpo", "merge_linear")),
        "policy": {"name": "scripted", "opening": False, "script": script},
        "budget": {"trials": len(script), "baselines": 0},
        "generation": {"backend": "vllm", "executable": vllm} if vllm else {"backend": "transformers"},
        "device": device,
        "mode": "auto",
    }


def forecasts(printed: str) -> dict[int, int]:
    """Trial → bytes that its proposal was expected to take, from the events that a run printed."""
    events = map(json.loads, printed.splitlines())
    told = [event["data"] for event in events if event["kind"] == "trial.proposed"]
    return {data["number"]: data["proposal"]["estimate"]["memory_bytes"] or 0 for data in told}


def rows(run_dir: Path, shown: dict[str, Any], expected: dict[int, int], device: str) -> list[dict[str, Any]]:
    """For each trial: its kind, plan, forecast and measured GiB, seconds."""
    found = []
    for trial in shown["trials"]:
        outcomes = sorted(run_dir.glob(f"steps/{trial['number']}/*/outcome.json"))
        outcome = json.loads(outcomes[-1].read_text()) if outcomes else {}
        measured = outcome.get("peak_gpu" if device == "cuda" else "peak_rss") or 0
        found.append(
            {
                "action": trial["action"]["type"],
                "method": trial["action"]["params"].get("method", ""),
                "status": trial["status"],
                "error": (trial.get("error") or {}).get("message", ""),
                "plan": outcome.get("plan"),
                "forecast_gib": round(expected.get(trial["number"], 0) / GIB, 2),
                "measured_gib": round(measured / GIB, 2),
                "attempts": len(outcomes),
                "seconds": trial["seconds"],
            }
        )
    return found


def measure(name: str, place: Path, steps: int, vllm: str, device: str) -> dict[str, Any]:
    """One size: what a run of it took."""
    folder = place / name
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "config.json").exists():
        write_model(name, folder, device)
    path = place / f"{name}.yaml"
    # Through JSON: a profile takes no aliases, which YAML writes for what is in it twice.
    told = json.loads(json.dumps(profile(folder, steps, vllm, device)))
    path.write_text(yaml.safe_dump(told, sort_keys=False))
    run = name.lower()
    where = ["--runs-dir", str(place / "runs")]
    done = subprocess.run(
        [*PROGRAM, "run", str(path), "--name", run, "--headless", "--mode", "auto", "--trust", "--json", *where],
        capture_output=True,
        text=True,
    )
    shown = subprocess.run([*PROGRAM, "show", run, "--json", *where], capture_output=True, text=True)
    if shown.returncode != 0:
        return {"size": name, "exit": done.returncode, "said": done.stderr[-800:], "trials": []}
    told = json.loads(shown.stdout)
    return {
        "size": name,
        "exit": done.returncode,
        "reason": told["reason"],
        "generator": told["engine"]["generator"],
        "trials": rows(place / "runs" / run, told, forecasts(done.stdout), device),
    }


def main() -> None:
    """Print one JSON object a size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", default=["Qwen3-1.7B", "Qwen3-8B"], choices=FAMILIES)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--vllm", default="", help="the vllm command, or a Python that has it")
    parser.add_argument("--keep", type=Path, help="keep models and runs there")
    given = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    with tempfile.TemporaryDirectory(prefix="lamdatui-sizes-") as scratch:
        for name in given.sizes:
            print(json.dumps(measure(name, given.keep or Path(scratch), given.steps, given.vllm, device)), flush=True)


if __name__ == "__main__":
    main()
