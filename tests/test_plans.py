"""How work is laid out in memory: forecasts against peaks of real model classes, the plan that is taken, and other machines than this one."""

from __future__ import annotations

import json
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset

from bench.fakememory import Work, measure
from bench.memory import config_of, forecast, parameters_of
from lamdatui.actionkit.timings import Timings
from lamdatui.config.resources import load_registry
from lamdatui.domain.actions import BoundType, Call
from lamdatui.domain.objects import DatasetObject, ModelObject, ObjectPool, Shape
from lamdatui.domain.plans import Plan, divisors, plan_from_json
from lamdatui.domain.state import RunState
from lamdatui.engine.fitting import fitted
from lamdatui.engine.judging import Known, judge
from lamdatui.engine.layouts import Layouts
from lamdatui.engine.machine import GPU_SHARE, Machine
from tests.conftest import Commands
from tests.steps import Lab

GIB = 2**30
QWEN = Shape(36, 4096, 12288, 32, 8, 128, 151936, tied=False)
REGISTRY = load_registry()


def qwen_8b() -> ModelObject:
    sizes = (36, 4096, 12288, 32, 8, 128, 151936, 0)
    return ModelObject("base", "b", "qwen3", "l", "/none", (), 8_190_735_360, sizes=sizes)


def pool(tokens: int) -> ObjectPool:
    found = ObjectPool()
    found.add(qwen_8b())
    for name, form in (("s", "sft"), ("p", "preference"), ("v", "verifiable")):
        chars = int(tokens * 3.5)
        found.add(DatasetObject(name, name, form, 1000, "/none", chars=chars, longest=chars))  # type: ignore[arg-type]
    return found


def work(kind: str, machine: Machine, tokens: int = 2048, **params: Any) -> tuple[BoundType, Call]:
    bound, objects = REGISTRY.get(kind), pool(tokens)
    data = {"dpo": "p", "orpo": "p", "grpo": "v"}.get(kind, "s")
    inputs = {"model": ("base",), "dataset": (data,)}
    return bound, machine.call(bound, inputs, bound.fill(params), objects)


# --- forecasts -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "work"),
    [
        ("SmolLM2-135M", Work("supervised", "full", 16, 4, 256, True, "float32")),
        ("Qwen2.5-0.5B", Work("preference", "rslora", 16, 2, 512, True, "float32")),
        *(
            pytest.param(name, work, marks=pytest.mark.slow)
            for name, work in (
                ("SmolLM2-135M", Work("supervised", "lora", 16, 4, 256, False, "bfloat16")),
                ("SmolLM2-360M", Work("whole-logits", "lora", 8, 4, 256, True, "bfloat16")),
                ("Gemma-3-1B", Work("supervised", "dora", 16, 2, 512, False, "bfloat16")),
                ("Qwen3-8B", Work("supervised", "lora", 16, 1, 512, True, "bfloat16")),
            )
        ),
    ],
)
def test_a_forecast_is_near_the_peak_of_the_real_class(name: str, work: Work) -> None:
    peak = measure(config_of(name)[0], work).peak
    told = forecast(name, work, parameters_of(config_of(name)[1]))
    assert 0.9 * peak < told < 1.25 * peak


def test_an_8b_model_trains_on_a_card_of_24_gib() -> None:
    machine = Machine("cuda", "bfloat16", 24 * GIB)
    for kind in ("sft", "dpo", "kto", "orpo", "grpo"):
        plan, cost = machine.plan(*work(kind, machine))
        assert plan is not None and machine.lacks(cost) is None, kind
        assert plan.micro_batch * plan.accumulation == REGISTRY.get(kind).defaults()["batch_size"]
    plan, cost = machine.plan(*work("sft", machine, method="qlora", batch_size=16))
    assert plan is not None
    smallest = Plan(1, 16, checkpointing=True)
    bound, call = work("sft", machine, method="qlora", batch_size=16)
    assert (bound.estimate(replace(call, plan=smallest)).memory_bytes or 0) < 12 * GIB


