#!/usr/bin/env python3
"""Make the weights beside this file again, with transformers, TRL, PEFT and mergekit alone: nothing of lamdatui is needed.

    python reproduce.py --base NAME=FOLDER --to FOLDER

`reproduce/plan.json` says what is done; each step has its trainer's or mergekit's configuration, and the rows that the trainer got. What
comes out is compared with the weights beside this file, tensor by tensor. On a CPU with the packages of the plan every bit is the same;
another machine or another version may round otherwise. Exit code: 0 the same, 1 not the same, 2 it can't be done.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import importlib.metadata
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
ALONE = {"push_to_hub": False, "report_to": "none"}
"""Arguments of a trainer that are the same whatever the plan says: nothing leaves this machine."""
PLAN = "reproduce/plan.json"
MERGED = "merged"
Reference = dict[str, Any]


class Refused(Exception):
    """What can't be done, in one sentence."""


class Places:
    """Folders of the bases and of what steps have made."""

    def __init__(self, folder: Path, bases: dict[str, Path], made: Path) -> None:
        self.folder, self.bases, self.made = folder, bases, made

    def __getitem__(self, name: str) -> str:
        kind, _, name = name.partition(":")
        return str(self.bases[name] if kind == "base" else self.made / name)


def load(places: Places, reference: Reference, dtype: Any, device: str) -> Any:
    """Full weights with each adapter merged in, in order."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    model: Any = AutoModelForCausalLM.from_pretrained(
        places[reference["weights"]], dtype=dtype, local_files_only=True, use_safetensors=True
    )
    for adapter in reference["adapters"]:
        model = PeftModel.from_pretrained(model, places[adapter]).merge_and_unload()
    return model.requires_grad_(True).to(device)


def tokenizer_of(places: Places, reference: Reference) -> Any:
    """The tokenizer beside a model's full weights, with a padding token."""
    from transformers import AutoTokenizer

    found = AutoTokenizer.from_pretrained(places[reference["weights"]], local_files_only=True)
    if found.eos_token is None:
        found.eos_token = reference["eos_token"]
    if found.pad_token is None:
        found.pad_token, found.was_without_pad = found.eos_token, True
    return found


def write_full(model: Any, tokenizer: Any, folder: Path) -> None:
    """A model as a Hugging Face directory; the padding token goes no further where there was none."""
    model.save_pretrained(folder)
    if getattr(tokenizer, "was_without_pad", False):
        tokenizer.pad_token = None
    tokenizer.save_pretrained(folder)


def rows_of(folder: Path) -> Any:
    """The rows that a trainer got, prepared as it had them."""
    from datasets import Dataset

    with gzip.open(folder / "rows.jsonl.gz", "rt", encoding="utf-8") as lines:
        return Dataset.from_list([json.loads(line) for line in lines])


def trainer_classes(name: str) -> tuple[Any, Any]:
    """(config class, trainer class) for rows that are prepared already."""

    def as_they_are(self: Any, dataset: Any, *_: Any, **__: Any) -> Any:
        return dataset

    def tokens(self: Any, feature: dict[str, Any], model: Any = None) -> dict[str, Any]:
        return {key: value for key, value in feature.items() if key.endswith(("_input_ids", "_attention_mask", "_labels"))}

    if name == "SFTTrainer":
        from trl.trainer.sft_config import SFTConfig
        from trl.trainer.sft_trainer import SFTTrainer

        return SFTConfig, type(name, (SFTTrainer,), {"_prepare_dataset": as_they_are})
    if name == "EncodedDPOTrainer":
        from trl.trainer.dpo_config import DPOConfig
        from trl.trainer.dpo_trainer import DPOTrainer

        return DPOConfig, type(name, (DPOTrainer,), {"_prepare_dataset": as_they_are})
    if name == "EncodedKTOTrainer":
        from trl.trainer.kto_config import KTOConfig
        from trl.trainer.kto_trainer import KTOTrainer

        return KTOConfig, type(name, (KTOTrainer,), {"_prepare_dataset": as_they_are})
    if name == "OrpoTrainer":
        from trl.experimental.orpo import ORPOConfig, ORPOTrainer

        return ORPOConfig, type(name, (ORPOTrainer,), {"tokenize_row": tokens})
    from trl.experimental.cpo import CPOConfig, CPOTrainer

    return CPOConfig, type(name, (CPOTrainer,), {"tokenize_row": tokens})


