"""Supervised fine-tuning: the model learns to give the answers of a dataset (TRL's SFTTrainer, adapters by PEFT).

Only the answer's tokens count for the loss. An adapter stands on the parent's merged weights and is stored alone; `full`
trains and stores every weight, which is what tiny models want.

`replay` mixes in rows of another dataset, so that what the model could do before is trained on too (experience replay:
Rolnick et al. 2018, arXiv 1811.11682). `order` short first is a curriculum by length (Bengio et al. 2009). NEFTune adds
noise to the embeddings (Jain et al. 2023, arXiv 2310.05914).

`data_fraction` below 1 is a cheap look at what the whole would give: a share of the rows, in the same share of the steps.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lamdatui import costs
from lamdatui.actions import (
    HOLDOUT_PARAMS,
    LENGTH_PARAMS,
    TRAINING_PARAMS,
    ActionType,
    Call,
    Estimate,
    Param,
    Plan,
    Slot,
    adapter_problems,
)

if TYPE_CHECKING:
    from lamdatui.step.context import StepContext

Row = dict[str, Any]
PACKED = 4
"""With `packing` and no `max_length`, a packed sequence has room for this many of the longest row."""
ORDERS = ("shuffled", "as_given", "short_first")


class Sft(ActionType):
    name = "sft"
    version = 2
    summary = "fine-tune a model on a dataset of prompts and answers"
    family = "supervised"
    source = "TRL SFTTrainer; instruction tuning: Wei et al. 2021, arXiv 2109.01652; LoRA: Hu et al. 2021, arXiv 2106.09685"
    slots = (
        Slot("model", "model", "the model to train"),
        Slot("dataset", "dataset", "prompts and answers, or plain text", formats=("sft", "text")),
        Slot("replay", "dataset", "rows of what the model must not forget", formats=("sft", "text"), least=0),
    )
    params = (
        Param("learning_rate", "float", 2e-4, "peak learning rate", (1e-4, 2e-4, 5e-4), low=1e-8, high=1.0),
        Param("max_steps", "int", 60, "optimiser steps", (30, 60), low=1, high=1_000_000, unit="steps"),
        Param("batch_size", "int", 8, "rows (packed: sequences) in one optimiser step", low=1, high=4096, unit="rows"),
        *TRAINING_PARAMS,
        *HOLDOUT_PARAMS,
        Param("max_length", "int", 1024, "longer rows are cut; 0: none is", low=0, high=1_048_576, unit="tokens"),
        Param("warmup_ratio", "float", 0.05, "share of the steps in which the learning rate rises", low=0.0, high=1.0),
        Param("weight_decay", "float", 0.0, "AdamW's weight decay", low=0.0, high=1.0),
        # A grid, so that a search offers steps without replay (0) and with it; `check` refuses the other combinations.
        Param("replay_fraction", "float", 0.0, "share of the rows that come from replay", (0.0, 0.25), low=0.0, high=0.9),
        Param("order", "str", "shuffled", "order of the rows; short_first: by tokens", allowed=ORDERS),
        Param("packing", "bool", False, "put several rows into one sequence; they do not see each other"),
        Param("neftune_alpha", "float", 0.0, "noise on the embeddings (NEFTune; usual: 5); 0: none", low=0.0, high=100.0),
        Param(
            "data_fraction",
            "float",
            1.0,
            "share of the dataset's rows that is used, and of the steps with them: a cheap look at what the whole would give",
            low=0.01,
            high=1.0,
        ),
        *LENGTH_PARAMS,
    )

    def check(self, call: Call) -> list[str]:
        found = adapter_problems(call)
        kept, fraction = call.datasets.get("replay", ()), call.params["replay_fraction"]
        if not kept and fraction:
            found.append("replay_fraction needs a replay dataset; choose one, or set it to 0")
        if kept and not fraction:
            found.append("a replay dataset needs a replay_fraction above 0, else none of its rows is used")
        if kept and kept[0].digest == call.dataset("dataset").digest:
            found.append("replay is the dataset itself; choose another one")
        if call.params["packing"] and call.params["epochs"]:
            found.append(
                "how many rows a packed sequence holds is not known before; give max_steps or minutes in place of epochs"
            )
        if call.params["packing"] and call.params["order"] != "shuffled":
            found.append("packing puts rows together by their length, so it keeps no order; set order to shuffled")
        return found

    def estimate(self, call: Call) -> Estimate:
        p = call.params
        rows = steps_of(p) * int(p["batch_size"])
        if not p["packing"]:
            return costs.training(call, rows=rows)
        data = call.dataset("dataset")
        longest = 2 * PACKED * (data.chars / costs.CHARS_PER_TOKEN or costs.PROMPT_TOKENS)
        length = float(p["max_length"]) or longest
        return costs.training(call, rows=rows, tokens=length, longest=length)

    def plans(self, call: Call) -> list[Plan]:
        size = int(call.params["batch_size"])
        if call.params["packing"]:
            return [Plan(1, size, again) for again in (False, True)]
        return costs.plans(call, size, tokens=costs.row_tokens(call))

    def epoch_rows(self, call: Call) -> float:
        # What `data_fraction` leaves out, it takes off the steps.
        return call.dataset("dataset").rows / (1 - float(call.params["replay_fraction"]))

    def run(self, step: StepContext) -> None:
        from trl.trainer.sft_config import SFTConfig
        from trl.trainer.sft_trainer import SFTTrainer

        p, steps = step.params, steps_of(step.params)
        full = p["method"] == "full"
        tokenizer = step.load_tokenizer("model")
        rows = training_rows(step, tokenizer)
        data = step.encoded(tokenizer, rows)
        longest = step.sequence_length(data, tokenizer, 0)
        length = p["max_length"] or (PACKED * longest if p["packing"] else longest)
        if longest > length:
            step.say(f"the longest row has about {longest} tokens; rows are cut at {length}")
        model = step.load_for_training("model", p["method"])
        layout = step.layout(p["batch_size"])
        looks = step.looks(steps, layout["per_device_train_batch_size"])
        arguments: dict[str, Any] = {**step.trainer_arguments(full=full), **layout, **looks}
        data, held = step.held_out(data)
        if p["packing"]:
            require_separate_rows(model, data)
            # TRL joins the packed sequences of a micro-batch to one: without flash attention, its cost and its mask grow with
            # the square of that.
            arguments |= {"per_device_train_batch_size": 1, "gradient_accumulation_steps": p["batch_size"]}
        config = SFTConfig(
            **arguments,
            learning_rate=p["learning_rate"],
            max_steps=steps,
            max_length=length if p["packing"] else min(longest, length),
            packing=p["packing"],
            packing_strategy="bfd",
            train_sampling_strategy="random" if p["order"] == "shuffled" else "sequential",
            warmup_steps=int(p["warmup_ratio"] * steps),
            weight_decay=p["weight_decay"],
            neftune_noise_alpha=p["neftune_alpha"] or None,
            lr_scheduler_type="cosine",
            completion_only_loss=True,
        )
        trainer: Any = SFTTrainer(
            model=model,
            args=config,
            train_dataset=data,
            **held,
            processing_class=tokenizer,
            peft_config=step.adapter(p["method"], p["lora_rank"]),
        )
        if not p["packing"]:
            step.say_left(len(trainer.train_dataset), len(data), config.max_length or length)
        require_rows(trainer, length)
        step.train(trainer)
        step.finish_training(trainer.model, tokenizer)


def steps_of(params: Mapping[str, Any]) -> int:
    """Optimiser steps: `max_steps`, or the share of them that goes with the share of the rows."""
    return max(1, round(int(params["max_steps"]) * float(params["data_fraction"])))


def training_rows(step: StepContext, tokenizer: Any) -> list[Row]:
    """The rows of one pass in the order `order` asks for, with the replayed ones evenly among them.

    No more than the step will see: of a larger dataset a random choice, or its beginning when the order is as given. So
    short_first covers all lengths, instead of the shortest rows only.
    """
    p = step.params
    draw = random.Random(step.seed)
    given, fraction = step.rows("dataset"), p["replay_fraction"]
    places: Sequence[int] = range(len(given))
    if p["data_fraction"] < 1:
        places = sorted(draw.sample(places, max(1, round(len(places) * p["data_fraction"]))))
    total = steps_of(p) * p["batch_size"]
    seen = total - round(total * fraction)
    # How many rows packed sequences hold is known only when they are packed.
    if len(places) > max(1, seen) and not p["packing"]:
        places = places[: max(1, seen)] if p["order"] == "as_given" else draw.sample(places, max(1, seen))
    rows = [given[place] for place in places]
    if step.has("replay"):
        rows = mixed(rows, step.rows("replay"), fraction, draw)
    if p["order"] == "short_first":
        encoder = step.encoder(tokenizer)
        rows.sort(key=lambda row: len(encoder.encode(row).ids))
    return rows


def mixed(rows: list[Row], replay: Sequence[Row], fraction: float, draw: random.Random) -> list[Row]:
    """`rows` in their order with random rows of `replay` evenly among them, which are `fraction` of the result."""
    count = max(1, round(len(rows) * fraction / (1 - fraction)))
    places: list[int] = []
    while len(places) < count:
        places += draw.sample(range(len(replay)), len(replay))
    extra = [replay[place] for place in places[:count]]
    found, used = [], 0
    for number, row in enumerate(rows, 1):
        due = count * number // len(rows)
        found += [row, *extra[used:due]]
        used = due
    return found


def require_separate_rows(model: Any, data: Any) -> None:
    """See that packed rows do not see each other in this model: position ids that begin again are the only sign of it.

    Attention layers of transformers keep to them, also without flash attention; layers with a running state may not.
    Compares the logits of a short row alone, packed after another one, and simply joined to it. Raises StepError(data).
    """
    import torch

    from lamdatui.step.context import StepError

    first, second = (list(data[place]["input_ids"])[:64] for place in (0, len(data) - 1))

    def logits(ids: list[int], positions: list[int]) -> Any:
        inputs = (torch.tensor([values], device=model.device) for values in (ids, positions))
        output = model(**dict(zip(("input_ids", "position_ids"), inputs, strict=True)), use_cache=False)
        return output.logits[0, -len(second) :].float()

    training = model.training
    model.eval()
    with torch.no_grad():
        alone = logits(second, [*range(len(second))])
        packed = logits(first + second, [*range(len(first)), *range(len(second))])
        joined = logits(first + second, [*range(len(first) + len(second))])
    model.train(training)
    if float((packed - alone).abs().mean()) > 0.25 * float((joined - alone).abs().mean()):
        raise StepError("data", "packed rows would see each other in this model; train it without packing")


def require_rows(trainer: Any, length: int) -> None:
    """Raises StepError(data) when cutting at `length` tokens left no row with an answer."""
    from lamdatui.step.context import StepError

    if len(trainer.train_dataset) == 0:
        raise StepError("data", f"no row has its answer within {length} tokens; raise max_length")


ACTION = Sft()