# --- plans -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["sft", "dpo", "kto", "orpo", "simpo", "grpo", "rloo", "distill"])
def test_every_plan_has_the_whole_batch_and_the_last_is_the_smallest(kind: str) -> None:
    machine = Machine("cuda", "bfloat16", 24 * GIB)
    bound, objects = REGISTRY.get(kind), pool(512)
    inputs = {"model": ("base",), "teacher": ("base",), "dataset": ("p" if kind in ("dpo", "kto", "orpo", "simpo") else "v",)}
    call = machine.call(bound, inputs, bound.fill({}), objects)
    plans = bound.plans(call)
    batch = bound.defaults()["batch_size"]
    assert all(plan.micro_batch * plan.accumulation == batch for plan in plans)
    assert plan_from_json(plans[0].to_json()) == plans[0]
    least = 2 if kind == "kto" else 1
    assert min(plan.micro_batch for plan in plans) == least
    assert any(plan.checkpointing for plan in plans) and not all(plan.checkpointing for plan in plans)


def test_the_fastest_plan_that_fits_is_taken_and_less_memory_never_takes_more() -> None:
    taken = []
    for size in (400, 80, 40, 24, 21, 2):
        machine = Machine("cuda", "bfloat16", size * GIB)
        plan, cost = machine.plan(*work("sft", machine, tokens=1024))
        assert plan is not None
        taken.append((plan, cost.memory_bytes or 0))
    assert not taken[0][0].checkpointing and taken[-1][0] == Plan(1, 8, checkpointing=True, probe=True)
    sizes = [memory for _, memory in taken]
    assert sizes == sorted(sizes, reverse=True) and sizes[0] > sizes[-1]
    assert machine.lacks(cost) is not None


def test_a_plan_leaves_some_room_unless_it_is_the_smallest() -> None:
    bound, call = work("sft", Machine("cuda", "bfloat16", 400 * GIB), tokens=1024)
    sizes = sorted((bound.estimate(replace(call, plan=plan)).memory_bytes or 0) for plan in bound.plans(call))
    for size in (sizes[-1], sizes[0]):
        machine = Machine("cuda", "bfloat16", int(size / 0.97) + 2**20)
        cost = machine.plan(bound, call)[1]
        assert machine.lacks(cost) is None
        assert (cost.memory_bytes or 0) < 0.95 * size or size == sizes[0]


def test_a_step_that_went_on_from_a_checkpoint_teaches_no_time() -> None:
    machine = Machine("cpu", "float32", 80 * GIB, None, Timings())
    bound, call = work("sft", machine)
    action: Any = {"type": "sft", "inputs": {"model": ["base"], "dataset": ["s"]}, "params": dict(call.params)}
    layouts = Layouts(machine, {"sft": bound}, pool(2048))
    outcome = {"cached": False, "seconds": {"execute": 5.0}, "plan": None, "peak_rss": GIB}
    layouts.measured({"action": action}, {**outcome, "resumed": 40})  # type: ignore[arg-type]
    assert machine.timings.items == []
    layouts.measured({"action": action}, {**outcome, "resumed": 0})  # type: ignore[arg-type]
    assert len(machine.timings.items) == 1


def test_a_teacher_counts_with_its_own_bytes() -> None:
    machine = Machine("cuda", "bfloat16", 400 * GIB)
    bound, objects = REGISTRY.get("distill"), pool(512)

    def needs(parameters: int) -> int:
        objects.add(replace(qwen_8b(), id="teacher", digest="t", parameters=parameters))
        inputs = {"model": ("base",), "teacher": ("teacher",), "dataset": ("s",)}
        call = machine.call(bound, inputs, bound.fill({}), objects)
        return bound.estimate(replace(call, plan=Plan(1, 8, checkpointing=True))).memory_bytes or 0

    size = qwen_8b().parameters
    assert 2 * size // 10 < needs(size + size // 10) - needs(size) < 2.2 * size // 10


def test_divisors_of_a_batch() -> None:
    assert divisors(12) == [12, 6, 4, 3, 2, 1]


