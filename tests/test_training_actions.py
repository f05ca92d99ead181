"""Fine-tuning and preference learning in real steps on the lab's tiny models: that what was asked for is what happens."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.conftest import CHECKOUT
from tests.steps import Lab

FULL = {"method": "full", "max_steps": 2, "batch_size": 8, "learning_rate": 1e-3, "max_length": 0}
SFT = {"model": ["llama"], "dataset": ["call_replay"]}
PAIRS = {"model": ["llama"], "dataset": ["some_pairs"]}
LOSSES = [
    *("sigmoid", "sigmoid_norm", "hinge", "ipo", "robust", "exo_pair", "nca_pair", "bco_pair", "sppo_hard"),
    *("aot", "aot_unpaired", "apo_zero", "apo_down", "discopop"),
]


class Watch:
    """What the last step's trainer did: the trainer, its batches, the embedding's hooks, the logits of the trained model."""

    def __init__(self) -> None:
        self.trainer: Any = None
        self.batches: list[dict[str, Any]] = []
        self.hooks: list[int] = []
        self.logits: Any = None


def steps_of(lab: Path, folder: Path) -> Lab:
    steps = Lab(lab, folder)
    lines = (lab / "data" / "prefer.jsonl").read_text().splitlines()[:48]
    rows = [json.loads(line) for line in lines]
    write(steps, "some_pairs", rows)
    judged = [{"prompt": row["prompt"], "completion": row["chosen"], "label": True} for row in rows]
    write(steps, "wanted_only", judged)
    write(steps, "judged", judged + [{"prompt": r["prompt"], "completion": r["rejected"], "label": False} for r in rows[:16]])
    return steps


def write(steps: Lab, name: str, rows: list[dict[str, Any]]) -> None:
    path = steps.folder / f"{name}.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    steps.add_dataset(name, path)


@pytest.fixture(scope="module")
def steps(lab: Path, tmp_path_factory: pytest.TempPathFactory) -> Lab:
    return steps_of(lab, tmp_path_factory.mktemp("training"))


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> Iterator[Watch]:
    """Looks over the trainer's shoulder; it changes nothing."""
    import torch

    from lamdatui.step.context import StepContext

    seen = Watch()
    train, finish = StepContext.train, StepContext.finish_training

    def watched(step: StepContext, trainer: Any) -> None:
        seen.trainer, inner = trainer, trainer.training_step

        def training_step(model: Any, inputs: dict[str, Any], *rest: Any) -> Any:
            seen.batches.append({key: value.clone() for key, value in inputs.items() if hasattr(value, "clone")})
            seen.hooks.append(len(model.get_input_embeddings()._forward_hooks))
            return inner(model, inputs, *rest)

        trainer.training_step = training_step
        train(step, trainer)

    def finished(step: StepContext, model: Any, tokenizer: Any) -> None:
        model.eval()
        with torch.no_grad():
            seen.logits = model(torch.tensor([PROBE])).logits.clone()
        finish(step, model, tokenizer)

    monkeypatch.setattr(StepContext, "train", watched)
    monkeypatch.setattr(StepContext, "finish_training", finished)
    yield seen


PROBE = [5, 20, 9, 30, 14, 7, 22]


def module(name: str) -> ModuleType:
    """A shipped action file as a module, for its functions."""
    import importlib.util

    spec = importlib.util.spec_from_file_location(f"shipped_{name}", CHECKOUT / "actions" / f"{name}.py")
    assert spec and spec.loader
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


def prompts(watch: Watch) -> list[str]:
    """The first characters of each row that the trainer saw, in that order; `rev:`, `cpy:` or `do `."""
    tokenizer = watch.trainer.processing_class
    return [tokenizer.decode(ids, skip_special_tokens=True) for batch in watch.batches for ids in batch["input_ids"]]


def losses(steps: Lab) -> list[dict[str, Any]]:
    records = [json.loads(line) for line in (steps.last / "metrics.jsonl").read_text().splitlines()]
    return [record for record in records if record["phase"] == "train" and record["step"] > 0]


def reload(steps: Lab, name: str) -> Any:
    """Logits of a model of the pool as everybody else loads it."""
    import torch

    model = steps.load(name).eval()
    with torch.no_grad():
        return model(torch.tensor([PROBE])).logits


