"""Knowledge distillation: a smaller model learns to give each next token the probability that a bigger one gives it.

The student's own sampled answers are judged token by token by the teacher (on-policy), so that it learns where it would
go wrong; a share of the batches may take the dataset's answers instead (off-policy). The loss is the generalised
Jensen-Shannon divergence: 0 is the forward KL (the student covers all that the teacher may say), 1 the reverse KL (it
keeps to what the teacher says most), 0.5 the symmetric one.

TRL's `DistillationTrainer`, which is on-policy only; the mixing of batches is the algorithm of the GKD paper.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

from lamdatui import costs
from lamdatui.actions import LENGTH_PARAMS, TRAINING_PARAMS, ActionType, Call, Estimate, Param, Plan, Slot, adapter_problems
from lamdatui.domain.objects import ROWS, read_traits

if TYPE_CHECKING:
    from lamdatui.step.context import StepContext


MOST_ROWS = 65_536
"""Of a larger dataset, this many random rows, or as many as the step will see."""


class Distill(ActionType):
    name = "distill"
    summary = "a model learns the token probabilities of a bigger or better one"
    family = "distillation"
    source = "TRL DistillationTrainer; GKD: Agarwal et al. 2023, arXiv 2306.13649; MiniLLM: Gu et al. 2023, arXiv 2306.08543"
    slots = (
        Slot("model", "model", "the student, which is trained"),
        Slot("teacher", "model", "the teacher: at least as big, with the same vocabulary"),
        Slot(
            "dataset",
            "dataset",
            "prompts; its answers are used for the off-policy share",
            formats=("sft", "verifiable", "prompt"),
        ),
    )
    params = (
        Param("learning_rate", "float", 1e-4, "peak learning rate", (2e-5, 1e-4, 3e-4), low=1e-9, high=1.0),
        Param("max_steps", "int", 60, "optimiser steps", (30, 60, 120), low=1, high=1_000_000, unit="steps"),
        Param("batch_size", "int", 8, "prompts in one optimiser step, one answer each", low=1, high=65536, unit="rows"),
        Param("on_policy", "float", 1.0, "share of steps on the student's own answers, not the dataset's", low=0.0, high=1.0),
        Param(
            "divergence", "float", 0.5, "0: forward KL, 0.5: Jensen-Shannon, 1: reverse KL", (0.0, 0.5, 1.0), low=0.0, high=1.0
        ),
        Param("temperature", "float", 1.0, "of sampling, and of both distributions in the loss", low=0.01, high=10.0),
        Param("max_new_tokens", "int", 256, "longer answers are cut", low=1, high=65536, unit="tokens"),
        *TRAINING_PARAMS,
        *LENGTH_PARAMS,
    )

    def check(self, call: Call) -> list[str]:
        student, teacher, data = call.model("model"), call.model("teacher"), call.dataset("dataset")
        found = adapter_problems(call)
        if teacher.digest == student.digest:
            found.append("the teacher is the student itself: there is nothing to learn")
        if teacher.tokenizer != student.tokenizer:
            found.append(f"{teacher.id} and {student.id} have different vocabularies; token probabilities can't be compared")
        wanted, there = (int(read_traits(model.traits).get(ROWS, 0)) for model in (student, teacher))
        if 0 < there < wanted:
            found.append(f"the teacher {teacher.id} has {there} rows of token embeddings, the student {student.id} {wanted}")
        if teacher.parameters < student.parameters:
            found.append(
                f"the teacher {teacher.id} ({teacher.parameters / 1e6:.3g} M) is smaller than "
                f"the student {student.id} ({student.parameters / 1e6:.3g} M)"
            )
        if data.format != "sft" and call.params["on_policy"] != 1.0:
            found.append(f"{data.id} has no answers, only prompts: on_policy must be 1")
        if int(call.params["batch_size"]) > data.rows:
            found.append(f"batch_size {call.params['batch_size']} is more than the {data.rows} rows of {data.id}")
        return found

    def estimate(self, call: Call) -> Estimate:
        p = call.params
        ratio = call.model("teacher").parameters / max(1, call.model("model").parameters)
        return costs.training(
            call,
            rows=int(p["max_steps"]) * int(p["batch_size"]),
            forward=1.0 + ratio,
            beside=call.model("teacher").parameters * call.width,
            generated=round(int(p["max_new_tokens"]) * float(p["on_policy"])),
        )

    def plans(self, call: Call) -> list[Plan]:
        p = call.params
        return costs.plans(call, int(p["batch_size"]), tokens=costs.row_tokens(call) + int(p["max_new_tokens"]))

    def run(self, step: StepContext) -> None:
        from trl.trainer.distillation_config import DistillationConfig

        from lamdatui.step.checkpoints import KeptRandom

        p = step.params
        full = p["method"] == "full"
        tokenizer = step.load_tokenizer("model")
        student = step.load_for_training("model", p["method"])
        shared = {**step.trainer_arguments(full=full), **step.layout(p["batch_size"])}
        # The answers are no inputs of the model, but the off-policy steps need them.
        shared["remove_unused_columns"] = False
        config = DistillationConfig(
            **shared,
            learning_rate=p["learning_rate"],
            max_steps=p["max_steps"],
            warmup_steps=p["max_steps"] // 20,
            lr_scheduler_type="cosine",
            beta=p["divergence"],
            temperature=p["temperature"],
            max_completion_length=p["max_new_tokens"],
            use_vllm=False,
        )
        draw = random.Random(step.seed)
        trainer = _trainer_class(p["on_policy"], draw)(
            model=student,
            teacher_model=_teacher(step, student),
            args=config,
            train_dataset=_prompts(step, tokenizer),
            processing_class=tokenizer,
            peft_config=step.adapter(p["method"], p["lora_rank"]),
        )
        step.train(trainer, KeptRandom(draw))
        step.finish_training(trainer.model, tokenizer)


def _teacher(step: StepContext, student: Any) -> Any:
    """The frozen teacher. Rows of its vocabulary beyond the student's only fill it up: they are cut off."""
    from lamdatui.step.context import StepError

    teacher = step.load_model("teacher")
    wanted, there = (model.config.get_text_config().vocab_size for model in (student, teacher))
    if there > wanted:
        step.say(f"the teacher's vocabulary of {there} is cut to the student's {wanted}")
        teacher.resize_token_embeddings(wanted)
    elif there < wanted:
        raise StepError("data", f"the teacher has {there} rows of token embeddings, the student {wanted}")
    return teacher.requires_grad_(False).eval()


