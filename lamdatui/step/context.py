"""What an action's `run` works with: its models, its data, its place for results, and where to report."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, PrinterCallback, TrainerCallback

from lamdatui.datafiles import read_dataset
from lamdatui.faults import fault
from lamdatui.pipeline import ModelReference
from lamdatui.step.files import METRICS
from lamdatui.store.artifacts import Store

# transformers decorates these classes in ways that a type checker takes for something else.
Model = Any
Tokenizer = Any


class StepError(Exception):
    """A failure with a class that people and policies can use: oom-train, oom-eval, nan, data, disk, killed, bug."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class StepContext:
    """One step. `request` is the content of action.json (see `lamdatui.pipeline.StepRequest`)."""

    def __init__(self, directory: Path, request: dict[str, Any], staged: Path) -> None:
        self.directory = directory
        self.request = request
        self.staged = staged
        self.params: dict[str, Any] = (request["action"] or {}).get("params", {})
        self.seed: int = (request["action"] or {}).get("seed", 0)
        self.device = torch.device(request["device"])
        self.dtype: torch.dtype = getattr(torch, request["dtype"])
        self.store = Store(Path(request["store"]))
        self.result: dict[str, Any] | None = None
        self.model: Model | None = None
        self._began = time.monotonic()

    # --- reporting -----------------------------------------------------------------------------------------------

    def say(self, text: str) -> None:
        """A line in the step's log."""
        print(text, flush=True)

    def metric(self, **values: Any) -> None:
        """One record in metrics.jsonl; a value that is not finite is written as null."""
        clean = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in values.items()}
        clean["seconds"] = round(time.monotonic() - self._began, 3)
        with (self.directory / METRICS).open("a", encoding="utf-8") as handle:
            handle.write(json.dumps(clean) + "\n")

    # --- inputs --------------------------------------------------------------------------------------------------

    def load_tokenizer(self, slot: str = "model") -> Tokenizer:
        """The tokenizer of a slot's (first) model, with a padding token."""
        return load_tokenizer(self.store, self.request["models"][slot][0])

    def load_model(self, slot: str = "model", *, full: bool = False) -> Model:
        """The slot's (first) model on the step's device, its adapters merged in: plain weights, ready to train.

        `full` says that every weight will be trained: then they are float32 whatever the step's dtype, because small
        updates are lost in bfloat16.
        """
        dtype = torch.float32 if full else self.dtype
        return load_model(self.store, self.request["models"][slot][0], dtype, self.device)

    def model_directories(self, slot: str) -> list[Path]:
        """A Hugging Face directory of full weights for each model of a slot, as merges need them (absolute paths)."""
        found = []
        for index, reference in enumerate(self.request["models"][slot]):
            if not reference["adapters"]:
                found.append(self.store.resolve(reference["weights"]).absolute())
                continue
            target = self.staged.parent / f"{self.staged.name}-{slot}-{index}"
            self.say(f"writing the full weights of {reference['id']}")
            load_model(self.store, reference, self.dtype, torch.device("cpu")).save_pretrained(str(target))
            load_tokenizer(self.store, reference).save_pretrained(str(target))
            found.append(target.absolute())
        return found

    def load_dataset(self, slot: str = "dataset") -> Dataset:
        """The slot's rows as conversations: columns `prompt`+`completion`, or `prompt`+`chosen`+`rejected`."""
        return Dataset.from_list(read_dataset(Path(self.request["datasets"][slot]["path"])))

    # --- training ------------------------------------------------------------------------------------------------

    def trainer_arguments(self, *, full: bool = False) -> dict[str, Any]:
        """Arguments that every TRL config of a step shares; hyperparameters are the action's own business.

        With `full`, float32 weights are computed with in bfloat16 where the step's dtype says so and a GPU is there.
        """
        return {
            "output_dir": str(self.staged / ".trainer"),
            "seed": self.seed,
            "data_seed": self.seed,
            "use_cpu": self.device.type == "cpu",
            "bf16": full and self.dtype == torch.bfloat16 and self.device.type == "cuda",
            "fp16": False,
            "report_to": "none",
            "save_strategy": "no",
            "logging_steps": 1,
            # The default hides a NaN step behind a running mean; `MetricsCallback` must see it.
            "logging_nan_inf_filter": False,
            "disable_tqdm": True,
            "dataloader_pin_memory": False,
            "remove_unused_columns": True,
        }

    def train(self, trainer: Any) -> None:
        """Train a transformers trainer with the step's own reports in place of its prints.

        Each logged step goes to the log and to metrics.jsonl; a loss or a gradient norm that is not finite ends it.
        """
        trainer.remove_callback(PrinterCallback)
        trainer.add_callback(MetricsCallback(self))
        trainer.train()

    # --- results -------------------------------------------------------------------------------------------------

    def finish_training(self, model: Model, tokenizer: Tokenizer) -> None:
        """Take a trained model: a PEFT model is stored as its adapter, another one as full weights."""
        from accelerate.utils.other import extract_model_from_parallel
        from peft import PeftModel

        # Without it, a model that was trained under autocast would be evaluated under it, but not when loaded again.
        model = extract_model_from_parallel(model, keep_fp32_wrapper=False)
        check_finite(model)
        fault("step.before-save")
        if isinstance(model, PeftModel):
            model.save_pretrained(str(self.staged))
            merged = model.merge_and_unload()
            self.result, self.model = {"kind": "adapter"}, merged
        else:
            model = model.to(self.dtype)
            model.save_pretrained(self.staged)
            tokenizer.save_pretrained(self.staged)
            self.result, self.model = {"kind": "full"}, model

    def finish_directory(self) -> None:
        """Take what was written to `self.staged` as a full model; it is loaded (and so checked) before it is published."""
        reference: ModelReference = {"id": "result", "weights": str(self.staged.absolute()), "adapters": []}
        model = load_model(self.store, reference, self.dtype, self.device)
        check_finite(model)
        self.result, self.model = {"kind": "full"}, model


