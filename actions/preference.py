"""Preference learning: the model learns which answers are wanted, from pairs or from single judged answers (TRL).

`dpo` compares a better with a worse answer, relative to a frozen reference, in any of TRL's pairwise losses. `kto` needs no
pairs. `orpo` and `simpo` need no reference model. The reference is the parent itself: with an adapter, the same weights
with the adapter switched off; with `full`, a frozen copy.

Without a term for the chosen answer's own likelihood it can become less likely too (Pang et al. 2024, arXiv 2404.19733):
`sft_weight` of `dpo` and `simpo` adds it; ORPO has it built in.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
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
from lamdatui.datafiles import question_parts

if TYPE_CHECKING:
    from datasets import Dataset

    from lamdatui.step.context import StepContext

Row = dict[str, Any]
MODEL = Slot("model", "model", "the model to train; best one that can already do the task")
PAIRS = Slot("dataset", "dataset", "prompts with a chosen and a rejected answer", formats=("preference",))
MAX_STEPS = Param("max_steps", "int", 30, "optimiser steps", low=1, high=1_000_000, unit="steps")
PAIR_BATCH = Param("batch_size", "int", 8, "pairs in one optimiser step", low=1, high=4096, unit="pairs")
COMMON = (
    *TRAINING_PARAMS,
    Param("max_length", "int", 1024, "longer rows are cut; 0: none is", low=0, high=1_048_576, unit="tokens"),
    Param("warmup_ratio", "float", 0.1, "share of the steps in which the learning rate rises", low=0.0, high=1.0),
    *LENGTH_PARAMS,
)
MOST_ROWS = 65_536
"""Rows that KTO lays out in advance when its dataset has fewer, which the trainer repeats; of more rows, so many random ones are taken."""

# The losses of TRL's DPOTrainer that compare the answers of a pair: loss → its label smoothing when that is left at 0.
# Not offered: `sft`, which is no preference loss (it is `sft_weight`). Two are not all of their papers, but need no more
# than pairs: `bco_pair` has no reward shift, `sppo_hard` takes the chosen answer to win for sure.
LOSSES = {
    "sigmoid": 0.0,  # DPO: Rafailov et al. 2023, arXiv 2305.18290
    "sigmoid_norm": 0.0,  # DPO with log-ratios averaged over tokens: as in Tülu 3, Lambert et al. 2024, arXiv 2411.15124
    "hinge": 0.0,  # SLiC: Zhao et al. 2023, arXiv 2305.10425
    "ipo": 0.0,  # IPO: Azar et al. 2023, arXiv 2310.12036
    "robust": 0.1,  # robust DPO: Chowdhury et al. 2024, arXiv 2403.00409
    "exo_pair": 1e-3,  # EXO: Ji et al. 2024, arXiv 2402.00856
    "nca_pair": 0.0,  # NCA: Chen et al. 2024, arXiv 2402.05369
    "bco_pair": 0.0,  # BCO: Jung et al. 2024, arXiv 2404.04656
    "sppo_hard": 0.0,  # SPPO: Wu et al. 2024, arXiv 2405.00675
    "aot": 0.0,  # AOT: Melnyk et al. 2024, arXiv 2406.05882
    "aot_unpaired": 0.0,
    "apo_zero": 0.0,  # APO: D'Oosterlinck et al. 2024, arXiv 2408.06266
    "apo_down": 0.0,
    "discopop": 0.0,  # DiscoPOP: Lu et al. 2024, arXiv 2406.08414
}
SMOOTHED = ("robust", "exo_pair", "aot", "aot_unpaired")
"""TRL ignores label smoothing in the other losses."""
SORTED = ("aot", "aot_unpaired")
"""These compare the sorted log-ratios of a batch."""


class Dpo(ActionType):
    name = "dpo"
    version = 2
    summary = "preference learning on pairs of a better and a worse answer"
    family = "preference"
    source = "TRL DPOTrainer; DPO: Rafailov et al. 2023, arXiv 2305.18290; SFT term: Pang et al. 2024, arXiv 2404.19733"
    slots = (MODEL, PAIRS)
    params = (
        Param("learning_rate", "float", 5e-5, "peak learning rate", (2e-5, 5e-5, 1e-4), low=1e-9, high=1.0),
        MAX_STEPS,
        PAIR_BATCH,
        Param("beta", "float", 0.1, "how strongly the model is held near its parent", (0.05, 0.1, 0.3), low=1e-4, high=10.0),
        # `ipo` and `sigmoid_norm` compare means over tokens: their beta is of another size, so no grid mixes them with these.
        Param(
            "loss",
            "str",
            "sigmoid",
            "sigmoid: DPO itself; the others: variants",
            ("sigmoid", "apo_zero"),
            allowed=tuple(LOSSES),
        ),
        Param("sft_weight", "float", 1.0, "weight of the loss on the chosen answer beside DPO's own", low=0.0, high=100.0),
        Param("label_smoothing", "float", 0.0, "share of wrong labels assumed; 0: the loss's own", low=0.0, high=0.49),
        *COMMON,
        *HOLDOUT_PARAMS,
    )

    def check(self, call: Call) -> list[str]:
        found, loss = adapter_problems(call), str(call.params["loss"])
        if call.params["label_smoothing"] and loss not in SMOOTHED:
            found.append(f"the loss {loss} has no label smoothing; set it to 0, or take {', '.join(SMOOTHED)}")
        if loss in SORTED and int(call.params["batch_size"]) < 2:
            found.append(f"the loss {loss} compares the pairs of a batch; batch_size is at least 2")
        return found

    def estimate(self, call: Call) -> Estimate:
        return _estimate(call, answers=2, forward=2.0, reference=True)

    def plans(self, call: Call) -> list[Plan]:
        return _plans(call, answers=2, together=2 if call.params["loss"] in SORTED else 1)

    def run(self, step: StepContext) -> None:
        from trl.trainer.dpo_config import DPOConfig

        from lamdatui.step import trainers

        p = step.params
        weight = p["sft_weight"]
        tokenizer, data, length = _pairs(step)
        config = DPOConfig(
            **_arguments(step, p["batch_size"]),
            max_length=length,
            beta=p["beta"],
            loss_type=[p["loss"], "sft"] if weight else [p["loss"]],
            loss_weights=[1.0, weight] if weight else None,
            label_smoothing=p["label_smoothing"] or LOSSES[p["loss"]],
        )
        if p["loss"] in SORTED:
            _require_together(step, config)
        data, held = step.held_out(data)
        trainer = trainers.dpo()(
            model=step.load_for_training("model", step.params["method"]),
            ref_model=_reference(step),
            args=config,
            train_dataset=data,
            **held,
            processing_class=tokenizer,
            peft_config=step.adapter(p["method"], p["lora_rank"]),
        )
        _train(step, trainer, tokenizer, length, len(data))


class Kto(ActionType):
    name = "kto"
    summary = "preference learning on single answers that are wanted or unwanted"
    family = "preference"
    source = "TRL KTOTrainer; KTO: Ethayarajh et al. 2024, arXiv 2402.01306"
    slots = (
        MODEL,
        Slot(
            "dataset",
            "dataset",
            "answers marked as wanted or unwanted; of a pair, chosen is wanted and rejected unwanted",
            formats=("unpaired", "preference"),
        ),
    )
    params = (
        Param("learning_rate", "float", 5e-5, "peak learning rate", (2e-5, 5e-5, 1e-4), low=1e-9, high=1.0),
        MAX_STEPS,
        Param("batch_size", "int", 16, "answers in one optimiser step", low=2, high=4096, unit="answers"),
        Param("beta", "float", 0.1, "how strongly the model is held near its parent", (0.05, 0.1, 0.3), low=1e-4, high=10.0),
        Param("desirable_weight", "float", 1.0, "weight of wanted answers", low=0.01, high=100.0),
        Param("undesirable_weight", "float", 1.0, "weight of unwanted answers", low=0.01, high=100.0),
        *COMMON,
    )

    def check(self, call: Call) -> list[str]:
        return adapter_problems(call)

    def estimate(self, call: Call) -> Estimate:
        # Beside the trained pass: the model on mismatched answers, and the reference on both.
        return _estimate(call, answers=1, forward=4.0, reference=True)

    def plans(self, call: Call) -> list[Plan]:
        return _plans(call, answers=1, together=2)

    def epoch_rows(self, call: Call) -> float:
        data = call.dataset("dataset")
        return data.rows * (2 if data.format == "preference" else 1)

    def run(self, step: StepContext) -> None:
        from trl.trainer.kto_config import KTOConfig

        from lamdatui.step import trainers

        p = step.params
        tokenizer = step.load_tokenizer("model")
        data = step.encoded(tokenizer, judged_rows(step))
        length = _length(step, data, tokenizer)
        config = KTOConfig(
            **_arguments(step, p["batch_size"]),
            max_length=length,
            beta=p["beta"],
            desirable_weight=p["desirable_weight"],
            undesirable_weight=p["undesirable_weight"],
            # A last batch of one answer would be its own estimate of the KL divergence.
            dataloader_drop_last=True,
        )
        _require_together(step, config)
        trainer = trainers.kto()(
            model=step.load_for_training("model", step.params["method"]),
            ref_model=_reference(step),
            args=config,
            train_dataset=data,
            processing_class=tokenizer,
            peft_config=step.adapter(p["method"], p["lora_rank"]),
        )
        _train(step, trainer, tokenizer, length, len(data), least=config.per_device_train_batch_size)


class Orpo(ActionType):
    name = "orpo"
    summary = "fine-tuning on chosen answers with a penalty on rejected ones, without a reference model"
    family = "preference"
    source = "TRL ORPOTrainer (experimental); ORPO: Hong et al. 2024, arXiv 2403.07691"
    slots = (Slot("model", "model", "the model to train; it may be a base that was not fine-tuned"), PAIRS)
    params = (
        Param("learning_rate", "float", 1e-4, "peak learning rate", (5e-5, 1e-4, 2e-4), low=1e-9, high=1.0),
        Param("max_steps", "int", 60, "optimiser steps", low=1, high=1_000_000, unit="steps"),
        PAIR_BATCH,
        Param("beta", "float", 0.1, "weight of the odds ratio beside fine-tuning", (0.1, 0.3), low=1e-4, high=10.0),
        *COMMON,
        *HOLDOUT_PARAMS,
    )

    def check(self, call: Call) -> list[str]:
        return adapter_problems(call)

    def estimate(self, call: Call) -> Estimate:
        return _estimate(call, answers=2, forward=1.0, reference=False, whole_logits=True)

    def plans(self, call: Call) -> list[Plan]:
        return _plans(call, answers=2)

    def run(self, step: StepContext) -> None:
        from lamdatui.step import trl_experimental

        _run_without_reference(step, trl_experimental.orpo(), {"beta": step.params["beta"]})


class Simpo(ActionType):
    name = "simpo"
    summary = "preference learning on pairs by mean token probability and a margin, without a reference model"
    family = "preference"
    source = "TRL CPOTrainer (experimental); SimPO: Meng et al. 2024, arXiv 2405.14734; SFT term: CPO, arXiv 2401.08417"
    slots = (MODEL, PAIRS)
    params = (
        Param("learning_rate", "float", 5e-5, "peak learning rate", (1e-5, 5e-5), low=1e-9, high=1.0),
        MAX_STEPS,
        PAIR_BATCH,
        Param("beta", "float", 2.0, "scale of the mean log-probabilities", (2.0, 10.0), low=1e-3, high=100.0),
        Param("gamma", "float", 1.0, "margin by which the chosen answer's reward should lead", (0.5, 1.0), low=0.0, high=100.0),
        Param(
            "sft_weight", "float", 0.0, "weight of the loss on the chosen answer; 0: SimPO as published", low=0.0, high=100.0
        ),
        *COMMON,
        *HOLDOUT_PARAMS,
    )

    def check(self, call: Call) -> list[str]:
        return adapter_problems(call)

    def estimate(self, call: Call) -> Estimate:
        return _estimate(call, answers=2, forward=1.0, reference=False, whole_logits=True)

    def plans(self, call: Call) -> list[Plan]:
        return _plans(call, answers=2)

    def run(self, step: StepContext) -> None:
        from lamdatui.step import trl_experimental

        p = step.params
        # `alpha` 0 keeps log-probabilities as rewards: others are AlphaPO's (arXiv 2501.03884).
        loss = {"loss_type": "simpo", "simpo_gamma": p["gamma"], "cpo_alpha": p["sft_weight"], "beta": p["beta"], "alpha": 0.0}
        _run_without_reference(step, trl_experimental.cpo(), loss)


def _run_without_reference(step: StepContext, classes: tuple[Any, Any], loss: dict[str, Any]) -> None:
    """ORPO and SimPO: TRL's older trainers, which collate their own columns and keep rows whose answer was cut away."""
    from lamdatui.step import trl_experimental

    config_class, trainer_class = classes
    p = step.params
    tokenizer, data, length = _pairs(step)
    data, held = step.held_out(data)
    held = {name: trl_experimental.with_texts(rows) for name, rows in held.items()}
    trainer = trainer_class(
        model=step.load_for_training("model", step.params["method"]),
        args=config_class(**{**_arguments(step, p["batch_size"]), "remove_unused_columns": False}, max_length=length, **loss),
        train_dataset=trl_experimental.with_texts(data),
        **held,
        processing_class=tokenizer,
        peft_config=step.adapter(p["method"], p["lora_rank"]),
    )
    # The mean log-probability of an empty answer is 0/0. The last label is a token of the answer, if there is one.
    for name in ("train_dataset", "eval_dataset") if held else ("train_dataset",):
        kept = getattr(trainer, name).filter(lambda row: row["chosen_labels"][-1] >= 0 and row["rejected_labels"][-1] >= 0)
        setattr(trainer, name, kept)
    _train(step, trainer, tokenizer, length, len(data))


