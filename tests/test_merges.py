"""Merging: mergekit's specs as plain data, every method on real lab models, adapters without their base."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lamdatui.actionkit import mergespecs
from lamdatui.base.errors import LamdatuiError
from lamdatui.config.resources import load_registry
from tests.steps import Lab

MERGES = sorted(name for name in load_registry().types if name.startswith("merge_") and name != "merge_adapters")
FULL = {"method": "full", "learning_rate": 2e-3, "max_steps": 8, "batch_size": 16}
LORA = {"learning_rate": 1e-2, "max_steps": 8, "batch_size": 16, "lora_rank": 4}


@pytest.fixture(scope="module")
def lab_models(lab: Path, tmp_path_factory: pytest.TempPathFactory) -> Lab:
    """A lab with three full children of llama (m1 to m3) and two LoRA ones, plain and rsLoRA (m4, m5)."""
    steps = Lab(lab, tmp_path_factory.mktemp("merges"))
    for data in ("call_replay", "reverse", "copy"):
        steps.model("sft", {"model": ["llama"], "dataset": [data]}, **FULL)
    steps.model("sft", {"model": ["llama"], "dataset": ["call_replay"]}, **LORA)
    steps.model("sft", {"model": ["llama"], "dataset": ["reverse"]}, **{**LORA, "method": "rslora", "learning_rate": 4e-3})
    return steps


def inputs(steps: Lab, kind: str, *models: str) -> dict[str, list[str]]:
    """The slots of a merge filled: a required base with llama, `models` with as many as fit."""
    slots = {slot.name: slot for slot in steps.registry.get(kind).type.slots}
    if "donor" in slots:
        return {"model": [models[0]], "donor": [models[1]]}
    found = {"models": list(models[: slots["models"].most])}
    return found | ({"base": ["llama"]} if "base" in slots and slots["base"].least else {})


# --- mergekit's specs ------------------------------------------------------------------------------------------------


def test_the_shipped_specs_are_those_of_the_installed_mergekit() -> None:
    done = subprocess.run(
        [sys.executable, "-P", "-m", "lamdatui.actionkit.mergespecs"], capture_output=True, text=True, timeout=120
    )
    made = json.loads(done.stdout.splitlines()[-1])
    shipped = json.loads(mergespecs.shipped(made["mergekit"]).read_text())
    assert shipped == made
    names = {f"merge_{method['name']}" for method in made["methods"]}
    assert names - {"merge_passthrough"} == set(MERGES)


def test_another_mergekit_is_asked_once_and_brings_its_methods(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = json.loads(next(Path(mergespecs.__file__).parent.glob("mergekit-*.json")).read_text())
    base = next(method for method in data["methods"] if method["name"] == "sce")
    new = {"name": "sharpness", "type": "float", "scope": "shared", "required": True, "default": None}
    weight = {"name": "weight", "type": "float", "scope": "non_base", "required": True, "default": None}
    odd = {"name": "schedule", "type": "other", "scope": "shared", "required": True, "default": None}
    data["methods"].append({**base, "name": "futuristic", "title": "Futuristic", "url": "", "parameters": [weight, new]})
    data["methods"].append({**base, "name": "impossible", "parameters": [odd]})
    asked = []

    def ask(installed: str) -> dict[str, Any]:
        asked.append(installed)
        return data

    monkeypatch.setattr(mergespecs, "version", lambda name: "99.0")
    monkeypatch.setattr(mergespecs, "_ask", ask)
    bound = load_registry().get("merge_futuristic")
    assert bound.defaults() == {"weight": 0.5, "sharpness": 0.5}
    assert [slot.name for slot in bound.type.slots] == ["base", "models"]
    assert "merge_impossible" not in load_registry().types
    assert asked == ["99.0"]
    mergespecs.cached("99.0").write_text("{")
    assert "merge_futuristic" in load_registry().types
    assert asked == ["99.0", "99.0"]


def test_specs_that_can_not_be_read_are_a_visible_problem(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mergespecs, "version", lambda name: "98.0")
    monkeypatch.setattr(mergespecs, "_failed", {})
    calls = []

    def run(*args: Any, **named: Any) -> Any:
        calls.append(args)
        return subprocess.CompletedProcess(
            args, 1, "", "Traceback\nModuleNotFoundError: No module named 'mergekit.merge_methods'"
        )

    monkeypatch.setattr(mergespecs.subprocess, "run", run)
    for _ in range(2):
        registry = load_registry()
        assert "sft" in registry.types
        assert "merge_linear" not in registry.types
        assert "mergekit 98.0 can't be read" in registry.problems[0]
        assert "ModuleNotFoundError" in registry.problems[0]
    assert len(calls) == 1
    monkeypatch.setattr(mergespecs, "_failed", {})
    monkeypatch.setattr(mergespecs.subprocess, "run", lambda *a, **k: subprocess.CompletedProcess(a, 0, "warning: x\n", ""))
    with pytest.raises(LamdatuiError, match=r"98\.0"):
        mergespecs.specs()


# --- what is refused -------------------------------------------------------------------------------------------------


def test_what_can_not_be_merged_is_refused_with_the_reason(lab_models: Lab) -> None:
    problems = lab_models.problems
    pair = ["m1", "m2"]
    assert problems("merge_ties", {"base": ["llama"], "models": pair}) == []
    assert problems("merge_linear", {"models": ["m1", "llama"]}) == []
    assert "different architectures" in problems("merge_linear", {"models": ["m1", "phi"]})[0]
    assert "different architectures" in problems("merge_nearswap", {"model": ["m1"], "donor": ["phi"]})[0]
    assert "the base itself" in problems("merge_ties", {"base": ["llama"], "models": ["m1", "llama"]})[0]
    assert "of the profile" in problems("merge_ties", {"base": ["m3"], "models": pair})[0]
    assert "same model" in problems("merge_arcee_fusion", {"model": ["m1"], "donor": ["m1"]})[0]
    assert "2 to 3 objects" in problems("merge_model_stock", {"base": ["llama"], "models": ["m1"]})[0]
    assert "2 objects" in problems("merge_slerp", {"models": ["m1", "m2", "m3"]})[0]
    assert "chances" in problems("merge_della", {"base": ["llama"], "models": pair}, density=0.95)[0]
    assert "does nothing" in problems("merge_nuslerp", {"models": pair}, nuslerp_row_wise=True)[0]
    assert "two models" in problems("merge_multislerp", {"base": ["llama"], "models": ["m1", "m2", "m3"]})[0]


def test_adapters_that_can_not_be_merged_are_refused_with_the_reason(lab_models: Lab) -> None:
    problems = lab_models.problems
    assert problems("merge_adapters", {"models": ["m4", "m5"]}) == []
    assert "m1 has no adapter" in problems("merge_adapters", {"models": ["m1", "m4"]})[0]
    other = lab_models.model("sft", {"model": ["m1"], "dataset": ["reverse"]}, **{**LORA, "max_steps": 1})
    assert "different models" in problems("merge_adapters", {"models": ["m4", other.id]})[0]


# --- every method ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", MERGES)
def test_a_merge_at_its_defaults_is_none_of_its_models_and_stays_near_them(lab_models: Lab, kind: str) -> None:
    chosen = inputs(lab_models, kind, "m1", "m2", "m3")
    merged = lab_models.model(kind, chosen)
    assert lab_models.store.verify(merged.digest) == []
    config = json.loads((lab_models.last / "config.json").read_text())
    assert config["merge_method"] == kind.removeprefix("merge_")
    names = [name for ids in chosen.values() for name in ids]
    made, given = lab_models.weights(merged.id), {name: lab_models.weights(name) for name in names}

    def distance(a: dict[str, Any], b: dict[str, Any]) -> float:
        return sum(float((a[name] - b[name]).square().sum()) for name in a) ** 0.5

    assert made.keys() == given[names[0]].keys()
    between = max(distance(given[a], given[b]) for a in names for b in names)
    away = [distance(made, weights) for weights in given.values()]
    assert min(away) > 0.05 * between
    assert max(away) < 1.6 * between


@pytest.mark.parametrize("kind", ["merge_nuslerp", "merge_multislerp"])
def test_an_optional_base_makes_it_a_merge_of_differences(lab_models: Lab, kind: str) -> None:
    plain = lab_models.model(kind, {"models": ["m1", "m2"]})
    based = lab_models.model(kind, {"models": ["m1", "m2"], "base": ["llama"]})
    assert lab_models.difference(plain.id, based.id) > 1e-3


def test_the_first_weight_is_the_first_models_and_the_rest_is_shared(lab_models: Lab) -> None:
    merged = lab_models.model("merge_linear", {"models": ["m1", "m2", "m3"]}, weight=0.6)
    made, given = lab_models.weights(merged.id), [lab_models.weights(name) for name in ("m1", "m2", "m3")]
    for name, weight in made.items():
        expected = 0.6 * given[0][name] + 0.2 * given[1][name] + 0.2 * given[2][name]
        assert float((weight - expected).abs().max()) < 1e-5


def test_random_methods_are_those_of_the_seed(lab_models: Lab) -> None:
    for kind in ("merge_dare_linear", "merge_della"):
        chosen = inputs(lab_models, kind, "m1", "m2")
        first = lab_models.model(kind, chosen, density=0.5)
        other = lab_models.model(kind, chosen, density=0.5, seed=2)
        assert lab_models.difference(first.id, other.id) > 1e-4
        # The same again, with the result gone from the store.
        path = lab_models.store.resolve(first.weights)
        before = {file.name: file.read_bytes() for file in path.glob("*.safetensors")}
        path.rename(path.with_suffix(".away"))
        second = lab_models.model(kind, chosen, density=0.5)
        assert second.digest == first.digest
        assert {file.name: file.read_bytes() for file in path.glob("*.safetensors")} == before


# --- what goes wrong in a merge --------------------------------------------------------------------------------------


def test_a_merge_that_is_a_copy_is_not_published(lab_models: Lab) -> None:
    outcome, _, action = lab_models.attempt("merge_nearswap", {"model": ["m1"], "donor": ["m2"]}, seed=7, t=100.0)
    assert outcome["error"]["class"] == "data"
    assert "copy of a model" in outcome["error"]["message"]
    assert lab_models.store.find(action["digest"]) is None


def test_an_incomplete_merge_and_one_without_memory_are_told_apart(lab_models: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch
    from mergekit import merge
    from safetensors.torch import load_file, save_file

    genuine = merge.run_merge

    def forgetful(config: Any, out: str, options: Any) -> None:
        genuine(config, out, options)
        file = Path(out) / "model.safetensors"
        tensors = load_file(file)
        del tensors["model.norm.weight"]
        save_file(tensors, file)

    def starved(config: Any, out: str, options: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    chosen = {"models": ["m1", "m2"]}
    monkeypatch.setattr(merge, "run_merge", forgetful)
    outcome, _, action = lab_models.attempt("merge_linear", chosen, seed=8)
    assert outcome["error"] == {"class": "data", "message": "the merge lacks 1 tensors of the models: model.norm.weight"}
    assert lab_models.store.find(action["digest"]) is None
    monkeypatch.setattr(merge, "run_merge", starved)
    outcome, _, _ = lab_models.attempt("merge_linear", chosen, seed=8)
    assert outcome["error"]["class"] == "oom-merge"


def test_a_merge_in_several_files_is_whole(lab_models: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    from lamdatui.step import merging

    monkeypatch.setattr(merging, "SHARD_BYTES", 200_000)
    merged = lab_models.model("merge_linear", {"models": ["m1", "m2"]}, seed=9, weight=0.4)
    folder = lab_models.store.resolve(merged.weights)
    assert len(list(folder.glob("*.safetensors"))) > 2
    index = json.loads((folder / "model.safetensors.index.json").read_text())["weight_map"]
    assert all((folder / file).exists() for file in index.values())
    assert lab_models.difference(merged.id, "m1") > 1e-3


# --- models that are not quite alike ---------------------------------------------------------------------------------


def grown(lab: Path, folder: Path, *tokens: str, rows: int = 0, **config: Any) -> Path:
    """llama with other weights, more tokens, as many rows of embeddings, and a config of its own."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(lab / "llama")
    tokenizer.add_tokens(list(tokens), special_tokens=True)
    model: Any = AutoModelForCausalLM.from_pretrained(lab / "llama", dtype=torch.float32)
    model.resize_token_embeddings(rows or len(tokenizer), mean_resizing=False)
    torch.manual_seed(len(tokens) + rows)
    with torch.no_grad():
        for weight in model.parameters():
            weight += 0.01 * torch.randn_like(weight)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    told = json.loads((folder / "config.json").read_text()) | config
    (folder / "config.json").write_text(json.dumps(told))
    return folder