def test_after_running_out_of_memory_the_next_plan_is_smaller_and_the_forecast_learns() -> None:
    machine = Machine("cuda", "bfloat16", 80 * GIB, None, Timings())
    bound, call = work("sft", machine, tokens=1024)
    objects = pool(1024)
    layouts = Layouts(machine, {"sft": bound}, objects)
    request: Any = {"action": {"type": "sft", "inputs": {"model": ["base"], "dataset": ["s"]}, "params": dict(call.params)}}
    costs: list[int] = []
    plans: list[Plan] = []
    failures, again = 0, True
    while again:
        again = layouts.lay_out(request, failures)
        plan = plan_from_json(request["plan"])
        assert plan is not None and plan not in plans
        plans.append(plan)
        costs.append(bound.estimate(replace(call, plan=plan)).memory_bytes or 0)
        failures += 1
    assert len(plans) > 2 and costs == sorted(costs, reverse=True)
    assert plans[-1] == Plan(1, 8, checkpointing=True, probe=True)
    before = machine.plan(bound, call)
    request["plan"] = before[0].to_json() if before[0] else None
    layouts.ran_out(request, {"plan": request["plan"]})
    after = machine.plan(bound, call)
    assert after[0] != before[0]
    assert machine.timings.items[-1].memory and machine.timings.items[-1].predicted_seconds is None


def test_where_whole_weights_have_no_room_4_bit_ones_are_taken() -> None:
    objects = pool(2048)
    types = {name: REGISTRY.get(name) for name in ("sft", "orpo")}
    small = Machine("cuda", "bfloat16", 14 * GIB)
    found = fitted(types, {}, objects, small, packages=True)
    assert {bound.defaults()["method"] for bound in found.values()} == {"qlora"}
    kept = fitted(types, {"sft": {"method"}}, objects, small, packages=True)
    assert kept["sft"].defaults()["method"] == "lora"
    large = Machine("cuda", "bfloat16", 80 * GIB)
    assert fitted(types, {}, objects, large, packages=True) == types
    assert fitted(types, {}, objects, Machine("cpu", "float32", 14 * GIB), packages=True) == types


def test_a_plan_is_carried_out_and_recorded(lab: Path, tmp_path: Path) -> None:
    """The same weights but for rounding, whatever the plan: and the outcome names it."""
    import torch
    from safetensors.torch import load_file

    found = []
    for number, plan in enumerate((None, Plan(4, 4, checkpointing=True))):
        steps = Lab(lab, tmp_path / str(number))
        steps.extra = {"plan": plan.to_json() if plan else None}
        inputs = {"model": ["llama"], "dataset": ["copy"]}
        outcome, folder, action = steps.attempt("sft", inputs, max_steps=4, batch_size=16, learning_rate=1e-3)
        assert outcome["status"] == "ok" and outcome["plan"] == (plan.to_json() if plan else None)
        config = json.loads((folder / "config.json").read_text())["arguments"]
        wanted = (plan.micro_batch, plan.accumulation, plan.checkpointing) if plan else (16, 1, False)
        got = tuple(
            config[key] for key in ("per_device_train_batch_size", "gradient_accumulation_steps", "gradient_checkpointing")
        )
        assert got == wanted
        found.append(load_file(steps.store.root / "objects" / action["digest"] / "adapter_model.safetensors"))
    assert all(torch.allclose(found[0][name], found[1][name], atol=1e-4) for name in found[0])


