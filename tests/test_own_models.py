"""Models as people have them: adapters on a base, templates in place of a model's own, settings of generation, tokens for padding."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from lamdatui.base.errors import LamdatuiError
from lamdatui.base.jsonio import read_json, write_json
from lamdatui.inputs.namedtemplates import names, template_text
from lamdatui.inputs.profile import load_profile
from lamdatui.inputs.templatechecks import NO_END, of_model
from lamdatui.inputs.templates import read_template
from lamdatui.inputs.workspace import locate, open_workspace
from lamdatui.step.errors import StepError
from lamdatui.step.generate import Sampling, answers, neutral
from lamdatui.step.models import load_model, load_tokenizer, save_tokenizer
from lamdatui.step.request import reference
from lamdatui.store.artifacts import Store
from tests.conftest import Commands
from tests.steps import Lab


def told_of(folder: Path) -> Any:
    """How a step names a model directory."""
    return {"id": "m", "weights": str(folder), "adapters": [], "digest": ""}


def without_tokens(lab: Path, folder: Path, *names: str) -> Path:
    """The lab's llama, whose tokenizer names none of these tokens."""
    shutil.copytree(lab / "llama", folder)
    config = read_json(folder / "tokenizer_config.json")
    write_json(folder / "tokenizer_config.json", {name: value for name, value in config.items() if name not in names})
    (folder / "special_tokens_map.json").unlink(missing_ok=True)
    return folder


FULL = {"method": "full", "max_steps": 2, "batch_size": 4, "learning_rate": 1e-3}


@pytest.fixture
def adapter(lab: Path, tmp_path: Path) -> Path:
    """A LoRA adapter of the lab's llama, as PEFT writes one."""
    steps = Lab(lab, tmp_path / "made")
    made = steps.model(
        "sft", {"model": ["llama"], "dataset": ["copy"]}, method="lora", max_steps=3, batch_size=4, learning_rate=5e-3
    )
    folder = tmp_path / "adapter"
    folder.mkdir()
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        shutil.copy(steps.store.resolve(made.adapters[0]) / name, folder / name)
    write_json(
        folder / "adapter_config.json",
        {**read_json(folder / "adapter_config.json"), "base_model_name_or_path": str(lab / "llama")},
    )
    return folder


def opened(lab_profile: Any, *sets: str) -> Any:
    return open_workspace(load_profile(lab_profile(), list(sets)))


def test_an_adapter_is_a_model_on_its_base(adapter: Path, lab: Path, lab_profile: Any, tmp_path: Path) -> None:
    space = opened(lab_profile, f"models.llama.path={adapter}")
    found, base = space.models["llama"], opened(lab_profile).models["llama"]
    assert (found.weights, found.adapters, found.own) == (str(lab / "llama"), (str(adapter),), 1)
    assert found.digest != base.digest and found.layout == base.layout
    steps = Lab(lab, tmp_path / "on")
    steps.pool.add(found)
    merged = steps.weights("llama")
    plain = load_file(lab / "llama" / "model.safetensors")
    assert any(not torch.equal(merged[name], plain[name]) for name in plain if name in merged)
    # What is trained on it stands on both; a merge takes their full weights; what is stored can be loaded again.
    child = steps.model("sft", {"model": ["llama"], "dataset": ["copy"]}, **{**FULL, "method": "lora"})
    assert child.adapters[0] == str(adapter) and len(child.adapters) == 2 and child.own == 1
    full = steps.model("sft", {"model": ["llama"], "dataset": ["copy"]}, **FULL)
    assert full.adapters == () and full.own == 0
    steps.model("merge_linear", {"models": [child.id, full.id]})
    # A change of the adapter is a change of the model.
    weights = load_file(adapter / "adapter_model.safetensors")
    save_file({name: value + 1 for name, value in weights.items()}, adapter / "adapter_model.safetensors")
    outcome, _, _ = steps.attempt("sft", {"model": ["llama"], "dataset": ["copy"]}, **{**FULL, "seed": 9})
    assert outcome["error"]["class"] == "changed"