def _prompts(step: StepContext, tokenizer: Any) -> Any:
    """The dataset's prompts, each with the token ids of its answer (none without answers)."""
    from datasets import Dataset

    encoder, limit = step.encoder(tokenizer), step.params["max_new_tokens"]
    rows, wanted = step.rows("dataset"), max(MOST_ROWS, step.params["max_steps"] * step.params["batch_size"])
    if len(rows) > wanted and not step.is_older:
        rows = [rows[at] for at in random.Random(step.seed).sample(range(len(rows)), wanted)]
    found = []
    for row in rows:
        ids, start = encoder.encode(row) if "completion" in row else ([], 0)
        found.append({"prompt": encoder.ask(row), "answer": ids[start:][:limit]})
    return Dataset.from_list(found)


def _trainer_class(share: float, rng: random.Random) -> Any:
    """TRL's trainer, which takes the dataset's answers in place of sampled ones in all but `share` of the steps."""
    from trl.trainer.distillation_trainer import DistillationTrainer

    from lamdatui.step import trainers

    class MixedDistillationTrainer(trainers.asking(DistillationTrainer)):
        given: list[list[int]] | None = None

        def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
            self.given = [row["answer"] for row in inputs] if rng.random() >= share else None
            return super()._generate_and_score_completions(inputs)

        def _generate_single_turn(self, prompt_ids: Any, *rest: Any, **named: Any) -> Any:
            return self.given or super()._generate_single_turn(prompt_ids, *rest, **named)

    return MixedDistillationTrainer


ACTION = Distill()