class MetricsCallback(TrainerCallback):
    """Writes metrics.jsonl from the trainer's log and refuses to go on from a value that is not finite."""

    def __init__(self, step: StepContext) -> None:
        self.step = step
        self.began = time.monotonic()
        self.at_begin = 0

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.began = time.monotonic()
        self.step.metric(phase="train", step=0, max_steps=state.max_steps)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
        logs = logs or {}
        if "loss" not in logs:
            return
        elapsed = max(time.monotonic() - self.began, 1e-9)
        tokens = logs.get("num_tokens")
        values = {
            "phase": "train",
            "step": state.global_step,
            "max_steps": state.max_steps,
            "loss": float(logs["loss"]),
            "grad_norm": float(logs.get("grad_norm", 0.0)),
            "learning_rate": float(logs.get("learning_rate", 0.0)),
            "tokens_per_second": round(tokens / elapsed, 1) if tokens else None,
        }
        values |= {
            key.removeprefix("rewards/"): float(logs[key]) for key in ("rewards/accuracies", "rewards/margins") if key in logs
        }
        self.step.metric(**values)
        self.step.say(
            f"step {state.global_step}/{state.max_steps}  loss {values['loss']:.4f}  "
            f"grad norm {values['grad_norm']:.3f}  {elapsed:.1f} s"
        )
        fault("step.train-step")
        if not math.isfinite(values["loss"]) or not math.isfinite(values["grad_norm"]):
            raise StepError("nan", f"loss {values['loss']}, gradient norm {values['grad_norm']} at step {state.global_step}")


def check_finite(model: Any) -> None:
    """Raises StepError(nan) when a weight is NaN or infinite: such a model is never published."""
    for name, tensor in model.named_parameters():
        if not torch.isfinite(tensor.detach().sum(dtype=torch.float32)):
            raise StepError("nan", f"the weight {name} is not finite")


def load_tokenizer(store: Store, reference: ModelReference) -> Tokenizer:
    """The tokenizer beside a model's full weights."""
    path = store.resolve(reference["weights"])
    tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=True, trust_remote_code=False)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_model(store: Store, reference: ModelReference, dtype: torch.dtype, device: torch.device) -> Model:
    """Full weights with each adapter merged in, in order. Raises FileNotFoundError for what is not in the store."""
    from peft import PeftModel

    path = store.resolve(reference["weights"])
    model: Model = AutoModelForCausalLM.from_pretrained(
        path, dtype=dtype, local_files_only=True, trust_remote_code=False, use_safetensors=True
    )
    adapters: Sequence[str] = reference["adapters"]
    for adapter in adapters:
        model = PeftModel.from_pretrained(model, store.resolve(adapter)).merge_and_unload()
    return model.to(device)
