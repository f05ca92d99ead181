"""Model merging by mergekit: several models of one layout become one, without training. Tokens that only some of them have are kept.

There is one action type for each method that the installed mergekit registers (`merge_linear`, `merge_ties`, …), with the
parameters that mergekit itself names (`lamdatui.mergemethods`). `KNOWN` adds what mergekit does not say: what the method is,
from which paper, defaults, search grids and legal ranges. A method that is not in it gets generic ones.

What mergekit calls "base" is of two kinds. Methods over differences (task arithmetic, TIES, …) want the model that the
others come from: the slot `base`. SLERP, NearSwap and Arcee Fusion take two models, one of which is "base" by position only.

The weights of the models always sum to 1, in the order in which they were chosen: `weight` for the first, the rest shared equally.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from lamdatui import costs
from lamdatui.actions import ActionType, Call, Estimate, Param, Slot
from lamdatui.mergemethods import MethodSpec, ParameterSpec, specs

if TYPE_CHECKING:
    from lamdatui.step.context import StepContext

Role = Literal["none", "ancestor", "optional", "first", "kept"]
"""Who is mergekit's base: nobody; the slot `base`; that slot, if it is filled; the first of `models`; the slot `model`."""
LIMIT = 1e6

WEIGHT = Param("weight", "float", 0.5, "share of the first model", (0.3, 0.5, 0.7), low=0.01, high=0.99)
LAMBDA = Param("lambda", "float", 1.0, "factor of the merged differences", low=0.01, high=3.0)
SUMMED = replace(LAMBDA, choices=(0.7, 1.0, 1.3))
# Where models agree, their mean is a whole difference, not a weighted one: a little less of it keeps more of each model.
AGREED = replace(LAMBDA, default=0.8)
NORMALIZE = Param("normalize", "bool", True, "divide by the weights of the models that agree on the sign")
RESCALE = Param("rescale", "bool", True, "give what is kept of a tensor's differences the size of all of them")
ROWS = Param("filter_wise", "bool", False, "one ratio a row of a weight matrix, not one a matrix")
GAMMA = Param("gamma", "float", 0.01, "share of the largest differences that is dropped too", (0.01, 0.05), low=0.0, high=0.5)
RANKED = Param("epsilon", "float", 0.1, "how far the largest are kept more often and the smallest less", low=0.0, high=0.49)
CHANGED = Param(
    "epsilon", "float", 0.1, "differences below it do not count, in units of their mean", (0.1, 0.5, 1.0), low=0.0, high=10.0
)
KEPT = Param(
    "density", "float", 0.7, "share of each model's differences that is kept", (0.3, 0.5, 0.7, 0.9), low=0.01, high=1.0
)
CHANCE = replace(KEPT, help="mean chance of a difference to be kept", default=0.9, choices=(0.5, 0.7, 0.9))
# Chances above 1 - epsilon are not legal.
SLOPED = replace(CHANCE, default=0.8, choices=(0.5, 0.8))
TRIMMED = replace(KEPT, default=0.9, choices=(0.5, 0.7, 0.9))
UNSCALED = replace(RESCALE, default=False)


@dataclass(frozen=True)
class Known:
    """What mergekit does not say of a method. `fixed` parameters are set but not offered: there is nothing to choose."""

    summary: str
    source: str
    params: tuple[Param, ...] = ()
    fixed: Mapping[str, Any] = field(default_factory=dict)
    role: Role | None = None
    """None: as the spec's contract says."""
    relative: tuple[str, ...] = ()
    """Parameters given in units of the mean difference of the models, so that a value means the same for every model."""
    slowness: float = 1.0
    arithmetic: str = "float32"
    """In bfloat16, small differences between models are lost: only the result is rounded to the step's dtype."""


