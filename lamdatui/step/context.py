"""What an action's `run` works with: its models, its data, its place for results, and where to report.

What stands on torch is imported where it is used: a step that works on data alone begins without it.
"""

from __future__ import annotations

import json
import math
import random
import time
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from lamdatui.actionkit.costs import BATCH_TOKENS, CHECKPOINT_SECONDS, HELD_OUT_LOOKS
from lamdatui.base.faults import fault
from lamdatui.base.jsonio import read_record, write_json
from lamdatui.domain.plans import plan_from_json
from lamdatui.domain.schemes import ASKED, SCHEME
from lamdatui.inputs.datafiles import asked, read_noted, read_task_rows, said
from lamdatui.step import stop
from lamdatui.step.errors import DryRun, StepError, Stopped
from lamdatui.step.files import BUSY, CONFIG, DATA, FOLDERS, METRICS, ROWS
from lamdatui.step.newdata import write_dataset
from lamdatui.step.plain import to_plain
from lamdatui.step.promises import naming, weights_directory
from lamdatui.step.request import ModelReference
from lamdatui.store.artifacts import MANIFEST, REFERENCE, Store
from lamdatui.store.checkpoints import Checkpoints, Keeps
from lamdatui.tasks.scorers import score
from lamdatui.tasks.thinking import without_thinking

if TYPE_CHECKING:
    import torch
    from datasets import Dataset

    from lamdatui.step.encoding import Encoder
    from lamdatui.step.generate import Conversation
    from lamdatui.step.generators import Generator
    from lamdatui.step.models import Model, Tokenizer

SMALL = 4
"""After an attempt that ran out of memory, micro-batches and generation batches are this many times smaller."""