@pytest.mark.parametrize(
    ("kind", "data", "params"),
    [
        ("sft", "copy", {"neftune_alpha": 5.0}),
        ("sft", "copy", {"method": "full"}),
        ("dpo", "prefer", {}),
        ("kto", "prefer", {}),
        ("orpo", "prefer", {}),
    ],
)
def test_a_probe_leaves_nothing_behind(
    lab: Path, tmp_path: Path, kind: str, data: str, params: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    """The same weights to the bit, and the same numbers told, with it and without."""
    found = []
    for probe in (False, True):
        steps = Lab(lab, tmp_path / str(probe))
        steps.extra = {"plan": Plan(8, 1, checkpointing=False, probe=probe).to_json()}
        outcome, folder, action = steps.attempt(
            kind, {"model": ["llama"], "dataset": [data]}, max_steps=3, batch_size=8, learning_rate=1e-3, **params
        )
        assert outcome["status"] == "ok", outcome["error"]
        assert ("its longest rows fit into memory: 8 at once" in capsys.readouterr().out) is probe
        lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        told = [{k: v for k, v in line.items() if "second" not in k} for line in lines]
        (weights,) = (steps.store.root / "objects" / action["digest"]).glob("*.safetensors")
        found.append((weights.read_bytes(), told))
    assert found[0] == found[1]


def test_a_probe_that_does_not_fit_ends_the_step_before_anything_is_learned(
    lab: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from trl.trainer.sft_trainer import SFTTrainer

    from lamdatui.step import probe

    def full(self: Any, model: Any, inputs: Any, *rest: Any) -> Any:
        seen.append(tuple(inputs["input_ids"].shape))
        raise MemoryError("out of memory")

    seen: list[tuple[int, ...]] = []
    monkeypatch.setattr(SFTTrainer, "training_step", full)
    steps = Lab(lab, tmp_path)
    steps.extra = {"plan": Plan(2, 4, checkpointing=True, probe=True).to_json()}
    outcome, folder, _ = steps.attempt("sft", {"model": ["llama"], "dataset": ["copy"]}, max_steps=3, batch_size=8)
    assert outcome["error"]["class"] == "oom-train"
    assert len(seen) == 1 and not (folder / "metrics.jsonl").exists()
    rows = [{"a": [1] * n, "b": [1], "c": "text"} for n in (3, 9, 1, 7)]
    assert probe.longest_rows(Dataset.from_list(rows).select([3, 0, 1]), 2) == [2, 0]


def test_near_the_limit_the_smallest_plan_is_tried() -> None:
    machine = Machine("cuda", "bfloat16", 24 * GIB)
    bound, call = work("sft", machine)
    smallest = min(bound.estimate(replace(call, plan=plan)).memory_bytes or 0 for plan in bound.plans(call))

    def with_room(bytes_there: float) -> tuple[bool, bool]:
        there = replace(machine, memory_bytes=int(bytes_there / GPU_SHARE))
        plan, cost = there.plan(bound, call)
        assert plan is not None
        return plan.probe, there.lacks(cost, plan) is None

    assert with_room(2 * smallest) == (False, True)
    assert with_room(smallest * 1.01) == with_room(smallest * 0.9) == (True, True)
    assert with_room(smallest * 0.8) == (True, False)
    # On a CPU the kernel ends whoever it likes; what samples has no rows before it begins.
    on_cpu = Machine("cpu", "bfloat16", int(smallest * 0.9))
    plan, cost = on_cpu.plan(*work("sft", on_cpu))
    assert plan is not None and not plan.probe and on_cpu.lacks(cost, plan) is not None
    plan, _ = replace(machine, memory_bytes=2 * GIB).plan(*work("grpo", machine))
    assert plan is not None and plan.sampled and not plan.probe


# --- another machine -------------------------------------------------------------------------------------------------


def sparse(folder: Path, lab: Path, name: str) -> Path:
    """A model directory with everything but bytes in its weights."""
    told, shape = config_of(name)
    folder.mkdir()
    attention, keys = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    h, i = shape.hidden, shape.intermediate
    layer = {"self_attn.q_proj": [attention, h], "self_attn.k_proj": [keys, h], "self_attn.v_proj": [keys, h]}
    layer |= {"self_attn.o_proj": [h, attention], "mlp.gate_proj": [i, h], "mlp.up_proj": [i, h], "mlp.down_proj": [h, i]}
    tensors = {"model.embed_tokens.weight": [shape.vocabulary, h], "lm_head.weight": [shape.vocabulary, h]}
    tensors |= {f"model.layers.{n}.{part}.weight": size for n in range(shape.layers) for part, size in layer.items()}
    header, end = {}, 0
    for tensor, size in tensors.items():
        header[tensor] = {"dtype": "BF16", "shape": size, "data_offsets": [end, end := end + 2 * size[0] * size[1]]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with (folder / "model.safetensors").open("wb") as handle:
        handle.write(struct.pack("<Q", len(text)) + text)
        handle.truncate(8 + len(text) + end)
    (folder / "config.json").write_text(json.dumps({**told, "eos_token_id": 1}))
    for file in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        (folder / file).write_bytes((lab / "llama" / file).read_bytes())
    return folder


def test_what_another_machine_would_offer_is_told_from_headers_alone(
    lab: Path, lab_profile: Any, tmp_path: Path, cli: Commands
) -> None:
    model = sparse(tmp_path / "8b", lab, "Qwen3-8B")
    profile = tmp_path / "big.yaml"
    text = (Path(lab_profile()).parent / "lab.yaml").read_text()
    actions = "actions:\n  sft: {}\n  merge_linear: {}\n  distill: {}\n"
    head, _, rest = text.partition("actions:\n")
    profile.write_text((head + actions + rest[rest.index("# Who chooses") :]).replace("dtype: float32", "dtype: auto"))
    words = ("check", str(profile), "--set", f"models.llama.path={model}")
    done = cli(*words, "--machine", "cuda 24GiB", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout)
    assert {finding["subject"] for finding in found["checks"]} >= {"profile", "model llama"}
    machine = found["machine"]
    assert (machine["device"], machine["memory_bytes"], machine["count"]) == ("cuda", 24 * GIB, 1)
    fields = {"offered", "reason", "plan", "seconds", "gpu_bytes", "ram_bytes", "disk_bytes"}
    assert all(set(one) == fields for one in machine["actions"].values())
    sft = machine["actions"]["sft"]
    assert sft["offered"] and 15 * GIB < sft["gpu_bytes"] < 24 * GIB and "micro-batch" in sft["plan"]
    assert machine["actions"]["merge_linear"]["offered"] and machine["actions"]["evaluation"]["offered"]
    distill = machine["actions"]["distill"]
    assert distill["offered"] and "method qlora" in distill["plan"], (
        "teacher and student have no room beside each other otherwise"
    )
    plain = cli(*words, "--machine", "cuda 8 GiB x 2")
    assert "method qlora" in plain.stdout and "on cuda 8 GiB x 2, by formula" in plain.stdout
    assert "GiB of GPU memory; there are 7.8 GiB" in plain.stdout
    for wrong in ("tpu 24GiB", "cuda", "cuda 0GiB", "cuda 24GiB x 0"):
        refused = cli(*words, "--machine", wrong)
        assert refused.returncode == 2 and "is no machine" in refused.stderr and "Traceback" not in refused.stderr


# --- how long --------------------------------------------------------------------------------------------------------


def judged(kind: str, data: str, timings: Timings | None = None, **params: Any) -> Any:
    machine = Machine("cuda", "bfloat16", 80 * GIB, None, timings or Timings())
    bound = REGISTRY.get(kind)
    state = RunState(seed=1, pool=pool(512))
    return judge(bound, {"model": ("base",), "dataset": (data,)}, bound.fill(params), state, machine, Known(), seed=1)


@pytest.mark.parametrize(
    ("kind", "data", "params", "steps"),
    [
        ("sft", "s", {"epochs": 3, "batch_size": 8}, 375),
        ("sft", "s", {"epochs": 0.5, "batch_size": 16}, 32),
        ("dpo", "p", {"epochs": 1, "batch_size": 8}, 125),
        ("kto", "p", {"epochs": 1, "batch_size": 16}, 125),
        ("grpo", "v", {"epochs": 1, "batch_size": 32, "samples": 8}, 250),
    ],
)
def test_epochs_are_steps_before_the_digest(kind: str, data: str, params: dict[str, Any], steps: int) -> None:
    found = judged(kind, data, **params)
    assert found.problems == () and found.action.params["max_steps"] == steps
    assert found.action.params["epochs"] == 0
    same = judged(kind, data, **{**params, "epochs": 0, "max_steps": steps})
    assert same.action.digest == found.action.digest


def test_minutes_are_steps_by_forecast() -> None:
    plain = judged("sft", "s", max_steps=60)
    assert plain.estimate and plain.estimate.seconds
    found = judged("sft", "s", minutes=10)
    assert found.action.params["minutes"] == 0
    assert abs(found.action.params["max_steps"] - 600 * 60 / plain.estimate.seconds) < 0.06 * found.action.params["max_steps"]
    assert "packed sequence" in judged("sft", "s", epochs=1, packing=True).problems[0]
    assert "give one of them" in judged("sft", "s", minutes=10, epochs=1).problems[0]