def test_an_adapter_runs_from_the_profile_to_the_export(adapter: Path, lab_profile: Any, cli: Commands) -> None:
    profile = str(lab_profile())
    checked = cli("check", profile, "--set", f"models.llama.path={adapter}")
    assert "llama, 0.2 M parameters; the adapter adapter on llama" in checked.stdout
    done = cli(
        "run",
        profile,
        "--set",
        f"models.llama.path={adapter}",
        "--name",
        "a",
        "--headless",
        "--mode",
        "auto",
        "--max-trials",
        "2",
    )
    assert done.returncode == 0, done.stdout + done.stderr
    shown = json.loads(cli("show", "a", "--json").stdout)
    assert [trial["status"] for trial in shown["trials"]] == ["done", "done"]
    exported = cli("export", "a", "--to", "out", "--model", "m1")
    assert exported.returncode == 0, exported.stderr


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (
            lambda config, weights: config.update(base_model_name_or_path="org/base"),
            "a LoRA adapter of org/base, which is not here",
        ),
        (lambda config, weights: config.update(base_model_name_or_path=None), "a base that it does not name"),
        (lambda config, weights: config.update(peft_type="IA3"), "an adapter of the type IA3"),
        (lambda config, weights: weights.update({"base_model.model.lora_typo": torch.ones(2)}), "no part of a LoRA adapter"),
        (lambda config, weights: weights.update({next(iter(weights)): torch.ones(16, 5)}), "does not fit its base"),
        (
            lambda config, weights: weights.update(
                {name.replace("layers.0", "layers.9"): value.clone() for name, value in [*weights.items()]}
            ),
            "which its base does not have",
        ),
        (lambda config, weights: weights.clear(), "it holds no LoRA weights"),
    ],
)
def test_an_adapter_that_does_not_fit_is_refused(
    adapter: Path, lab_profile: Any, change: Callable[[dict, dict], Any], why: str
) -> None:
    config, weights = read_json(adapter / "adapter_config.json"), load_file(adapter / "adapter_model.safetensors")
    change(config, weights)
    write_json(adapter / "adapter_config.json", config)
    save_file(weights, adapter / "adapter_model.safetensors")
    with pytest.raises(LamdatuiError, match=why):
        opened(lab_profile, f"models.llama.path={adapter}")


def test_the_base_of_an_adapter_is_named_in_the_profile(adapter: Path, lab: Path, lab_profile: Any) -> None:
    write_json(
        adapter / "adapter_config.json", {**read_json(adapter / "adapter_config.json"), "base_model_name_or_path": "org/base"}
    )
    with pytest.raises(LamdatuiError) as refused:
        opened(lab_profile, f"models.llama.path={adapter}")
    assert "`base: FOLDER`" in refused.value.fix
    assert opened(lab_profile, f"models.llama.path={adapter}", f"models.llama.base={lab / 'llama'}").models["llama"].own == 1
    with pytest.raises(LamdatuiError, match=r"which its base does not have|does not fit"):
        opened(lab_profile, f"models.llama.path={adapter}", f"models.llama.base={lab / 'phi'}")
    with pytest.raises(LamdatuiError, match="this is none"):
        opened(lab_profile, f"models.llama.base={lab / 'phi'}")


def test_a_template_of_the_profile_is_the_models_own_from_then_on(lab: Path, lab_profile: Any, tmp_path: Path) -> None:
    found = opened(lab_profile, "models.llama.chat_template=chatml").models["llama"]
    assert found.template == template_text("chatml") and found.digest != opened(lab_profile).models["llama"].digest
    assert found.chat != opened(lab_profile).models["llama"].chat
    steps = Lab(lab, tmp_path / "on")
    steps.pool.add(found)
    made = steps.model("sft", {"model": ["llama"], "dataset": ["copy"]}, **FULL)
    stored = steps.store.resolve(made.weights)
    assert (stored / "chat_template.jinja").read_text() == template_text("chatml")
    lora = steps.model("sft", {"model": ["llama"], "dataset": ["copy"]}, **{**FULL, "method": "lora"})
    assert load_tokenizer(steps.store, reference(steps.pool.model(lora.id), steps.pool)).chat_template == template_text(
        "chatml"
    )
    with pytest.raises(LamdatuiError, match="no chat template named 'chatmll'") as refused:
        opened(lab_profile, "models.llama.chat_template=chatmll")
    assert refused.value.fix == "did you mean 'chatml'?"
    (tmp_path / "mine.jinja").write_text("{{ messages[0].content }}")
    assert (
        opened(lab_profile, f"models.llama.chat_template={tmp_path}/mine.jinja").models["llama"].template
        == "{{ messages[0].content }}"
    )
    assert {"chatml", "llama3", "gemma3", "mistral", "qwen3"} <= names().keys() and template_text("Qwen") == template_text(
        "qwen2.5"
    )


