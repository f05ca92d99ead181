"""What a dry run prints is enough to make the same weights with TRL or mergekit alone."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
import yaml
from datasets import Dataset
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import SFTConfig, SFTTrainer

from lamdatui.config.resources import load_registry
from lamdatui.step.child import run_step
from lamdatui.step.files import CONFIG, ROWS, write_request
from tests.steps import Lab


class Dry(Lab):
    """Each attempt is followed by a dry run of the same request, in `dry`."""

    dry = Path()

    def execute(self, folder: Path) -> None:
        super().execute(folder)
        self.dry = folder.parent / f"{folder.name}-dry"
        self.dry.mkdir()
        request = json.loads((folder / "action.json").read_text())
        request.pop("seal", None)
        empty = self.dry / "store"
        (empty / "objects").mkdir(parents=True)
        for published in (self.store.root / "objects").iterdir():
            if published.name != request["digest"]:
                (empty / "objects" / published.name).symlink_to(published)
        write_request(self.dry, {**request, "store": str(empty)})
        assert run_step(self.dry, load_registry(), dry_run=True) == 0


def unequal(steps: Lab, name: str, weights: dict[str, torch.Tensor]) -> list[str]:
    """Names of a model's tensors that are not the same to the bit."""
    return [each for each, tensor in steps.weights(name).items() if not torch.equal(tensor, weights[each])]


def test_trl_alone_makes_the_same_weights_of_the_printed_arguments_and_rows(lab: Path, tmp_path: Path) -> None:
    steps = Dry(lab, tmp_path)
    # More rows than it sees: which are drawn has to be told.
    made = steps.model("sft", {"model": ["llama"], "dataset": ["call"]}, method="full", max_steps=6, batch_size=16)
    told = json.loads((steps.dry / CONFIG).read_text())
    rows = [json.loads(line) for line in (steps.dry / ROWS).read_text().splitlines()]
    assert told["runs"] == "SFTTrainer" and len(rows) == told["rows"] == 96
    arguments = {**told["arguments"], "output_dir": str(tmp_path / "out")}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        model = AutoModelForCausalLM.from_pretrained(lab / "llama", dtype=torch.float32)
        tokenizer = AutoTokenizer.from_pretrained(lab / "llama")
        config, data = SFTConfig(**arguments), Dataset.from_list(rows)
        trainer: Any = SFTTrainer(model=model, args=config, train_dataset=data, processing_class=tokenizer)
        trainer.train()
    finally:
        torch.set_num_threads(threads)
    assert unequal(steps, made.id, trainer.model.state_dict()) == []


def test_mergekit_alone_makes_the_same_weights_of_a_merge_that_draws(lab: Path, tmp_path: Path) -> None:
    steps = Dry(lab, tmp_path)
    tune = {"model": ["llama"], "dataset": ["call"]}
    models = [steps.model("sft", tune, method="full", max_steps=3, seed=seed).id for seed in (1, 2)]
    made = steps.model("merge_dare_ties", {"base": ["llama"], "models": models}, seed=7)
    told = json.loads((steps.dry / CONFIG).read_text())
    title = told.pop("runs")
    assert title.endswith("--random-seed 7")
    config = tmp_path / "merge.yaml"
    config.write_text(yaml.safe_dump(told))
    command = [str(Path(sys.executable).parent / "mergekit-yaml"), str(config), str(tmp_path / "merged")]
    subprocess.run([*command, *title.split()[-2:]], check=True, capture_output=True)
    assert unequal(steps, made.id, load_file(tmp_path / "merged" / "model.safetensors")) == []