# int8_mask only saves memory; with weights that sum to 1, `normalize` divides by 1 unless there is a sign election.
PLAIN = {"int8_mask": False, "normalize": False}
ELECTED = {"int8_mask": False}
KNOWN: dict[str, Known] = {
    "linear": Known(
        "weighted average of the weights of two or three models",
        "mergekit; model soups: Wortsman et al. 2022, arXiv 2203.05482",
        (WEIGHT,),
        fixed={"normalize": True},
    ),
    "slerp": Known(
        "interpolate two models on the sphere, tensor by tensor, which keeps their length",
        "mergekit; Shoemake 1985, Animating rotation with quaternion curves",
        (Param("t", "float", 0.5, "share of the second model", (0.3, 0.5, 0.7), low=0.01, high=0.99),),
        role="first",
    ),
    "nuslerp": Known(
        "interpolate two models, or their differences from a base, on the sphere",
        "mergekit (NuSLERP); Shoemake 1985, Animating rotation with quaternion curves",
        (
            WEIGHT,
            Param("nuslerp_flatten", "bool", True, "one angle a tensor; else one a row or column"),
            Param("nuslerp_row_wise", "bool", False, "without nuslerp_flatten: angles along the first axis, not the last"),
        ),
    ),
    "multislerp": Known(
        "barycentric interpolation of two or three models, or of differences, on the sphere",
        "mergekit (Multi-SLERP, https://goddard.blog/posts/multislerp-wow-what-a-cool-idea)",
        (WEIGHT,),
        fixed={"normalize_weights": True, "eps": 1e-8},
    ),
    "karcher": Known(
        "the mean of two or three models on the sphere, all weighing the same",
        "mergekit; Karcher mean merging, arXiv 2603.04972",
        (
            Param("max_iter", "int", 10, "iterations towards the mean", low=1, high=1000),
            Param("tol", "float", 1e-5, "step at which the iterations end", low=1e-12, high=0.1),
        ),
    ),
    "task_arithmetic": Known(
        "add the differences of two or three models from their base",
        "mergekit; Ilharco et al. 2022, arXiv 2212.04089",
        (replace(LAMBDA, default=0.8, choices=(0.6, 0.8, 1.2), help="factor of the sum; with 1 it is merge_linear"), WEIGHT),
        # mergekit lists these for the whole family; without a way to drop differences they do nothing.
        fixed=PLAIN | {"density": 1.0, "rescale": False},
    ),
    "ties": Known(
        "merge the largest differences of two or three models from their base, with sign election",
        "mergekit; TIES-Merging: Yadav et al. 2023, arXiv 2306.01708",
        (KEPT, WEIGHT, AGREED, NORMALIZE, UNSCALED),
        fixed=ELECTED,
        slowness=2.0,
    ),
    "dare_linear": Known(
        "drop random differences from the base, enlarge the rest, add them",
        "mergekit; DARE: Yu et al. 2023, arXiv 2311.03099",
        (CHANCE, SUMMED, WEIGHT, RESCALE),
        fixed=PLAIN,
        slowness=2.0,
    ),
    "dare_ties": Known(
        "drop random differences from the base, enlarge the rest, merge with sign election",
        "mergekit; DARE: Yu et al. 2023, arXiv 2311.03099; TIES: Yadav et al. 2023, arXiv 2306.01708",
        (CHANCE, WEIGHT, LAMBDA, replace(NORMALIZE, default=False), RESCALE),
        fixed=ELECTED,
        slowness=2.0,
    ),
    "della": Known(
        "drop differences at random, small ones more often, then merge with sign election",
        "mergekit; DELLA: Deep et al. 2024, arXiv 2406.11617",
        (SLOPED, RANKED, WEIGHT, LAMBDA, replace(NORMALIZE, default=False), RESCALE),
        fixed=ELECTED,
        slowness=2.0,
    ),
    "della_linear": Known(
        "drop differences at random, small ones more often, then add them",
        "mergekit; DELLA: Deep et al. 2024, arXiv 2406.11617",
        (SLOPED, RANKED, SUMMED, WEIGHT, RESCALE),
        fixed=PLAIN,
        slowness=2.0,
    ),
    "breadcrumbs": Known(
        "drop the smallest and the very largest differences from the base, add the rest",
        "mergekit; Model Breadcrumbs: Davari and Belilovsky 2023, arXiv 2312.06795",
        (TRIMMED, GAMMA, SUMMED, WEIGHT, UNSCALED),
        fixed=PLAIN,
        slowness=2.0,
    ),
    "breadcrumbs_ties": Known(
        "drop the smallest and the very largest differences, merge with sign election",
        "mergekit; Model Breadcrumbs: Davari and Belilovsky 2023, arXiv 2312.06795; TIES: arXiv 2306.01708",
        (TRIMMED, GAMMA, WEIGHT, AGREED, NORMALIZE, UNSCALED),
        fixed=ELECTED,
        slowness=2.0,
    ),
    "model_stock": Known(
        "go from the base towards the models' average as far as they agree",
        "mergekit; Model Stock: Jang et al. 2024, arXiv 2403.19522",
        (replace(ROWS, choices=(False, True)),),
    ),
    "sce": Known(
        "merge differences where the models vary most, weighted by their size",
        "mergekit; SCE of FuseChat: Wan et al. 2024, arXiv 2408.07990",
        (Param("select_topk", "float", 0.7, "share of the weights, the most varied", (0.5, 0.7, 1.0), low=0.01, high=1.0),),
        fixed=ELECTED,
        slowness=2.0,
    ),
    "nearswap": Known(
        "move a model towards another one, wholly where the two are near each other",
        "mergekit (NearSwap, https://huggingface.co/alchemonaut/QuartetAnemoi-70B-t0.0001)",
        (Param("t", "float", 0.3, "how far, in units of the mean difference", (0.1, 0.3, 0.5), low=0.001, high=100.0),),
        role="kept",
        relative=("t",),
    ),
    "arcee_fusion": Known(
        "take from another model only the most important of its changes",
        "mergekit (Arcee Fusion, https://arcee.ai)",
        role="kept",
        slowness=2.0,
        # It ranks changes by a divergence of rows, 1e-8 where an adapter changed them: in float32 that is rounding noise.
        arithmetic="float64",
    ),
    "ram": Known(
        "keep what one model alone changed, average what several changed",
        "mergekit; Reinforced Agent Merging, arXiv 2601.13572",
        (CHANGED,),
        relative=("epsilon",),
    ),
    "ramplus_tl": Known(
        "keep, enlarged, what one model alone changed; average what several changed",
        "mergekit; Reinforced Agent Merging, arXiv 2601.13572",
        (
            CHANGED,
            Param("r", "float", 0.2, "enlargement for each unit of overlap", (0.1, 0.2, 0.5), low=0.0, high=2.0),
            Param("alpha", "float", 0.5, "overlap that counts at most", low=0.0, high=2.0),
        ),
        relative=("epsilon",),
    ),
}
EXCLUDED = {"passthrough": "it takes one model and copies it"}


