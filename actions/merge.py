"""Model merging by mergekit's Python API: several models of one base become one, without training.

`merge_linear` averages weights. `merge_ties` keeps only the largest differences from the base and resolves their signs.
mergekit gets absolute paths: with relative ones it takes a folder for the name of a hub repository.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lamdatui.actions import PROCESS_BYTES, ActionType, Call, Estimate, Param, Slot

if TYPE_CHECKING:
    from lamdatui.step.context import StepContext

MODELS = Slot("models", "models", "the models to merge", least=2, most=3)
BASE = Slot("base", "model", "the model they all come from", base_only=True)


def _layout_problems(call: Call) -> list[str]:
    models = [model for slot in call.models.values() for model in slot]
    if len({model.architecture for model in models}) > 1:
        names = ", ".join(f"{model.id} is {model.architecture}" for model in models)
        return [f"different architectures can't be merged: {names}"]
    if len({model.layout for model in models}) > 1:
        return ["the models differ in tensor shapes or vocabulary"]
    return []


def _merge(step: StepContext, method: str, weights: list[float], extra: dict[str, Any]) -> None:
    from mergekit.config import MergeConfiguration
    from mergekit.merge import run_merge
    from mergekit.options import MergeOptions

    models = step.model_directories("models")
    density = extra.pop("density", None)
    entries = []
    for path, weight in zip(models, weights, strict=True):
        parameters = {"weight": weight} | ({"density": density} if density is not None else {})
        entries.append({"model": str(path), "parameters": parameters})
    config: dict[str, Any] = {
        "merge_method": method,
        "models": entries,
        "parameters": {"normalize": True, **extra},
        "dtype": step.request["dtype"],
        "tokenizer_source": None,
    }
    if "base" in step.request["models"]:
        config["base_model"] = str(step.model_directories("base")[0])
    step.say(f"mergekit {method}: {len(models)} models")
    options = MergeOptions(
        quiet=True,
        random_seed=step.seed,
        copy_tokenizer=True,
        cuda=step.device.type == "cuda",
        write_model_card=False,
        trust_remote_code=False,
    )
    run_merge(MergeConfiguration.model_validate(config), str(step.staged.absolute()), options)
    step.load_tokenizer("models").save_pretrained(step.staged)
    step.finish_directory()


def _estimate(call: Call) -> Estimate:
    size = call.models["models"][0].parameters
    count = len(call.models["models"]) + 1
    return Estimate(memory_bytes=PROCESS_BYTES + size * 4 * (count + 1), disk_bytes=size * 4)


def _weights(first: float, count: int) -> list[float]:
    """`first` for the first model, the rest shared equally."""
    return [first] + [(1.0 - first) / (count - 1)] * (count - 1)


class MergeLinear(ActionType):
    name = "merge_linear"
    summary = "weighted average of the weights of two or three models"
    family = "merge"
    source = "mergekit; model soups: Wortsman et al. 2022, arXiv 2203.05482"
    slots = (MODELS,)
    params = (Param("weight", "float", 0.5, "share of the first model", (0.3, 0.5, 0.7), low=0.01, high=0.99),)

    def check(self, call: Call) -> list[str]:
        return _layout_problems(call)

    def estimate(self, call: Call) -> Estimate:
        return _estimate(call)

    def run(self, step: StepContext) -> None:
        count = len(step.request["models"]["models"])
        _merge(step, "linear", _weights(step.params["weight"], count), {})


class MergeTies(ActionType):
    name = "merge_ties"
    summary = "merge the largest differences of two or three models from their base, with sign election"
    family = "merge"
    source = "mergekit; TIES-Merging: Yadav et al. 2023, arXiv 2306.01708"
    slots = (BASE, MODELS)
    params = (
        Param(
            "density", "float", 0.7, "share of each model's differences that is kept", (0.3, 0.5, 0.7, 0.9), low=0.01, high=1.0
        ),
        Param("weight", "float", 0.5, "share of the first model", (0.3, 0.5, 0.7), low=0.01, high=0.99),
    )

    def check(self, call: Call) -> list[str]:
        if problems := _layout_problems(call):
            return problems
        base = call.model("base")
        if any(model.digest == base.digest for model in call.models["models"]):
            return ["the base itself has no difference to merge"]
        return []

    def estimate(self, call: Call) -> Estimate:
        return _estimate(call)

    def run(self, step: StepContext) -> None:
        count = len(step.request["models"]["models"])
        _merge(step, "ties", _weights(step.params["weight"], count), {"density": step.params["density"]})


ACTIONS = (MergeLinear(), MergeTies())