def train(places: Places, step: dict[str, Any], plan: dict[str, Any], target: Path) -> None:
    """One training with TRL."""
    import torch
    from accelerate.utils import extract_model_from_parallel
    from peft import LoraConfig
    from trl.kernels import chunked_logprob

    folder = places.folder / step["folder"]
    told = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    if "tile_tokens" in told:
        # The order of a sum depends on how many tokens are summed at once.
        chunked_logprob.TOKEN_CHUNK_SIZE = told["tile_tokens"]
    config_class, trainer_class = trainer_classes(told["runs"])
    dtype, full, model = getattr(torch, plan["dtype"]), step["method"] == "full", step["model"]
    weights = torch.float32 if full else dtype
    with tempfile.TemporaryDirectory() as scratch:
        config = config_class(**{**told["arguments"], **ALONE, "output_dir": scratch})
        adapter: dict[str, Any] = {}
        if not full:
            settings = {key: value for key, value in told["adapter"].items() if value is not None}
            adapter = {"peft_config": LoraConfig(**settings)}
        kept = {"ref_model": load(places, model, torch.float32, step["device"])} if step["keeps_reference"] else {}
        trainer = trainer_class(
            model=load(places, model, weights, step["device"]),
            args=config,
            train_dataset=rows_of(folder),
            processing_class=tokenizer_of(places, model),
            **kept,
            **adapter,
        )
        trainer.train()
    made = extract_model_from_parallel(trainer.model, keep_fp32_wrapper=False)
    if full:
        write_full(made.to(dtype), tokenizer_of(places, model), target)
    else:
        made.save_pretrained(target)


def merge(places: Places, step: dict[str, Any], plan: dict[str, Any], target: Path) -> None:
    """One merge with mergekit's own command, of models whose adapters are merged in first."""
    import torch

    with tempfile.TemporaryDirectory() as scratch:
        folders = {}
        for name, reference in step["models"].items():
            folders[name] = places[reference["weights"]]
            if reference["adapters"]:
                folders[name] = str(Path(scratch) / name)
                model = load(places, reference, getattr(torch, plan["dtype"]), "cpu")
                write_full(model, tokenizer_of(places, reference), Path(folders[name]))
        text = (places.folder / step["folder"] / "mergekit.yaml").read_text(encoding="utf-8")
        config = Path(scratch) / "mergekit.yaml"
        config.write_text(json.dumps(named(json.loads(text), folders)), encoding="utf-8")
        command = [str(Path(sys.executable).parent / "mergekit-yaml"), str(config), str(target)]
        done = subprocess.run([*command, "--random-seed", str(step["seed"])], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise Refused(f"mergekit-yaml: {done.stderr.strip().splitlines()[-1:]}")


def named(value: Any, folders: dict[str, str]) -> Any:
    """A configuration with folders in place of `model:NAME`."""
    if isinstance(value, dict):
        return {key: named(item, folders) for key, item in value.items()}
    if isinstance(value, list):
        return [named(item, folders) for item in value]
    return folders[value.removeprefix("model:")] if isinstance(value, str) and value.startswith("model:") else value


def merge_adapters(places: Places, step: dict[str, Any], plan: dict[str, Any], target: Path) -> None:
    """One merge of adapters with PEFT, on a base whose weights are zeros: no combination looks at them."""
    import torch
    from peft import PeftModel
    from transformers import AutoConfig, AutoModelForCausalLM

    told = json.loads((places.folder / step["folder"] / "config.json").read_text(encoding="utf-8"))
    with torch.device("meta"):
        base = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(places[step["weights"]], local_files_only=True))
    for module in base.modules():
        for name, weight in list(module.named_parameters(recurse=False)):
            zeros = torch.zeros((), dtype=torch.float32).expand(weight.shape)
            setattr(module, name, torch.nn.Parameter(zeros, requires_grad=False))
    names = [f"adapter{index}" for index in range(len(step["adapters"]))]
    first, *others = (places[adapter] for adapter in step["adapters"])
    model: Any = PeftModel.from_pretrained(base, first, adapter_name=names[0], torch_device="cpu")
    for name, folder in zip(names[1:], others, strict=True):
        model.load_adapter(folder, adapter_name=name, torch_device="cpu")
    torch.manual_seed(step["seed"])
    options = {key: value for key, value in told.items() if key not in ("runs", "adapters", "weights")}
    model.base_model.add_weighted_adapter(names, told["weights"], MERGED, **options)
    model.peft_config[MERGED].use_rslora = False
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        model.save_pretrained(scratch, selected_adapters=[MERGED], save_embedding_layers=False)
        (Path(scratch) / MERGED).rename(target)