class Merge(ActionType):
    """One of mergekit's methods; `_declare` makes a subclass for each."""

    family = "merge"
    version = 2
    method: ClassVar[MethodSpec]
    role: ClassVar[Role]
    known: ClassVar[Known]

    def check(self, call: Call) -> list[str]:
        models = [model for slot in call.models.values() for model in slot]
        if len({model.architecture for model in models}) > 1:
            names = ", ".join(f"{model.id} is {model.architecture}" for model in models)
            return [f"different architectures can't be merged: {names}"]
        if len({model.layout for model in models}) > 1:
            return ["the models differ in tensor shapes, attention heads, or in their vocabularies by more than added tokens"]
        bases = {model.digest for model in call.models.get("base", ())}
        merged = [model for slot, chosen in call.models.items() if slot != "base" for model in chosen]
        if any(model.digest in bases for model in merged):
            return ["the base itself has no difference to merge"]
        for a, b in itertools.combinations(merged, 2):
            if a.digest == b.digest or (a.weights, a.adapters) == (b.weights, b.adapters):
                return [f"{a.id} and {b.id} are the same model: nothing to merge"]
        refuses = PROBLEMS.get(self.method.name)
        return list(refuses(call)) if refuses else []

    def estimate(self, call: Call) -> Estimate:
        models = [model for slot in call.models.values() for model in slot]
        # One model is whole in memory (when its adapters are merged in, and when the result is loaded), and some copies of
        # the largest tensor. The inputs' files are mapped: the system takes that memory back when it needs it.
        cost = costs.merging(call, models, copies=3 if self.known.arithmetic == "float64" else 2)
        written = 1 + sum(bool(model.adapters) for model in models)
        return replace(
            cost,
            seconds=None if cost.seconds is None else round(cost.seconds * self.known.slowness, 2),
            disk_bytes=None if cost.disk_bytes is None else cost.disk_bytes * written,
        )

    def run(self, step: StepContext) -> None:
        from lamdatui.step import merging

        step.phase = "merge"
        folders = {slot.name: step.model_directories(slot.name) for slot in self.slots if step.has(slot.name)}
        base = folders.get({"first": "models", "kept": "model"}.get(self.role, "base"), [])[:1]
        # mergekit takes a relative path for the name of a hub repository; these are absolute.
        inputs = {
            model["id"]: path
            for slot, paths in folders.items()
            for model, path in zip(step.request["models"][slot], paths, strict=True)
        }
        merged = [path for path in inputs.values() if path not in base]
        config = self._config(self._values(step.params, base, merged), base, merged)
        aligned = merging.tokens_differ(list(inputs.values()))
        config |= {
            "dtype": self.known.arithmetic,
            "out_dtype": step.request["dtype"],
            "tokenizer_source": "union" if aligned else None,
        }
        step.configured(f"mergekit {self.method.name}, --random-seed {step.seed}", config)
        merging.run(step, config)
        merging.finish(step, inputs, next(iter(folders)), aligned)

    def _values(self, params: Mapping[str, Any], base: list[Path], merged: list[Path]) -> dict[str, Any]:
        """What mergekit gets for each parameter; what is relative becomes absolute."""
        values = {**params, **self.known.fixed}
        if self.known.relative:
            from lamdatui.step.merging import mean_difference

            unit = mean_difference(base[0], merged)
            values |= {name: params[name] * unit for name in self.known.relative}
        return values

    def _config(self, values: Mapping[str, Any], base: list[Path], merged: list[Path]) -> dict[str, Any]:
        """mergekit's configuration. A parameter that mergekit takes per model gets the same value for each, `weight` shares."""
        entries = []
        for index, path in enumerate(merged):
            own = {
                item.name: values[item.name]
                for item in self.method.parameters
                if item.scope != "shared" and item.name in values
            }
            if "weight" in own:
                own["weight"] = _shares(own["weight"], len(merged))[index]
            entries.append({"model": str(path), "parameters": own})
        shared = {
            item.name: values[item.name] for item in self.method.parameters if item.scope == "shared" and item.name in values
        }
        config: dict[str, Any] = {"merge_method": self.method.name, "models": entries, "parameters": shared}
        return config | ({"base_model": str(base[0])} if base else {})