def _arguments(step: StepContext, size: int) -> dict[str, Any]:
    p, layout = step.params, step.layout(size)
    return {
        **step.trainer_arguments(full=p["method"] == "full"),
        **layout,
        **step.looks(p["max_steps"], layout["per_device_train_batch_size"]),
        "learning_rate": p["learning_rate"],
        "max_steps": p["max_steps"],
        "warmup_steps": int(p["warmup_ratio"] * p["max_steps"]),
        "lr_scheduler_type": "cosine",
    }


def _pairs(step: StepContext) -> tuple[Any, Dataset, int]:
    """(tokenizer, pairs, tokens that a sequence may have); of a large dataset, as many random pairs as the step will see."""
    tokenizer, rows = step.load_tokenizer("model"), step.rows("dataset")
    seen = step.params["max_steps"] * step.params["batch_size"]
    places: Sequence[int] = range(len(rows))
    if len(rows) > seen:
        places = random.Random(step.seed).sample(places, seen)
    data = step.encoded(tokenizer, [rows[place] for place in places])
    length = _length(step, data, tokenizer)
    return tokenizer, _told_apart(step, data, length), length


def _told_apart(step: StepContext, data: Dataset, length: int) -> Dataset:
    """The pairs whose answers differ within `length` tokens: the others teach nothing. Raises StepError(data) when none does."""
    from lamdatui.step.context import StepError

    def differ(row: dict[str, Any]) -> bool:
        room = max(0, length - len(row["prompt_ids"]))
        return not room or row["chosen_ids"][:room] != row["rejected_ids"][:room]

    if step.is_older:
        return data
    kept = data.filter(differ)
    if len(kept) < len(data):
        step.say(
            f"{len(data) - len(kept):,} of {len(data):,} pairs have the same answer twice within {length:,} tokens: they are left out"
        )
    if not len(kept):
        raise StepError("data", f"in every pair both answers are the same within {length:,} tokens; raise max_length")
    return kept