WAYS = {"trl": train, "mergekit": merge, "peft": merge_adapters}


def compare(ours: Path, theirs: Path) -> int:
    """Say how many tensors of two folders are the same to the bit; the number of those that are not."""
    import torch
    from safetensors.torch import load_file

    def tensors(folder: Path) -> dict[str, Any]:
        return {name: tensor for file in sorted(folder.glob("*.safetensors")) for name, tensor in load_file(file).items()}

    made, given = tensors(ours), tensors(theirs)
    if set(made) != set(given):
        print(f"other tensors: {sorted(set(made) ^ set(given))[:3]}")
        return len(set(made) ^ set(given))
    unequal = [name for name in given if not torch.equal(made[name], given[name])]
    most = max((float((made[name].float() - given[name].float()).abs().max()) for name in unequal), default=0.0)
    print(
        f"{len(given) - len(unequal)} of {len(given)} tensors are the same to the bit"
        + (f"; largest difference {most:.3g}" if unequal else "")
    )
    return len(unequal)


def check_base(name: str, folder: Path, files: dict[str, str]) -> None:
    """Raises Refused where a base is not the one that was used."""
    for file, expected in files.items():
        try:
            with (folder / file).open("rb") as handle:
                found = hashlib.file_digest(handle, "sha256").hexdigest()
        except OSError as error:
            raise Refused(
                f"the base {name}: {folder / file}: {error.strerror}; give its folder with --base {name}=FOLDER"
            ) from error
        if found != expected:
            raise Refused(f"the base {name}: {folder / file} is not the file that was used; give another folder with --base")


def run(folder: Path, given: list[str], to: Path | None) -> int:
    """Do all steps of the plan in `folder`; the exit code. Raises Refused."""
    try:
        plan = json.loads((folder / PLAN).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise Refused(f"{folder / PLAN}: {error}") from error
    for step in plan["steps"]:
        if not NAME.fullmatch(step["makes"]):
            raise Refused(f"a step makes {step['makes']!r}, which is no name")
    bases = {name: Path(base["path"]) for name, base in plan["bases"].items()}
    for text in given:
        name, equals, place = text.partition("=")
        if not equals or name not in bases:
            raise Refused(f"--base takes NAME=FOLDER, NAME one of {', '.join(bases)}, not {text!r}")
        bases[name] = Path(place)
    for name, base in plan["bases"].items():
        check_base(name, bases[name], base["files"])
    if alone := [step for step in plan["steps"] if step["reason"]]:
        raise Refused("; ".join(f"{step['makes']} ({step['type']}): {step['reason']}" for step in alone))
    for package, version in plan["packages"].items():
        if (here := importlib.metadata.version(package)) != version:
            print(f"note: {package} is {here} here, and was {version}: weights may differ", file=sys.stderr)

    import torch

    with tempfile.TemporaryDirectory() as scratch:
        places = Places(folder, bases, Path(scratch))
        for step in plan["steps"]:
            print(f"{step['makes']}: {step['type']}", flush=True)
            torch.set_num_threads(step["threads"])
            torch.manual_seed(step["seed"])
            WAYS[step["how"]](places, step, plan, Path(scratch) / step["makes"])
        result, target = plan["result"], to or Path(scratch) / "result"
        if result["form"] == "adapter":
            target = Path(places[result["adapters"][-1]])
        else:
            model = load(places, result, getattr(torch, plan["dtype"]), "cpu")
            write_full(model, tokenizer_of(places, result), target)
        return 1 if compare(target, folder) else 0


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description="Make the weights beside this file again, and compare them with it.")
    parser.add_argument("--base", action="append", default=[], metavar="NAME=FOLDER", help="where a base is, if it has moved")
    parser.add_argument("--to", type=Path, help="keep what comes out in this folder, which does not exist yet")
    parser.add_argument("--folder", type=Path, default=HERE, help="the exported model; where this file lies, when not given")
    asked = parser.parse_args()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    if asked.to is not None and asked.to.exists():
        parser.error(f"{asked.to} exists already")
    try:
        return run(asked.folder, asked.base, asked.to)
    except Refused as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