def _shares(first: float, count: int) -> list[float]:
    """`first` for the first model, the rest shared equally."""
    return [first] + [(1.0 - first) / (count - 1)] * (count - 1) if count > 1 else [1.0]


# --- what only some methods refuse -----------------------------------------------------------------------------------


def _della_problems(call: Call) -> Iterator[str]:
    density, epsilon = float(call.params["density"]), float(call.params["epsilon"])
    if density < 1 and not (density - epsilon > 0 and density + epsilon < 1):
        yield f"density - epsilon and density + epsilon are chances, between 0 and 1, not {density:g} ± {epsilon:g}"


def _nuslerp_problems(call: Call) -> Iterator[str]:
    if call.params["nuslerp_row_wise"] and call.params["nuslerp_flatten"]:
        yield "nuslerp_row_wise does nothing while nuslerp_flatten is on"


def _multislerp_problems(call: Call) -> Iterator[str]:
    if call.models.get("base") and len(call.models["models"]) > 2:
        yield "with a base it takes two models: mergekit stops at a tensor that none of three models has changed"


PROBLEMS: dict[str, Callable[[Call], Iterator[str]]] = {
    "della": _della_problems,
    "della_linear": _della_problems,
    "nuslerp": _nuslerp_problems,
    "multislerp": _multislerp_problems,
}


# --- the action types ------------------------------------------------------------------------------------------------


def _role(method: MethodSpec) -> Role:
    if method.base == "required":
        # Of two inputs one is the base, so it is no common ancestor.
        return "kept" if method.max_inputs == 2 else "ancestor"
    return "optional" if method.base == "optional" else "none"


def _slots(method: MethodSpec, role: Role) -> tuple[Slot, ...]:
    if role == "kept":
        return (Slot("model", "model", "the model to change"), Slot("donor", "model", "the model to take from"))
    least = max(2, method.min_non_base or 0, method.min_inputs - (role == "ancestor"))
    most = max(least, min(3, method.max_non_base or method.max_inputs or 3))
    models = Slot("models", "models", "the models to merge", least=least, most=most)
    if role in ("none", "first"):
        return (models,)
    words = "the model they all come from" if role == "ancestor" else "if given, differences from it are merged"
    return (Slot("base", "model", words, least=int(role == "ancestor"), base_only=True), models)


def _generic(item: ParameterSpec) -> Param | None:
    """A hyperparameter from mergekit's spec alone; None for what can't be one, which mergekit's default then decides."""
    words = f"mergekit's {item.name}"
    if item.name == "weight" and item.scope != "shared":
        return WEIGHT
    if item.type == "bool":
        return Param(item.name, "bool", bool(item.default), words)
    if item.type == "float":
        default = 0.5 if item.required else item.default
        return None if default is None else Param(item.name, "float", float(default), words, low=-LIMIT, high=LIMIT)
    if item.type == "int":
        default = 1 if item.required else item.default
        return None if default is None else Param(item.name, "int", int(default), words, low=-LIMIT, high=LIMIT)
    return None


def _declare(method: MethodSpec) -> Merge | None:
    """The action type of a method; None when it merges nothing, or needs a parameter that can't be a hyperparameter."""
    if method.name in EXCLUDED or 1 in (method.max_inputs, method.max_non_base):
        return None
    known = KNOWN.get(method.name) or Known(f"{method.title[:60]}, as mergekit has it", f"mergekit {method.url}".strip())
    names = {item.name for item in method.parameters}
    offered = {param.name: param for param in known.params if param.name in names}
    for item in method.parameters:
        if item.name not in offered and item.name not in known.fixed:
            param = _generic(item)
            if param is None and item.required:
                return None
            offered |= {} if param is None else {param.name: param}
    role = known.role or _role(method)
    body = {"name": f"merge_{method.name}", "summary": known.summary, "source": known.source, "method": method, "role": role}
    body |= {"known": known, "slots": _slots(method, role), "params": tuple(offered.values()), "__module__": __name__}
    return type(f"Merge_{method.name}", (Merge,), body)()


ACTIONS = tuple(action for action in map(_declare, specs()) if action is not None)