# --- what is refused before anybody is asked -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "inputs", "settings", "said"),
    [
        ("sft", SFT, {"replay_fraction": 0.25}, "needs a replay dataset"),
        ("sft", {**SFT, "replay": ["reverse"]}, {}, "above 0"),
        ("sft", {**SFT, "replay": ["call_replay"]}, {"replay_fraction": 0.25}, "the dataset itself"),
        ("sft", SFT, {"packing": True, "order": "short_first"}, "keeps no order"),
        ("sft", SFT, {"method": "qlora"}, "qlora"),
        ("dpo", PAIRS, {"method": "qlora"}, "qlora"),
        ("dpo", PAIRS, {"loss": "sigmoid", "label_smoothing": 0.1}, "no label smoothing"),
        ("dpo", PAIRS, {"loss": "aot", "batch_size": 1}, "at least 2"),
        ("kto", {"model": ["llama"], "dataset": ["call"]}, {}, "format sft"),
    ],
)
def test_what_can_not_work_is_refused_in_words(steps: Lab, kind: str, inputs: dict, settings: dict, said: str) -> None:
    (problem,) = steps.problems(kind, inputs, **settings)
    assert said in problem


def test_a_search_offers_each_sensible_use_of_replay_once(steps: Lab) -> None:
    grid = steps.registry.get("sft").param("replay_fraction").choices
    allowed = [
        (replay, fraction)
        for replay in ((), ("call_replay",), ("reverse",), ("copy",))
        for fraction in grid
        if not steps.problems("sft", {**SFT, "replay": replay}, replay_fraction=fraction)
    ]
    assert allowed == [((), 0.0), (("reverse",), 0.25), (("copy",), 0.25)]


# --- sft -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["lora", "dora", "rslora", "full"])
def test_what_sft_trained_is_what_is_loaded(steps: Lab, watch: Watch, method: str) -> None:
    rate = 1e-3 if method == "full" else 1e-2
    made = steps.model("sft", SFT, **{**FULL, "method": method, "learning_rate": rate, "lora_rank": 4})
    assert bool(made.adapters) is (method != "full")
    assert steps.difference(made.id, "llama") > 1e-4
    assert float((reload(steps, made.id) - watch.logits).abs().max()) < 1e-4
    assert float((reload(steps, "llama") - watch.logits).abs().max()) > 1e-2
    if method != "full":
        config = watch.trainer.model.peft_config["default"]
        assert (config.use_dora, config.use_rslora) == (method == "dora", method == "rslora")


@pytest.mark.parametrize("order", ["as_given", "short_first", "shuffled"])
def test_the_order_of_the_rows_is_the_trainers_order(steps: Lab, watch: Watch, lab: Path, order: str) -> None:
    steps.model("sft", SFT, **{**FULL, "max_steps": 4, "order": order})
    file = [json.loads(line) for line in (lab / "data" / "call_replay.jsonl").read_text().splitlines()]
    texts = [row["prompt"] + row["completion"] for row in file]
    seen = prompts(watch)
    lengths = [len(text) for text in seen]
    assert len(seen) == 32
    assert (seen == texts[:32]) is (order == "as_given")
    assert (lengths == sorted(lengths)) is (order == "short_first")
    # A curriculum goes through the lengths of the whole dataset, not through its shortest rows.
    assert max(lengths) >= sorted(map(len, texts))[int(0.9 * len(texts))]
    assert set(seen) <= set(texts)


@pytest.mark.parametrize("order", ["shuffled", "as_given"])
def test_replayed_rows_are_there_in_their_share(steps: Lab, watch: Watch, order: str) -> None:
    inputs = {"model": ["llama"], "dataset": ["call"], "replay": ["reverse"]}
    steps.model("sft", inputs, **{**FULL, "max_steps": 5, "replay_fraction": 0.25, "order": order})
    seen = prompts(watch)
    assert sum(text.startswith("rev:") for text in seen) == 10
    assert sum(text.startswith("do ") for text in seen) == 30
    if order == "as_given":
        assert [sum(text.startswith("rev:") for text in seen[i : i + 8]) for i in range(0, 40, 8)] == [2] * 5