def _length(step: StepContext, data: Dataset, tokenizer: Any) -> int:
    longest, limit = step.sequence_length(data, tokenizer, 0), step.params["max_length"]
    if 0 < limit < longest:
        step.say(f"the longest row has about {longest} tokens; rows are cut at {limit}")
    return min(longest, limit or longest)


def judged_rows(step: StepContext) -> list[Row]:
    """Rows {prompt, completion, label} in the order in which KTO takes them. Raises StepError(data) when one kind is missing.

    KTOTrainer takes rows in their order, and estimates the KL divergence from the answer of the row before: a dataset that
    has its wanted rows first would train on these alone, and the two rows of a pair side by side would spoil the estimate.
    So both kinds are shuffled, spread evenly, and rows of one prompt are kept apart.
    """
    from lamdatui.step.context import StepError

    rows, draw = step.rows("dataset"), random.Random(step.seed)
    if len(rows) > MOST_ROWS and not step.is_older:
        rows = [rows[place] for place in random.Random(step.seed).sample(range(len(rows)), MOST_ROWS)]
    if "chosen" in rows[0]:
        wanted = [{**question_parts(row), "completion": row["chosen"], "label": True} for row in rows]
        unwanted = [{**question_parts(row), "completion": row["rejected"], "label": False} for row in rows]
    else:
        wanted, unwanted = ([row for row in rows if row["label"] is label] for label in (True, False))
    if not wanted or not unwanted:
        raise StepError("data", f"{len(wanted)} wanted and {len(unwanted)} unwanted answers; KTO needs both kinds")
    size = step.params["batch_size"]
    count = min(step.params["max_steps"] * size, max(len(wanted) + len(unwanted), MOST_ROWS) // size * size)
    found: list[Row] = []
    while len(found) < count:
        found += apart(spread(draw.sample(wanted, len(wanted)), draw.sample(unwanted, len(unwanted))))
    return found[:count]


def spread(a: list[Row], b: list[Row]) -> list[Row]:
    """Both lists as one, in their orders, evenly: every stretch of it has about their proportion."""
    ranked = [((i + 0.5) / len(rows), row) for rows in (a, b) for i, row in enumerate(rows)]
    return [row for _, row in sorted(ranked, key=lambda item: item[0])]


def apart(rows: list[Row]) -> list[Row]:
    """The rows with neighbours of one prompt separated, where a later row of another prompt can take the second one's place."""
    rows = list(rows)
    for i in range(1, len(rows)):
        if rows[i]["prompt"] != rows[i - 1]["prompt"]:
            continue
        for j in range(i + 1, len(rows)):
            if rows[j]["label"] == rows[i]["label"] and rows[j]["prompt"] != rows[i - 1]["prompt"]:
                rows[i], rows[j] = rows[j], rows[i]
                break
    return rows


def _reference(step: StepContext) -> Any:
    """The frozen parent for `full`; with an adapter TRL switches that off instead."""
    return step.load_model("model", full=True) if step.params["method"] == "full" else None


def _require_together(step: StepContext, config: Any) -> None:
    """A loss over a batch needs two rows in memory at once. Raises StepError(oom-train) when there is room for one only."""
    from lamdatui.step.context import StepError

    if config.per_device_train_batch_size < 2:
        raise StepError("oom-train", "this loss compares rows of a batch, but only one row at a time fits in memory")
    if config.gradient_accumulation_steps > 1:
        step.say(f"rows are compared within micro-batches of {config.per_device_train_batch_size}")


def _train(step: StepContext, trainer: Any, tokenizer: Any, length: int, given: int, least: int = 1) -> None:
    """Train and finish; `given` rows went in. Raises StepError(data) when cutting left fewer than `least` rows."""
    from lamdatui.step.context import StepError

    step.say_left(len(trainer.train_dataset), given, length)
    if len(trainer.train_dataset) < least:
        raise StepError("data", f"{len(trainer.train_dataset)} rows have an answer within {length} tokens; raise max_length")
    step.train(trainer)
    step.finish_training(trainer.model, tokenizer)


def _tokens(call: Call) -> tuple[float, float]:
    """Of a mean sequence and of the longest one: of a pair, prompt and one answer. The longest may be nearly all prompt."""
    mean, longest = (1.5, 1.15) if call.dataset("dataset").format == "preference" else (1.0, 1.0)
    return costs.row_tokens(call) / mean, costs.longest_tokens(call) / longest


def _plans(call: Call, *, answers: int, together: int = 1) -> list[Plan]:
    # Means over the tokens or rows of a pass (an SFT term, a KL estimate) weigh rows by the pass that they are in.
    return costs.plans(call, int(call.params["batch_size"]), tokens=answers * _tokens(call)[0], together=together, whole=True)


def _estimate(call: Call, *, answers: int, forward: float, reference: bool, whole_logits: bool = False) -> Estimate:
    """`answers` sequences a row, `forward` passes in all, `reference`: a frozen copy is kept when every weight is trained."""
    p, (tokens, longest) = call.params, _tokens(call)
    limit = float(p["max_length"]) or longest
    return costs.training(
        call,
        rows=int(p["max_steps"]) * int(p["batch_size"]),
        tokens=min(tokens, limit),
        longest=min(longest, limit),
        answers=answers,
        forward=forward,
        copies=int(reference and p["method"] == "full"),
        whole_logits=whole_logits,
    )


ACTIONS = (Dpo(), Kto(), Orpo(), Simpo())