def loaded(steps: Lab, name: str) -> tuple[Any, Any]:
    """A model of the pool and its tokenizer."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = steps.store.resolve(steps.pool.model(name).weights)
    return AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)


@pytest.mark.parametrize("kind", ["merge_linear", "merge_ties", "merge_slerp", "merge_nearswap", "merge_arcee_fusion"])
def test_a_merge_knows_the_tokens_of_all_its_models(lab_models: Lab, lab: Path, tmp_path: Path, kind: str) -> None:
    import torch

    name = f"grown_{kind}"
    lab_models.add_model(name, grown(lab, tmp_path / "grown", "<|new|>", "<|other|>", rows=len(kind) + 300))
    made = lab_models.model(kind, inputs(lab_models, kind, "m1", name), seed=11)
    model, tokenizer = loaded(lab_models, made.id)
    theirs, known = loaded(lab_models, name)
    ours, plain = loaded(lab_models, "m1")
    assert set(tokenizer.get_vocab()) == set(known.get_vocab()) > set(plain.get_vocab())
    assert tokenizer.eos_token_id == plain.eos_token_id and tokenizer.chat_template == plain.chat_template
    assert (lab_models.store.resolve(made.weights) / "generation_config.json").read_bytes() == (
        lab_models.store.resolve(lab_models.pool.model("m1").weights) / "generation_config.json"
    ).read_bytes()
    table = model.get_input_embeddings().weight
    assert table.shape[0] == model.config.vocab_size == len(tokenizer)
    assert made.tokenizer == lab_models.pool.model(name).tokenizer != lab_models.pool.model("m1").tokenizer
    if kind == "merge_linear":
        mean = (ours.get_input_embeddings().weight + theirs.get_input_embeddings().weight[: len(plain)]) / 2
        assert torch.allclose(table[: len(plain)], mean, atol=1e-6)
        at, there = (each.convert_tokens_to_ids("<|new|>") for each in (tokenizer, known))
        assert torch.allclose(table[at], theirs.get_input_embeddings().weight[there], atol=1e-6)
    # What came of it can be merged with what it came of.
    assert lab_models.problems("merge_linear", {"models": [made.id, "m1"]}) == []
    assert "vocabularies" in lab_models.problems("distill", {"model": ["m1"], "teacher": [made.id], "dataset": ["copy"]})[0]


def test_a_merge_of_models_that_differ_in_filled_up_rows_has_none(lab_models: Lab, lab: Path, tmp_path: Path) -> None:
    lab_models.add_model("filled", grown(lab, tmp_path / "filled", rows=320))
    made = lab_models.model("merge_linear", {"models": ["filled", "m1"]}, seed=12)
    model, tokenizer = loaded(lab_models, made.id)
    assert model.config.vocab_size == len(tokenizer) == len(loaded(lab_models, "m1")[1])
    refused = lab_models.problems("distill", {"model": ["filled"], "teacher": ["m1"], "dataset": ["copy"]})
    assert any("rows of token embeddings" in text for text in refused)


def test_models_of_other_attention_heads_are_not_merged(lab_models: Lab, lab: Path, tmp_path: Path) -> None:
    told = json.loads((lab / "llama" / "config.json").read_text())
    heads = {"num_attention_heads": told["num_attention_heads"] * 2, "num_key_value_heads": told["num_key_value_heads"] * 2}
    lab_models.add_model("heads", grown(lab, tmp_path / "heads", **heads, head_dim=told["head_dim"] // 2))
    assert "attention heads" in lab_models.problems("merge_linear", {"models": ["heads", "m1"]})[0]


def test_a_merge_stores_no_padding_token_that_was_made_up(lab_models: Lab, lab: Path, tmp_path: Path) -> None:
    folder = grown(lab, tmp_path / "padless")
    for file in ("tokenizer_config.json", "special_tokens_map.json"):
        if (folder / file).exists():
            told = json.loads((folder / file).read_text())
            told.pop("pad_token", None)
            (folder / file).write_text(json.dumps(told))
    lab_models.add_model("padless", folder)
    made = lab_models.model("merge_linear", {"models": ["padless", "m1"]}, seed=13)
    assert loaded(lab_models, made.id)[1].pad_token is None


def test_what_a_merge_takes_from_its_first_model_is_told(lab: Path, tmp_path: Path, lab_profile: Any, cli: Any) -> None:
    other = grown(lab, tmp_path / "other", "<|new|>", rope_parameters={"rope_theta": 500000.0, "rope_type": "default"})
    (other / "generation_config.json").write_text(json.dumps({"eos_token_id": [1, 2]}))
    done = cli("check", str(lab_profile()), "--set", f"models.other.path={other}", "--json")
    told = [found["detail"] for found in json.loads(done.stdout) if found["subject"] == "merges"]
    names = "llama and other have different"
    assert f"{names} tokens; the result knows all of them" in told
    assert any(text.startswith(f"{names} rope (theta ") and text.endswith("the result has the first one's") for text in told)
    assert any(text.startswith(f"{names} end tokens (") for text in told)
    assert any(text.startswith(f"{names} rows of embeddings (") for text in told)


# --- adapters --------------------------------------------------------------------------------------------------------


def test_side_by_side_adapters_are_the_linear_merge_of_the_full_models(lab_models: Lab) -> None:
    import torch

    adapted = lab_models.model("merge_adapters", {"models": ["m4", "m5"]}, weight=0.3)
    folder = lab_models.store.resolve(adapted.adapters[-1])
    assert adapted.weights == lab_models.pool.model("llama").weights
    assert len(adapted.adapters) == 1
    assert json.loads((folder / "adapter_config.json").read_text())["r"] == 8
    linear = lab_models.model("merge_linear", {"models": ["m4", "m5"]}, weight=0.3)
    tokens = torch.randint(4, 40, (4, 24), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        ours, theirs = lab_models.load(adapted.id)(tokens).logits, lab_models.load(linear.id)(tokens).logits
    assert float((ours - theirs).abs().max()) < 1e-4
    assert lab_models.difference(adapted.id, "llama") > 1e-3


def test_merged_adapters_stand_on_the_adapters_below_them(lab_models: Lab) -> None:
    children = [
        lab_models.model("sft", {"model": ["m4"], "dataset": [data]}, **{**LORA, "max_steps": 3}).id
        for data in ("copy", "reverse")
    ]
    adapted = lab_models.model("merge_adapters", {"models": children})
    assert adapted.adapters[:-1] == lab_models.pool.model("m4").adapters
    linear = lab_models.model("merge_linear", {"models": children})
    assert lab_models.difference(adapted.id, linear.id) < 1e-5


@pytest.mark.parametrize("combination", load_registry().get("merge_adapters").param("combination").allowed)
def test_every_combination_makes_an_adapter(lab_models: Lab, combination: str) -> None:
    made = lab_models.model("merge_adapters", {"models": ["m4", "m5"]}, combination=combination, seed=3)
    folder = lab_models.store.resolve(made.adapters[-1])
    assert json.loads((folder / "adapter_config.json").read_text())["r"] == (8 if combination == "cat" else 4)
    assert lab_models.difference(made.id, "llama") > 1e-4


def test_adapters_of_other_kinds_end_with_the_reason(lab_models: Lab) -> None:
    short = {**LORA, "max_steps": 1}
    dora = lab_models.model("sft", {"model": ["llama"], "dataset": ["copy"]}, **{**short, "method": "dora"})
    outcome, _, _ = lab_models.attempt("merge_adapters", {"models": ["m4", dora.id]})
    assert outcome["error"]["class"] == "data"
    assert "DoRA" in outcome["error"]["message"]
    wide = lab_models.model("sft", {"model": ["llama"], "dataset": ["copy"]}, **{**short, "lora_rank": 8})
    outcome, _, _ = lab_models.attempt("merge_adapters", {"models": ["m4", wide.id]}, combination="ties")
    assert "adapters of one rank, not 4, 8" in outcome["error"]["message"]
    assert lab_models.model("merge_adapters", {"models": ["m4", wide.id]}).adapters