def test_a_small_replay_dataset_is_repeated() -> None:
    import random

    sft = module("sft")
    rows, replay = [{"n": i} for i in range(90)], [{"r": i} for i in range(4)]
    found = sft.mixed(rows, replay, 0.1, random.Random(1))
    assert [row for row in found if "n" in row] == rows
    assert len(found) == 100
    assert {sum(row == one for row in found) for one in replay} == {2, 3}


def test_only_answers_count_for_the_loss(steps: Lab, watch: Watch) -> None:
    steps.model("sft", SFT, **FULL)
    tokenizer = watch.trainer.processing_class
    for ids, labels in zip(watch.batches[0]["input_ids"], watch.batches[0]["labels"], strict=True):
        text, answer = tokenizer.decode(ids, skip_special_tokens=True), tokenizer.decode(labels[labels >= 0])
        assert answer == text.partition("=")[2] + tokenizer.eos_token


def test_packed_rows_share_a_sequence_and_do_not_see_each_other(steps: Lab, watch: Watch) -> None:
    import torch

    made = steps.model("sft", SFT, **{**FULL, "packing": True, "learning_rate": 1e-8})
    lengths = watch.trainer.train_dataset["seq_lengths"]
    assert sum(map(len, lengths)) == 1500
    assert len(lengths) < 1500 / 3
    assert watch.trainer.args.gradient_accumulation_steps == 8
    assert all(batch["input_ids"].shape[0] == 1 for batch in watch.batches)
    # The loss of packed sequences is that of their rows one by one: the model hardly moves at this learning rate.
    model, total, count = steps.load(made.id).eval(), 0.0, 0
    for batch in watch.batches[:8]:
        starts = [*(batch["position_ids"][0] == 0).nonzero().flatten().tolist(), batch["position_ids"].shape[1]]
        assert len(starts) > 3
        for begin, end in pairwise(starts):
            ids, labels = batch["input_ids"][:, begin:end], batch["labels"][:, begin:end]
            with torch.no_grad():
                total += float(model(ids, labels=labels).loss) * int((labels[:, 1:] >= 0).sum())
            count += int((labels[:, 1:] >= 0).sum())
    assert losses(steps)[0]["loss"] == pytest.approx(total / count, rel=1e-3)


