"""Merging LoRA adapters of one base by PEFT, without the base: adapters become one adapter, and the base stays as it is.

Only the adapters are in memory. `cat` puts the low-rank factors side by side, which is exactly the weighted sum of the
adapters' differences: what `merge_linear` gives for the full models. `svd` brings that sum back to the rank of one
adapter. The `…_svd` kinds merge the differences as TIES, DARE and pruning do and bring the result to that rank; without `_svd` the
same is done to the factors themselves, which is quick and rough.

LoRA: Hu et al. 2021, arXiv 2106.09685. TIES: Yadav et al. 2023, arXiv 2306.01708. DARE: Yu et al. 2023, arXiv 2311.03099.
"""

from __future__ import annotations

import itertools
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lamdatui.actions import PROCESS_BYTES, ActionType, Call, Estimate, Param, Slot
from lamdatui.costs import FLOPS

if TYPE_CHECKING:
    from lamdatui.step.context import StepContext

PRUNING = ("ties", "ties_svd", "dare_ties", "dare_ties_svd", "dare_linear", "dare_linear_svd", "magnitude_prune")
PRUNING += ("magnitude_prune_svd",)
"""The combinations that use `density`."""
COMBINATIONS = ("cat", "svd", "linear", *PRUNING)
NAME = "merged"
RANK = 16
"""Assumed for estimates: a model object does not say what its adapters are like."""


class MergeAdapters(ActionType):
    name = "merge_adapters"
    summary = "merge the adapters of two or three models of one base into one adapter"
    family = "merge"
    source = "PEFT add_weighted_adapter; LoRA: Hu et al. 2021, arXiv 2106.09685; TIES: arXiv 2306.01708; DARE: arXiv 2311.03099"
    slots = (Slot("models", "models", "models that differ in their last adapter only", least=2, most=3),)
    params = (
        Param(
            "combination",
            "str",
            "cat",
            "cat: the exact sum, of a higher rank; svd: that sum at the old rank; the others drop some of each first",
            ("cat", "svd", "ties_svd"),
            allowed=COMBINATIONS,
        ),
        Param("weight", "float", 0.5, "share of the first adapter", (0.3, 0.5, 0.7), low=0.01, high=0.99),
        Param("density", "float", 0.7, "share that ties, dare and magnitude_prune keep", low=0.01, high=1.0),
    )

    def check(self, call: Call) -> list[str]:
        models = call.models["models"]
        if bare := [model.id for model in models if not model.adapters]:
            return [f"{bare[0]} has no adapter: its weights are full; use merge_linear"]
        if own := [model.id for model in models if model.own >= len(model.adapters)]:
            return [f"the adapter of {own[0]} is part of what the profile names; use merge_linear"]
        first = models[0]
        for other in models[1:]:
            if (first.weights, first.adapters[:-1]) != (other.weights, other.adapters[:-1]):
                return [f"the adapters of {first.id} and {other.id} stand on different models; use merge_linear"]
        for a, b in itertools.combinations(models, 2):
            if a.adapters == b.adapters:
                return [f"{a.id} and {b.id} are the same model: nothing to merge"]
        return []

    def estimate(self, call: Call) -> Estimate:
        size, count = call.models["models"][0].parameters, len(call.models["models"])
        adapter = size * RANK / 440 * 4  # on all linear layers, in float32, as `costs` has it
        width = 1.5 * size ** (1 / 3)  # of a weight matrix: 0.8 thousand at 135 M parameters
        kind = str(call.params["combination"])
        whole = kind.endswith("svd")
        # Golub and Van Loan, Matrix Computations, 5.4: some 20 n³ operations an SVD of an n × n matrix, so 20 n a weight.
        seconds = 0.5 + 2e-8 * size + (20 * width * size / FLOPS["cpu"] if whole else 0)
        memory = PROCESS_BYTES + adapter * (2 * count + 2) + (16 * count * 4 * width**2 * 4 if whole else 0)
        return Estimate(round(seconds, 2), int(memory), int(adapter * (count if kind == "cat" else 1)))

    def run(self, step: StepContext) -> None:
        import torch
        from peft import PeftModel

        step.phase = "merge"
        folders = [step.store.resolve(model["adapters"][-1]) for model in step.request["models"]["models"]]
        kind, density = step.params["combination"], step.params["density"]
        configs = _adapter_configs(step, folders, kind)
        weights = _shares(step.params["weight"], len(folders))
        config: dict[str, Any] = {"combination_type": kind, "adapters": [str(path) for path in folders], "weights": weights}
        config |= {"density": density} if kind in PRUNING else {}
        config |= {"svd_full_matrices": False} if kind.endswith("svd") else {}
        step.configured("PEFT add_weighted_adapter", config)

        names = [f"adapter{index}" for index in range(len(folders))]
        model: Any = PeftModel.from_pretrained(_hollow(step), str(folders[0]), adapter_name=names[0], torch_device="cpu")
        for name, folder in zip(names[1:], folders[1:], strict=True):
            model.load_adapter(str(folder), adapter_name=name, torch_device="cpu")
        step.say(f"{kind} of {len(folders)} adapters of rank {', '.join(str(each['r']) for each in configs)}")
        # Creating layers draws random numbers: what is drawn for dropping must depend on the seed alone.
        torch.manual_seed(step.seed)
        options = {key: value for key, value in config.items() if key not in ("adapters", "weights")}
        model.base_model.add_weighted_adapter(names, weights, NAME, **options)
        made = model.peft_config[NAME]
        # The factors hold each adapter's scaling already. PEFT copies the first adapter's rsLoRA flag, with which the
        # merged one would be scaled by √rank once more.
        made.use_rslora = False
        _check_factors(model)
        self._save(step, model, made)
        step.finish_adapter(replaces=1)

    @staticmethod
    def _save(step: StepContext, model: Any, made: Any) -> None:
        # Without the last argument PEFT looks on the hub whether the vocabulary was changed.
        model.save_pretrained(str(step.staged / ".peft"), selected_adapters=[NAME], save_embedding_layers=False)
        for file in (step.staged / ".peft" / NAME).iterdir():
            shutil.move(file, step.staged / file.name)
        shutil.rmtree(step.staged / ".peft")
        size = (step.staged / "adapter_model.safetensors").stat().st_size
        step.say(f"one adapter of rank {made.r}, {size / 2**20:.1f} MiB")