def test_answers_are_the_models_own_whatever_its_generation_config_says(lab: Path, tmp_path: Path) -> None:
    changed = tmp_path / "changed"
    shutil.copytree(lab / "llama", changed)
    own = read_json(changed / "generation_config.json")
    write_json(
        changed / "generation_config.json",
        {**own, "repetition_penalty": 5.0, "suppress_tokens": [5, 6, 7], "min_new_tokens": 9},
    )
    store = Store(tmp_path / "store")
    asked = [[{"role": "user", "content": f"cpy:{text}="}] for text in ("aaaa", "abab", "ccc")]

    def said(folder: Path, **how: Any) -> list[str]:
        told = told_of(folder)
        model = load_model(store, told, torch.float32, torch.device("cpu"))
        kept = model.generation_config
        found = [text for ((text, _),) in answers(model, load_tokenizer(store, told), asked, Sampling(12), **how)]
        assert model.generation_config is kept
        return found

    assert said(changed) == said(lab / "llama")
    assert said(changed, own=True) != said(lab / "llama")
    model = load_model(
        store, {"id": "m", "weights": str(changed), "adapters": [], "digest": ""}, torch.float32, torch.device("cpu")
    )
    with neutral(model):
        assert (
            model.generation_config.repetition_penalty in (None, 1.0)
            and model.generation_config.eos_token_id == own["eos_token_id"]
        )
    model.save_pretrained(tmp_path / "saved")
    assert read_json(tmp_path / "saved" / "generation_config.json")["repetition_penalty"] == 5.0


def test_a_padding_token_that_was_made_up_is_not_stored(lab: Path, tmp_path: Path) -> None:
    tokenizer = load_tokenizer(Store(tmp_path / "store"), told_of(without_tokens(lab, tmp_path / "bare", "pad_token")))
    assert tokenizer.pad_token == tokenizer.eos_token
    save_tokenizer(tokenizer, tmp_path / "saved")
    assert read_json(tmp_path / "saved" / "tokenizer_config.json").get("pad_token") is None
    assert tokenizer.pad_token == tokenizer.eos_token, "the step goes on with it"


def test_a_tokenizer_without_an_end_takes_the_models_own_or_is_told(lab: Path, tmp_path: Path) -> None:
    bare = without_tokens(lab, tmp_path / "bare", "pad_token", "eos_token")
    tokenizer = load_tokenizer(Store(tmp_path / "store"), told_of(bare))
    assert tokenizer.eos_token_id == read_json(bare / "generation_config.json")["eos_token_id"] == tokenizer.pad_token_id
    assert NO_END not in of_model(read_template(bare))
    for name in ("generation_config.json", "config.json"):
        found = read_json(bare / name)
        write_json(bare / name, {key: value for key, value in found.items() if key != "eos_token_id"})
    assert NO_END in of_model(read_template(bare))
    with pytest.raises(StepError, match="names no token that ends an answer") as caught:
        load_tokenizer(Store(tmp_path / "store"), told_of(bare))
    assert caught.value.kind == "model"


def test_what_can_not_be_loaded_has_the_class_of_its_fault(lab: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(lab / "llama", broken)
    write_json(broken / "config.json", {**read_json(broken / "config.json"), "model_type": "no_such"})
    told = told_of(broken)
    with pytest.raises(StepError) as caught:
        load_model(Store(tmp_path / "store"), told, torch.float32, torch.device("cpu"))
    assert caught.value.kind == "model" and str(broken) in str(caught.value)
    (broken / "tokenizer.json").write_text("{}")
    with pytest.raises(StepError) as caught:
        load_tokenizer(Store(tmp_path / "store"), told)
    assert caught.value.kind == "model"


def test_what_peft_refuses_of_an_adapter_is_told_as_a_fault_of_the_model(adapter: Path, lab: Path, tmp_path: Path) -> None:
    told = {**read_json(adapter / "adapter_config.json"), "megatron_config": {"a": 1}, "megatron_core": "antigravity"}
    write_json(adapter / "adapter_config.json", told)
    with pytest.raises(StepError, match="can't be loaded") as caught:
        load_model(
            Store(tmp_path / "store"),
            {**told_of(lab / "llama"), "adapters": [str(adapter)]},
            torch.float32,
            torch.device("cpu"),
        )
    assert caught.value.kind == "model"


def test_what_comes_with_lamdatui_is_named_without_a_folder(tmp_path: Path) -> None:
    (tmp_path / "x.gguf").write_text("x")
    with pytest.raises(LamdatuiError, match="no such file"):
        locate(f"builtin:../../../../../../../../../../{tmp_path}/x.gguf")
    assert locate("builtin:smollm2-135m-decisions.gguf").is_file()