def test_packing_is_refused_for_a_model_whose_rows_would_mix(steps: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import LlamaForCausalLM

    forward = LlamaForCausalLM.forward
    monkeypatch.setattr(LlamaForCausalLM, "forward", lambda self, *a, position_ids=None, **k: forward(self, *a, **k))
    outcome, _, _ = steps.attempt("sft", SFT, seed=7, **{**FULL, "packing": True})
    assert outcome["error"]["class"] == "data"
    assert "without packing" in outcome["error"]["message"]


def test_neftune_is_on_while_training_and_only_then(steps: Lab, watch: Watch) -> None:
    plain = steps.model("sft", SFT, seed=3, **FULL)
    without = watch.hooks[0]
    noisy = steps.model("sft", SFT, seed=3, **{**FULL, "neftune_alpha": 5.0})
    assert watch.hooks[-1] == without + 1
    assert len(watch.trainer.model.get_input_embeddings()._forward_hooks) == without
    assert steps.difference(plain.id, noisy.id) > 1e-5
    assert float((reload(steps, noisy.id) - watch.logits).abs().max()) < 1e-4


def test_a_share_of_the_data_takes_that_share_of_the_steps(steps: Lab, watch: Watch) -> None:
    settings = {**FULL, "max_steps": 200}
    few = {**settings, "data_fraction": 0.02}
    steps.model("sft", SFT, **few)
    seen = set(prompts(watch))
    assert len(watch.batches) == watch.trainer.args.max_steps == 4
    assert len(watch.trainer.train_dataset) == 30
    assert len(seen) == 30
    watch.batches.clear()
    steps.model("sft", SFT, seed=2, **few)
    assert set(prompts(watch)) != seen
    bound = steps.registry.get("sft")
    call = {name: tuple(ids) for name, ids in SFT.items()}
    whole, part = (bound.type.estimate(bound.call(call, bound.fill(one), steps.pool)) for one in (settings, few))
    assert whole.seconds == pytest.approx(50 * part.seconds, rel=0.1)


def test_all_of_the_data_is_what_it_was_without_a_share() -> None:
    sft = module("sft")
    assert sft.steps_of({"max_steps": 7, "data_fraction": 1.0}) == 7
    assert sft.steps_of({"max_steps": 7, "data_fraction": 0.01}) == 1


def test_rows_are_as_long_as_the_data_and_cut_only_on_request(steps: Lab, watch: Watch) -> None:
    steps.model("sft", SFT, **{**FULL, "seed": 4})
    whole = watch.trainer.args.max_length
    assert 16 <= whole <= 40
    outcome, _, _ = steps.attempt("sft", SFT, **{**FULL, "max_length": 4})
    assert outcome["error"]["class"] == "data"
    assert "raise max_length" in outcome["error"]["message"]


# --- preferences -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", LOSSES)
def test_every_loss_of_dpo_trains(steps: Lab, watch: Watch, loss: str) -> None:
    made = steps.model("dpo", PAIRS, loss=loss, **FULL)
    assert all(math.isfinite(record["loss"]) for record in losses(steps))
    assert steps.difference(made.id, "llama") > 1e-5
    smoothing = {"robust": 0.1, "exo_pair": 1e-3}.get(loss, 0.0)
    assert watch.trainer.args.label_smoothing == smoothing
    assert watch.trainer.args.loss_type == [loss, "sft"]


def test_dpo_offers_every_loss_of_trl_but_sft() -> None:
    """A release of TRL with another loss is noticed here."""
    import re

    from trl.trainer import dpo_trainer

    known = set(re.findall(r'loss_type == "(\w+)"', Path(dpo_trainer.__file__).read_text()))
    assert known == {*LOSSES, "sft"} == {*module("preference").LOSSES, "sft"}


@pytest.mark.parametrize("method", ["lora", "dora", "full"])
@pytest.mark.parametrize("kind", ["dpo", "kto", "orpo", "simpo"])
def test_a_preference_method_trains_an_adapter_or_all(steps: Lab, watch: Watch, kind: str, method: str) -> None:
    rate = 1e-3 if method == "full" else 1e-2
    made = steps.model(kind, PAIRS, seed=2, **{**FULL, "method": method, "learning_rate": rate, "lora_rank": 4})
    assert bool(made.adapters) is (method != "full")
    assert steps.difference(made.id, "llama") > 1e-4
    assert float((reload(steps, made.id) - watch.logits).abs().max()) < 1e-4
    first = losses(steps)[0]
    if kind in ("dpo", "kto"):
        # The reference is the parent: before the first update there is no difference to it.
        assert first["margins"] == pytest.approx(0.0, abs=1e-4)
        assert (watch.trainer.ref_model is not None) is (method == "full")


def test_every_weight_of_a_parent_with_an_adapter_trains_and_its_reference_is_that_parent(steps: Lab, watch: Watch) -> None:
    """Without a copy of ours TRL loads the reference from the parent's folder, where its adapters are not."""
    settings = {**FULL, "method": "lora", "learning_rate": 3e-2, "lora_rank": 4}
    parent = steps.model("sft", SFT, seed=9, **settings)
    assert parent.adapters and steps.difference(parent.id, "llama") > 1e-2
    wanted = steps.weights(parent.id)
    for kind in ("sft", "dpo", "kto", "orpo", "simpo"):
        data = ["call_replay"] if kind == "sft" else ["some_pairs"]
        made = steps.weights(steps.model(kind, {"model": [parent.id], "dataset": data}, **FULL).id)
        assert all(float((made[name] - wanted[name]).abs().max()) > 0 for name in wanted), kind
        if kind in ("dpo", "kto"):
            held = dict(watch.trainer.ref_model.named_parameters())
            assert all(float((held[name] - wanted[name]).abs().max()) < 1e-5 for name in wanted)
            assert losses(steps)[0]["margins"] == pytest.approx(0.0, abs=1e-4)


def test_sft_weight_changes_the_loss_of_dpo_and_simpo(steps: Lab) -> None:
    for kind, weights in (("dpo", (0.0, 1.0)), ("simpo", (0.0, 1.0))):
        found = []
        for weight in weights:
            steps.model(kind, PAIRS, seed=5, sft_weight=weight, **{**FULL, "max_steps": 1})
            found.append(losses(steps)[0]["loss"])
        assert found[1] > found[0] + 0.05


@pytest.mark.parametrize("data", ["some_pairs", "judged"])
def test_kto_sees_both_kinds_in_every_batch_and_estimates_on_other_prompts(steps: Lab, watch: Watch, data: str) -> None:
    steps.model("kto", {"model": ["llama"], "dataset": [data]}, seed=6, **{**FULL, "max_steps": 12})
    share = {"some_pairs": 0.5, "judged": 0.75}[data]
    assert {int(batch["label"].sum()) for batch in watch.batches} <= {int(8 * share), int(8 * share) - 1, int(8 * share) + 1}
    rows = watch.trainer.train_dataset
    assert len(rows) == 96
    assert len({(tuple(row["prompt_ids"]), row["label"]) for row in rows}) == {"some_pairs": 96, "judged": 64}[data]
    neighbours = zip(rows, rows.select(range(1, 96)), strict=False)
    assert all(a["prompt_ids"] != b["prompt_ids"] for a, b in neighbours)
    for i, row in enumerate(rows):
        if i % 8:
            assert row["KL_completion_ids"] == rows[i - 1]["completion_ids"]


def test_kto_says_when_a_kind_is_missing_or_one_row_at_a_time_fits(steps: Lab) -> None:
    one_kind, _, _ = steps.attempt("kto", {"model": ["llama"], "dataset": ["wanted_only"]}, **FULL)
    assert one_kind["error"]["class"] == "data"
    assert "both kinds" in one_kind["error"]["message"]
    no_room, _, _ = steps.attempt("kto", PAIRS, small=True, **{**FULL, "batch_size": 4})
    assert no_room["error"]["class"] == "oom-train"


def test_orpo_and_simpo_get_the_tokens_that_the_model_is_used_with(steps: Lab, watch: Watch) -> None:
    """The chat template ends with a newline after EOS, and has no BOS: neither is added to."""
    from lamdatui.step import trl_experimental

    row = {"prompt_ids": [5, 6, 7], "chosen_ids": [8, 9, 0], "rejected_ids": [9, 0]}
    found = trl_experimental.tokens_of_pair(row, 64)
    assert found["chosen_input_ids"] == [5, 6, 7, 8, 9, 0]
    assert found["chosen_labels"] == [-100] * 3 + [8, 9, 0]
    assert found["prompt_input_ids"] == [5, 6, 7]
    cut = trl_experimental.tokens_of_pair({**row, "prompt_ids": [5] * 9}, 5)
    assert cut["chosen_labels"] == [-100] * 5

    for kind in ("orpo", "simpo"):
        steps.model(kind, PAIRS, seed=8, **{**FULL, "max_steps": 1})
        columns = set(watch.trainer.train_dataset.column_names)
        assert {"chosen_input_ids", "chosen_labels", "rejected_labels", "prompt_input_ids"} <= columns
        watch.trainer.processing_class.bos_token = "<unk>"
        assert watch.trainer.tokenize_row(row)["chosen_input_ids"] == found["chosen_input_ids"]
        outcome, _, _ = steps.attempt(kind, PAIRS, **{**FULL, "max_length": 4})
        assert outcome["error"]["class"] == "data"


def test_what_is_experimental_in_trl_is_imported_in_one_place() -> None:
    files = [*(CHECKOUT / "actions").glob("*.py"), *(CHECKOUT / "lamdatui").rglob("*.py")]
    users = [file.name for file in files if any(f"{word} trl.experimental" in file.read_text() for word in ("from", "import"))]
    assert sorted(users) == ["reproduce.py", "trl_experimental.py"]  # the script of an exported model stands alone


@pytest.mark.parametrize("kind", ["sft", "dpo", "kto", "orpo", "simpo"])
def test_the_cost_of_training_is_estimated(steps: Lab, kind: str) -> None:
    bound = steps.registry.get(kind)
    data = ("call",) if kind == "sft" else ("some_pairs",)

    def estimate(**settings: Any) -> Any:
        return bound.type.estimate(bound.call({"model": ("llama",), "dataset": data}, bound.fill(settings), steps.pool))

    adapter, full = estimate(), estimate(method="full")
    assert full.disk_bytes > adapter.disk_bytes > 0
    assert full.memory_bytes > adapter.memory_bytes
    assert estimate(max_steps=200).seconds > 2 * estimate(max_steps=50).seconds > 0
