"""The scores of a step's model: answers, their scorers, and a judge's verdicts on them."""

from __future__ import annotations

import gc
from contextlib import closing
from typing import Any

import torch

from lamdatui.base.faults import fault
from lamdatui.domain.scores import counted, remarks
from lamdatui.step.context import StepContext
from lamdatui.step.evaluate import evaluate
from lamdatui.step.generators import VLLM, TransformersGenerator
from lamdatui.step.judgements import scored
from lamdatui.step.memory import peaks
from lamdatui.step.models import load_model, load_tokenizer, positions
from lamdatui.step.request import ModelReference, generator_of

COMPARED = 8
"""Rows of each task that both generators answer before a run's first scores."""


def score_model(step: StepContext, store: Any, reference: ModelReference, wanted: list[dict[str, Any]]) -> None:
    """Record each evaluation that is wanted of a model. Raises what an allocation raises that fails, and StepError."""
    tokenizer = load_tokenizer(store, reference)
    by_vllm = generator_of(step.request) == VLLM
    # Where a base is scored first, both generators answer some of its rows.
    both = _first_rows(step, reference, tokenizer, wanted) if by_vllm and step.request["purpose"] == "search" else {}
    rated: dict[str, dict[str, Any]] = {}
    if by_vllm and any(request.get("rated") for request in wanted):
        # vLLM's server does not tell the log-likelihood of a given text at a bearable price.
        model = step.model if step.model is not None else load_model(step.store, reference, step.dtype, step.device)
        generator = TransformersGenerator(model, tokenizer, step.batch_tokens)
        del model
        some = [request for request in wanted if request.get("rated")]
        rated = {
            request["key"]: evaluate(generator, tokenizer, request, step.metric, positions=positions(step.store, reference))
            for request in some
        }
        generator.close()
    if by_vllm:
        step.model = None
        gc.collect()
        torch.cuda.empty_cache()
    limited = any(request.get("examples") or request.get("rated") for request in wanted)
    held = positions(step.store, reference) if limited else 2**31
    pending: list[tuple[dict[str, Any], dict[str, Any]]] = []
    with closing(step.generator(reference, tokenizer, step.model)) as generator:
        # The longest answers first: vLLM is started for their length.
        for request in sorted(wanted, key=lambda one: -one["max_new_tokens"]) if by_vllm else wanted:
            fault("step.before-evaluate")
            value = rated.get(request["key"]) or evaluate(generator, tokenizer, request, step.metric, positions=held)
            if request["key"] in both:
                step.say(f"{request['task']}: {differences(both[request['key']], value['rows'])}")
            if request.get("judge"):
                pending.append((request, value))
            else:
                _record(step, store, request, value)
    if not pending:
        return
    # The judge may be as large as what it judges: both are not in memory at once, and what it takes is no measure of the action.
    step.peaks = peaks()
    step.model = None
    gc.collect()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    for request, value in scored(step, pending):
        _record(step, store, request, value)


def _record(step: StepContext, store: Any, request: dict[str, Any], value: dict[str, Any]) -> None:
    mean = sum(row["score"] for row in value["rows"]) / len(value["rows"])
    told = remarks(len(value["rows"]), counted(value["rows"]))
    step.say(
        f"{request['task']} ({request['split']}): {mean:.3f} on {len(value['rows'])} rows, {value['seconds']:.1f} s"
        + (f"; {told} within {request['max_new_tokens']} tokens" if told else "")
    )
    store.record_evaluation(request["key"], {"model": step.request["digest"], **value})


def _first_rows(
    step: StepContext, reference: ModelReference, tokenizer: Any, wanted: list[dict[str, Any]]
) -> dict[str, list[dict[str, Any]]]:
    """The first rows of each evaluation as transformers answers them, by the evaluation's key."""
    model = load_model(step.store, reference, step.dtype, step.device)
    generator = TransformersGenerator(model, tokenizer, step.batch_tokens)
    asked = [request for request in wanted if not request.get("rated")]
    return {request["key"]: evaluate(generator, tokenizer, request, step.metric, most=COMPARED)["rows"] for request in asked}


def differences(ours: list[dict[str, Any]], theirs: list[dict[str, Any]]) -> str:
    """How the greedy answers of transformers to the first rows differ from those of vLLM, in words."""
    pairs = list(zip(ours, theirs, strict=False))
    same = sum(one["completion"] == other["completion"] for one, other in pairs)
    scores = sum(one["score"] != other["score"] for one, other in pairs)
    told = f"; {scores} get another score" if all(one["score"] is not None for one, _ in pairs) else ""
    return f"vLLM and transformers answer {same} of the first {len(pairs)} rows alike{told}"