def _shares(first: float, count: int) -> list[float]:
    """`first` for the first adapter, the rest shared equally."""
    return [first] + [(1.0 - first) / (count - 1)] * (count - 1)


def _adapter_configs(step: StepContext, folders: list[Path], kind: str) -> list[dict[str, Any]]:
    """The adapters' configurations. Raises StepError(data) with the reason when they can't be merged."""
    from lamdatui.jsonio import read_json
    from lamdatui.step.context import StepError

    configs = [read_json(folder / "adapter_config.json") for folder in folders]
    for model, config in zip(step.request["models"]["models"], configs, strict=True):
        if reason := _unusable(config):
            raise StepError("data", f"the adapter of {model['id']} {reason}; use merge_linear")
    targets = [config["target_modules"] for config in configs]
    if len({tuple(sorted(each)) if isinstance(each, list) else each for each in targets}) > 1:
        raise StepError("data", "the adapters change different layers; use merge_linear")
    ranks = [config["r"] for config in configs]
    if kind != "cat" and not kind.endswith("svd") and len(set(ranks)) > 1:
        raise StepError("data", f"{kind} needs adapters of one rank, not {', '.join(map(str, ranks))}; use cat or svd")
    return configs


def _unusable(config: dict[str, Any]) -> str | None:
    """Why an adapter is more than a product of two factors a layer; None when it is just that."""
    if config.get("peft_type") != "LORA":
        return f"is of type {config.get('peft_type')}, not LoRA"
    if config.get("use_dora"):
        return "is a DoRA adapter: its magnitudes can't be added"
    if config.get("rank_pattern") or config.get("alpha_pattern"):
        return "has ranks that differ between layers"
    if config.get("bias", "none") != "none" or config.get("lora_bias"):
        return "changes biases"
    if config.get("modules_to_save") or config.get("trainable_token_indices") or config.get("target_parameters"):
        return "changes whole weights beside its factors"
    if config.get("layer_replication"):
        return "repeats layers"
    if config.get("init_lora_weights") not in (True, False, "gaussian", "orthogonal"):
        return f"changed the base when it was made ({config['init_lora_weights']})"
    return None


def _hollow(step: StepContext) -> Any:
    """The base's modules with weights that take no memory: one zero each, repeated to the weight's shape.

    PEFT makes an adapter's layers from the shapes of the base's, and puts them on the base's device: on the meta device they
    would have no values. No combination looks at the base's values, not even svd, which is taken of the adapters' differences.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    weights = step.store.resolve(step.request["models"]["models"][0]["weights"])
    config = AutoConfig.from_pretrained(weights, local_files_only=True, trust_remote_code=False)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    for module in model.modules():
        for name, weight in list(module.named_parameters(recurse=False)):
            repeated = torch.zeros((), dtype=torch.float32).expand(weight.shape)
            setattr(module, name, torch.nn.Parameter(repeated, requires_grad=False))
    return model


def _check_factors(model: Any) -> None:
    """Raises StepError when a merged factor is not finite (nan) or all of them are zero (data)."""
    import torch

    from lamdatui.step.context import StepError

    factors = {name: weight for name, weight in model.named_parameters() if f".{NAME}." in name}
    for name, weight in factors.items():
        if not torch.isfinite(weight).all():
            raise StepError("nan", f"the merged factor {name} is not finite")
    if not any(bool(weight.any()) for name, weight in factors.items() if "lora_B" in name):
        raise StepError("data", "the merged adapter changes nothing: with these hyperparameters all of it was dropped")


ACTION = MergeAdapters()