class StepContext:
    """One step. `request` is the content of action.json (see `lamdatui.step.request.StepRequest`)."""

    def __init__(self, directory: Path, request: dict[str, Any], staged: Path, *, dry_run: bool = False) -> None:
        self.dry_run = dry_run
        self.phase = "train"
        """What an allocation that fails now was for: train, eval, save or merge."""
        self.directory = directory
        self.request = request
        self.staged = staged
        self.params: dict[str, Any] = (request["action"] or {}).get("params", {})
        self.seed: int = (request["action"] or {}).get("seed", 0)
        self.store = Store(Path(request["store"]), always=request["always"])
        self.resumed, self.ended_early = 0, False
        """The optimiser step that training went on from; whether held-out rows ended it before its last."""
        self.result: dict[str, Any] | None = None
        self.model: Model | None = None
        self.peaks: dict[str, int] = {}
        """Of memory, before a judge was loaded."""
        self._generators: dict[str, Generator] = {}
        self._folders: dict[str, str] = {}
        self._began = time.monotonic()

    @property
    def device(self) -> torch.device:
        """Where the step works."""
        import torch

        return torch.device(self.request["device"])

    @property
    def dtype(self) -> torch.dtype:
        """Of weights that are not trained."""
        import torch

        return getattr(torch, self.request["dtype"])

    # --- reporting -----------------------------------------------------------------------------------------------

    def say(self, text: str) -> None:
        """A line in the step's log, with its time (UTC)."""
        print(f"{time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())} {text}", flush=True)

    def metric(self, **values: Any) -> None:
        """One record in metrics.jsonl; a value that is not finite is written as null. Raises Stopped as `stop.check` does."""
        stop.check()
        clean = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in values.items()}
        clean["seconds"] = round(time.monotonic() - self._began, 3)
        with (self.directory / METRICS).open("a", encoding="utf-8") as handle:
            handle.write(json.dumps(clean) + "\n")

    def configured(self, title: str, config: Mapping[str, Any]) -> None:
        """Say exactly what will run: config.json in the step's directory. A dry run prints it and ends here (DryRun)."""
        found = {"runs": title, **to_plain(config)}
        write_json(self.directory / CONFIG, found)
        if self.dry_run:
            write_json(self.directory / FOLDERS, self._folders)
            print(yaml.safe_dump(found, sort_keys=False, allow_unicode=True, width=100), flush=True)
            raise DryRun(title)

    # --- inputs --------------------------------------------------------------------------------------------------

    def has(self, slot: str) -> bool:
        """Whether an optional slot was filled."""
        return bool(self.request["models"].get(slot) or self.request["datasets"].get(slot))

    def load_tokenizer(self, slot: str = "model") -> Tokenizer:
        """The tokenizer of a slot's (first) model, with a padding token."""
        from lamdatui.step.models import load_tokenizer

        return load_tokenizer(self.store, self.request["models"][slot][0])

    def positions(self, slot: str) -> int:
        """Tokens that the slot's (first) model has positions for; very many where it does not say."""
        from lamdatui.step.models import positions

        return positions(self.store, self.request["models"][slot][0])

    def load_model(self, slot: str = "model", *, full: bool = False) -> Model:
        """The slot's (first) model on the step's device, its adapters merged in: plain weights, ready to train.

        `full` says that every weight will be trained: then they are float32 whatever the step's dtype, because small
        updates are lost in bfloat16.
        """
        import torch

        from lamdatui.step.models import load_model

        dtype = torch.float32 if full else self.dtype
        return load_model(self.store, self.request["models"][slot][0], dtype, self.device)

    def model_directories(self, slot: str) -> list[Path]:
        """A Hugging Face directory of full weights for each model of a slot, as merges need them (absolute paths)."""
        import torch

        from lamdatui.step.models import load_model, load_tokenizer, save_tokenizer

        found = []
        for index, reference in enumerate(self.request["models"][slot]):
            target = weights_directory(self.store, reference)
            if reference["adapters"] or reference.get("template"):
                target = self.staged.parent / f"{self.staged.name}-{slot}-{index}"
                self.say(f"writing the full weights of {reference['id']}")
                load_model(self.store, reference, self.dtype, torch.device("cpu")).save_pretrained(str(target))
                save_tokenizer(load_tokenizer(self.store, reference), target)
            found.append(target.absolute())
            self._folders[str(found[-1])] = reference["id"]
        return found

    def load_for_training(self, slot: str, method: str) -> Model:
        """The slot's model as a `method` wants it: `full` in float32, `qlora` in 4 bits, else frozen in the step's dtype."""
        if method != "qlora":
            return self.load_model(slot, full=method == "full")
        from lamdatui.step.models import load_quantized

        # 4-bit weights can't take adapters in: a parent with adapters is written out in full first.
        return load_quantized(self.model_directories(slot)[0], self.dtype, self.device)

    def adapter(self, method: str, rank: int) -> Any:
        """PEFT's LoraConfig on all linear layers for a `method` of `lamdatui.domain.actions.METHODS`; None for `full`."""
        if method == "full":
            return None
        from peft import LoraConfig

        return LoraConfig(
            r=rank,
            lora_alpha=2 * rank,
            target_modules="all-linear",
            task_type="CAUSAL_LM",
            use_dora=method == "dora",
            use_rslora=method == "rslora",
        )

    def rows(self, slot: str = "dataset", index: int = 0) -> Sequence[dict[str, Any]]:
        """The normalised rows of a slot's dataset (see `lamdatui.inputs.datafiles.normalise`). Raises Changed, DamagedObject."""
        data = self.request["datasets"][slot][index]
        path = self.store.resolve(data["path"])
        if data["path"].startswith(REFERENCE):
            return read_noted(path / DATA).rows
        with naming(f"the dataset {data['id']}"):
            found = read_noted(path, data["digest"], columns=dict(data.get("columns", ())))
        for note in found.info.notes:
            self.say(f"dataset {data['id']}: {note}")
        return found.rows

    def encoder(self, tokenizer: Tokenizer) -> Encoder:
        """A tokenizer with its chat template."""
        from lamdatui.step.encoding import Encoder

        return Encoder(tokenizer, older=self.is_older)

    @property
    def is_older(self) -> bool:
        """Whether the work is on record under a scheme before `ASKED`: then it is done as it was done then."""
        return (self.request["action"] or {}).get("scheme", SCHEME) < ASKED

    def encoded(self, tokenizer: Tokenizer, rows: Sequence[Mapping[str, Any]]) -> Dataset:
        """Rows as token ids for TRL's SFTTrainer and `lamdatui.step.trainers`: see `lamdatui.step.encoding.encoded`."""
        from lamdatui.step.encoding import encoded

        return encoded(self.encoder(tokenizer), rows)

    def load_dataset(self, slot: str = "dataset", index: int = 0) -> Dataset:
        """The slot's rows as conversations: columns `prompt`+`completion`, `prompt`+`chosen`+`rejected`, `prompt`+`completion`+`label`,
        `prompt` or `prompt`+`scorer`+`reference` (the reference as JSON text); `tools` as JSON text, as TRL reads it; or `text`."""
        from datasets import Dataset

        from lamdatui.step.encoding import reference_text

        rows = [dict(row) for row in self.rows(slot, index)]
        for row in rows:
            if "scorer" in row:
                row["reference"] = reference_text(row)
            if "tools" in row:
                row["tools"] = json.dumps(row["tools"], ensure_ascii=False)
        return Dataset.from_list(rows, on_mixed_types="use_json")

    def task_prompts(self) -> list[str]:
        """The text of every row of the run's tasks, search and sealed: only to keep it out of data."""
        found = []
        for task in self.request["tasks"]:
            with naming("a task's file"):
                rows = read_task_rows(Path(task["path"]), task["digest"])
            found += [said(asked(row)["prompt"]) for row in rows]
        return found

    # --- answers -------------------------------------------------------------------------------------------------

    def sample(
        self,
        model: Model | str,
        tokenizer: Tokenizer,
        conversations: Sequence[Conversation],
        *,
        samples: int = 1,
        max_new_tokens: int,
        temperature: float = 0.0,
        top_p: float = 1.0,
    ) -> list[list[str]]:
        """`samples` answers to each conversation (n, samples); temperature 0 is greedy. Seeded by the action's seed.

        `model`: the name of a slot, whose model the run's generator asks (declare `samples` then), or a model in this process.
        """
        from lamdatui.step.generate import Sampling
        from lamdatui.step.generators import TransformersGenerator

        self.phase = "eval"

        def progress(done: int) -> None:
            self.metric(phase="generate", done=done, total=len(conversations) * samples)

        asked = (
            self._generators.get(model)
            if isinstance(model, str)
            else TransformersGenerator(model, tokenizer, self.batch_tokens)
        )
        if asked is None:
            asked = self._generators[model] = self.generator(self.request["models"][model][0], tokenizer)
        how = Sampling(max_new_tokens, samples, temperature, top_p, self.seed)
        given = asked.answers(conversations, how, progress=progress, own=self.is_older)
        return [[answer.text for answer in each] for each in given]

    def generator(self, reference: ModelReference, tokenizer: Tokenizer, model: Model | None = None) -> Generator:
        """What answers for a model, with the run's generator; `model`: the same, where it is loaded."""
        from lamdatui.step.generators import generator_for

        return generator_for(self, reference, tokenizer, model)

    def close(self) -> None:
        """End what was started for answers."""
        for each in self._generators.values():
            each.close()
        self._generators.clear()

    @property
    def batch_tokens(self) -> int:
        """Prompt and answer tokens of one generation batch."""
        return BATCH_TOKENS // (SMALL if self.request["small"] else 1)

    def verify(self, scorer: str, reference: Any, completion: str, asked: str = "") -> float:
        """The score in [0, 1] of an answer to a verifiable row, without what the model thought before it; `asked`: the prompt as text.

        `load_dataset` gives the reference as JSON text: decode it.
        """
        said = completion if self.is_older else without_thinking(completion, asked)
        return score(scorer, reference, said, older=self.is_older)

    # --- training ------------------------------------------------------------------------------------------------

    def trainer_arguments(self, *, full: bool = False) -> dict[str, Any]:
        """Arguments that every TRL config of a step shares; hyperparameters are the action's own business.

        With `full`, float32 weights are computed with in bfloat16 where the step's dtype says so and a GPU is there.
        """
        import torch

        from lamdatui.step.training import OPTIMIZERS

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
            **OPTIMIZERS.get(self.params.get("optimizer", "adamw"), {}),
        }

    def batch(self, size: int) -> dict[str, Any]:
        """TRL's arguments for an effective batch of `size` rows; after an out-of-memory, in smaller micro-batches."""
        micro = size
        if self.request["small"]:
            micro = next(count for count in range(max(1, size // SMALL), 0, -1) if size % count == 0)
        return {"per_device_train_batch_size": micro, "gradient_accumulation_steps": size // micro}

    def layout(self, size: int) -> dict[str, Any]:
        """`batch`, with activation checkpointing, as the step's plan has it (`ActionType.plans`); without a plan all rows at once."""
        plan = plan_from_json(self.request.get("plan"))
        if self.newest_checkpoint is not None and not self.request["small"]:
            # What was free when it began counts, or rounding would differ from there on.
            plan = plan_from_json(read_record(self.newest_checkpoint / MANIFEST).get("plan"))
        self.request["plan"] = self.checkpoints.plan = plan.to_json() if plan else None
        if plan is None or plan.micro_batch * plan.accumulation != size:
            return {**self.batch(size), "gradient_checkpointing": bool(self.request["small"])}
        self.say(f"in memory: {plan.describe()}")
        return {
            "per_device_train_batch_size": plan.micro_batch,
            "gradient_accumulation_steps": plan.accumulation,
            "gradient_checkpointing": plan.checkpointing,
        }

    def held_out(self, data: Dataset) -> tuple[Dataset, dict[str, Any]]:
        """Rows to train on, and the trainer's `eval_dataset` where `holdout` keeps some from it. Raises StepError(data) for too few."""
        share = float(self.params.get("holdout", 0))
        if not share:
            return data, {}
        count = max(1, round(share * len(data)))
        if count >= len(data):
            raise StepError("data", f"of {len(data)} rows none can be held out; set holdout to 0")
        out = set(random.Random(self.seed).sample(range(len(data)), count))
        self.say(f"{count:,} of {len(data):,} rows are held out")
        # The others in their order: it may be what was asked for.
        return data.select([at for at in range(len(data)) if at not in out]), {"eval_dataset": data.select(sorted(out))}

    def looks(self, steps: int, size: int) -> dict[str, Any]:
        """TRL's arguments for looking at the rows that `held_out` keeps from a training of so many steps, `size` at once."""
        if not self.params.get("holdout", 0):
            return {}
        often = max(1, steps // HELD_OUT_LOOKS)
        return {"eval_strategy": "steps", "eval_steps": often, "per_device_eval_batch_size": size, "prediction_loss_only": True}

    def sampled(self, size: int, least: int) -> int:
        """How many of `size` answers are sampled at once: all of them, or `least` after an out-of-memory or where the plan has fewer."""
        plan = plan_from_json(self.request.get("plan"))
        fewer = self.request["small"] if plan is None else 0 < plan.sampled < size
        return least if fewer else size

    @staticmethod
    def sequence_length(dataset: Dataset, tokenizer: Tokenizer, limit: int = 0) -> int:
        """Tokens of the longest row of `encoded` or `load_dataset`, rounded up to 8; at most `limit` when that is positive.

        For pairs it is the longer of the two answers that counts.
        """
        from lamdatui.step.encoding import longest_row

        most = -(-(longest_row(dataset, tokenizer) + 1) // 8) * 8
        return min(most, limit) if limit > 0 else most

    def say_left(self, kept: int, given: int, length: int) -> None:
        """Say how many rows have an answer left when they are cut at `length` tokens, where some have none."""
        if kept < given:
            self.say(
                f"{kept:,} of {given:,} rows have an answer left at {length:,} tokens; the others are left out: raise max_length"
            )

    def train(self, trainer: Any, *held: Keeps) -> None:
        """Train a transformers trainer with the step's own reports in place of its prints.

        Each logged step goes to the log and to metrics.jsonl; a loss or a gradient norm that is not finite ends it. It goes on from the newest
        checkpoint of this work; `held`: what beside the trainer has a state from step to step, one of a class.
        """
        from transformers import PrinterCallback

        from lamdatui.step.checkpoints import CheckpointCallback, names
        from lamdatui.step.earlystop import EarlyStop
        from lamdatui.step.generate import neutral
        from lamdatui.step.probe import Probe, is_probed
        from lamdatui.step.training import MetricsCallback, bound_tiles, trainer_configuration

        config = {"arguments": trainer_configuration(trainer.args), "rows": len(trainer.train_dataset)}
        if peft := getattr(trainer.model, "peft_config", None):
            config["adapter"] = next(iter(peft.values())).to_dict()
        if self.dry_run:
            trainer.train_dataset.to_json(self.directory / ROWS)
        self.phase = "train"
        if self.device.type == "cpu":
            config["tile_tokens"] = bound_tiles(trainer.model.config.get_text_config().vocab_size)
        self.configured(type(trainer).__name__, config)
        trainer.remove_callback(PrinterCallback)
        checkpoints, newest = self.checkpoints, self.newest_checkpoint
        early = None
        if trainer.eval_dataset is not None and self.params.get("holdout", 0):
            early = EarlyStop(checkpoints.folder, int(self.params["patience"]), self.say, self.metric)
            trainer.add_callback(early)
        if newest is None and is_probed(self.request):
            trainer.add_callback(Probe(trainer, str(self.params.get("optimizer", "adamw")), self.say))
        checkpoints.held = names([*held, *([early] if early else [])])
        saving = CheckpointCallback(checkpoints, Stopped, self.directory / BUSY)
        saving.remember(trainer.model)
        self.resumed = 0 if newest is None else int(newest.name)
        trainer.add_callback(MetricsCallback(self, self.resumed))
        trainer.add_callback(saving)
        if newest is not None:
            self.say(f"going on from the checkpoint of step {newest.name}")
            checkpoints.restore(newest)
        with neutral(trainer.model, own=self.is_older), stop.deferred():
            trainer.train(resume_from_checkpoint=None if newest is None else str(newest))
        if early is not None:
            early.finish(trainer.model)
            self.ended_early = trainer.state.global_step < trainer.state.max_steps

    @cached_property
    def checkpoints(self) -> Checkpoints:
        """Those of this step's work."""
        seconds = 60 * float(self.request.get("checkpoint_minutes", CHECKPOINT_SECONDS / 60))
        return Checkpoints(self.store.root, self.request["digest"], seconds, self.say, stop.asked)

    @cached_property
    def newest_checkpoint(self) -> Path | None:
        """What this attempt goes on from; None where it begins."""
        return None if self.dry_run else self.checkpoints.newest()

    # --- results -------------------------------------------------------------------------------------------------

    def finish_training(self, model: Model, tokenizer: Tokenizer) -> None:
        """Take a trained model: a PEFT model is stored as its adapter, another one as full weights."""
        from accelerate.utils.other import extract_model_from_parallel
        from peft import PeftModel

        from lamdatui.step.models import check_finite, save_tokenizer

        # Without it, a model that was trained under autocast would be evaluated under it, but not when loaded again.
        model = extract_model_from_parallel(model, keep_fp32_wrapper=False)
        check_finite(model)
        fault("step.before-save")
        self.phase = "save"
        if isinstance(model, PeftModel):
            model.save_pretrained(str(self.staged))
            self.result = {"kind": "adapter"}
        else:
            model.to(self.dtype).save_pretrained(self.staged)
            save_tokenizer(tokenizer, self.staged)
            self.result = {"kind": "full"}
        # What is scored is what others will load: the model is read again from what was stored.
        self.model = None

    def finish_adapter(self, replaces: int = 1) -> None:
        """Take a LoRA adapter that was written to `self.staged`.

        It stands on the first parent's weights without the last `replaces` of the parent's adapters.
        """
        from safetensors.torch import load_file

        from lamdatui.step.models import check_tensors

        check_tensors(load_file(self.staged / "adapter_model.safetensors").items())
        self.result, self.model = {"kind": "adapter", "replaces": replaces}, None

    def finish_dataset(self, rows: list[dict[str, Any]], form: str, provenance: Mapping[str, Any]) -> None:
        """Take a new dataset of normalised rows. Raises StepError(data) when there are none or one is malformed."""
        self.result = write_dataset(self, rows, form, provenance)

    def finish_directory(self) -> None:
        """Take what was written to `self.staged` as a full model; it is loaded (and so checked) before it is published."""
        from lamdatui.step.models import check_finite, load_model

        reference: ModelReference = {"id": "result", "weights": str(self.staged.absolute()), "adapters": [], "digest": ""}
        model = load_model(self.store, reference, self.dtype, self.device)
        check_finite(model)
        self.result, self.model = {"kind": "full"}, model
