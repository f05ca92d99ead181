"""Model directories that are not what they should be: one error that names the file, whatever stands in it."""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from lamdatui.base.errors import LamdatuiError
from lamdatui.base.jsonio import read_json, write_json
from lamdatui.inputs.modelfiles import WRAPPERS, inspect_model, is_model
from lamdatui.step.errors import StepError
from lamdatui.store.artifacts import Store
from tests.test_bad_input import DEEP, circle, device, fifo, folder, listener

pytestmark = pytest.mark.timeout(120)


def safetensors(header: Any, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def tensor(shape: Any, offsets: Any = (0, 16), dtype: Any = "F32") -> dict[str, Any]:
    return {"w": {"dtype": dtype, "shape": shape, "data_offsets": list(offsets)}}


@pytest.fixture
def model(lab: Path, tmp_path: Path) -> Path:
    shutil.copytree(lab / "llama", tmp_path / "model")
    return tmp_path / "model"


def test_a_good_model_is_what_it_was(lab: Path) -> None:
    found = inspect_model(lab / "llama")
    header = (lab / "llama" / "model.safetensors").read_bytes()
    (length,) = struct.unpack("<Q", header[:8])
    shapes = {name: entry["shape"] for name, entry in json.loads(header[8 : 8 + length]).items() if name != "__metadata__"}
    assert found.parameters == sum(int.__mul__(*(shape if len(shape) == 2 else [*shape, 1])) for shape in shapes.values())
    assert found.architecture == "llama"


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ("[]", "an object, not list"),
        ("null", "an object, not NoneType"),
        ("5", "an object"),
        (DEEP, "no readable config.json"),
        ('{"a":' * 50_000, "no readable config.json"),
        ("[" * 500 + "]" * 500, "no readable config.json"),
        ('{"model_type": ["llama"]}', "model_type is text"),
        ('{"model_type": {"a": NaN}}', "model_type is text"),
        ('{"model_type": "llama", "hidden_size": "64"}', "hidden_size is a whole number"),
        ('{"model_type": "llama", "vocab_size": true}', "vocab_size is a whole number"),
        ('{"model_type": "llama", "num_hidden_layers": 1e400}', "num_hidden_layers is a whole number"),
        ('{"model_type": "llama", "vocab_size": 1' + "0" * 400 + "}", "vocab_size is a whole number"),
        ('{"a": ' + "1" * 5000 + "}", "no readable config.json"),
        ("", "no readable config.json"),
    ],
)
def test_a_config_of_another_shape_is_refused(model: Path, config: str, told: str) -> None:
    (model / "config.json").write_text(config)
    with pytest.raises(LamdatuiError, match=told) as caught:
        inspect_model(model)
    assert caught.value.where == str(model / "config.json")


@pytest.mark.parametrize(
    "weights",
    [
        safetensors(tensor([2, 2]), b"0" * 8),
        safetensors(tensor([2, 3]), b"0" * 16),
        safetensors(tensor([10**30], (0, 0))),
        safetensors(tensor([2**40, 2**40], (0, 0))),
        safetensors(tensor(["2", "2"]), b"0" * 16),
        safetensors(tensor([-2, -2]), b"0" * 16),
        safetensors(tensor([True, 4]), b"0" * 16),
        safetensors(tensor([4.0]), b"0" * 16),
        safetensors(tensor("4"), b"0" * 16),
        safetensors(tensor(None), b"0" * 16),
        safetensors(tensor([2, 2], (16, 0)), b"0" * 16),
        safetensors(tensor([2, 2], (4, 20)), b"0" * 20),
        safetensors(tensor([2, 2], (0,)), b"0" * 16),
        safetensors(tensor([2, 2], (0, -16)), b"0" * 16),
        safetensors(tensor([2, 2], dtype="F99"), b"0" * 16),
        safetensors(tensor([2, 2], dtype=["F32"]), b"0" * 16),
        safetensors({"v": tensor([4])["w"], "w": tensor([4])["w"]}, b"0" * 16),
        safetensors({"w": 5}),
        safetensors({"w": {}}),
        safetensors([]),
        safetensors(b"null"),
        safetensors(DEEP.encode()),
        safetensors(b'{"a":' * 50_000),
        safetensors(b"\xff\xfe"),
        safetensors({}),
        safetensors(tensor([0], (0, 0))),
        struct.pack("<Q", 2**63) + b"{}",
        struct.pack("<Q", 2**64 - 1) + b"{}",
        b"",
        b"abc",
        b"\x80\x04pickle",
    ],
)
def test_broken_weights_are_refused(model: Path, weights: bytes) -> None:
    (model / "model.safetensors").write_bytes(weights)
    with pytest.raises(LamdatuiError) as caught:
        inspect_model(model)
    assert str(model) in caught.value.where
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("make", [fifo, folder, device, listener, circle])
@pytest.mark.parametrize(
    "name",
    ["config.json", "model.safetensors", "more.safetensors", "tokenizer.json", "model.safetensors.index.json", "x.jinja"],
)
def test_a_model_directory_holds_regular_files(model: Path, name: str, make: Callable[[Path], None]) -> None:
    (model / name).unlink(missing_ok=True)
    make(model / name)
    if name == "model.safetensors.index.json" and make is circle:
        pytest.skip("a link to nothing is no index")
    with pytest.raises(LamdatuiError) as caught:
        inspect_model(model)
    assert str(model) in caught.value.where


@pytest.mark.parametrize("make", [fifo, device, listener])
def test_nor_does_a_step_meet_what_the_digest_does_not_cover(model: Path, make: Callable[[Path], None]) -> None:
    (model / "generation_config.json").unlink(missing_ok=True)
    make(model / "generation_config.json")
    with pytest.raises(LamdatuiError, match="not a regular file"):
        inspect_model(model)


@pytest.mark.parametrize(
    "index", ["[]", "{}", '{"weight_map": []}', '{"weight_map": {"w": 5}}', '{"weight_map": {"w": ["a"]}}', DEEP]
)
def test_an_index_names_files_that_are_there(model: Path, index: str) -> None:
    (model / "model.safetensors.index.json").write_text(index)
    with pytest.raises(LamdatuiError) as caught:
        inspect_model(model)
    assert caught.value.where == str(model / "model.safetensors.index.json")


def test_an_adapter_is_no_whole_model(model: Path) -> None:
    (model / "adapter_config.json").write_text("{}")
    with pytest.raises(LamdatuiError, match="this is a LoRA adapter, not a whole model"):
        inspect_model(model)
    (model / "adapter_config.json").unlink()
    (model / "config.json").unlink()
    with pytest.raises(LamdatuiError, match=r"no readable config.json"):
        inspect_model(model)
    for other in (model / "tokenizer.json", model / "nothing"):
        with pytest.raises(LamdatuiError):
            inspect_model(other)


def test_weights_that_are_there_twice_are_refused(model: Path) -> None:
    shutil.copy(model / "model.safetensors", model / "model-00001-of-00001.safetensors")
    write_json(model / "model.safetensors.index.json", {"weight_map": {"lm_head.weight": "model-00001-of-00001.safetensors"}})
    with pytest.raises(LamdatuiError, match="the weights are there twice"):
        inspect_model(model)


def test_the_digest_covers_how_answers_end_and_knows_what_older_versions_called_it(model: Path) -> None:
    found = inspect_model(model)
    write_json(model / "generation_config.json", {"eos_token_id": [0, 5]})
    other = inspect_model(model)
    assert other.digest != found.digest and other.older == found.older
    for digest in (other.digest, other.older):
        assert is_model(model, digest)
    assert not is_model(model, found.digest)
    (model / "generation_config.json").unlink()
    assert inspect_model(model).digest == inspect_model(model).older == found.older
    templated = inspect_model(model, template="{{ messages }}")
    assert templated.digest != found.older and not templated.older
    assert is_model(model, templated.digest, template="{{ messages }}") and not is_model(model, templated.digest)


# --- what transformers would load ------------------------------------------------------------------------------------


def rewrite(model: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """The weights with other names or values."""
    file = model / "model.safetensors"
    save_file({name: value.contiguous() for name, value in change(load_file(file)).items()}, file, metadata={"format": "pt"})


def loaded(model: Path, tmp_path: Path) -> Any:
    from lamdatui.step.models import load_model

    return load_model(
        Store(tmp_path / "store"),
        {"id": "m", "weights": str(model), "adapters": [], "digest": ""},
        torch.float32,
        torch.device("cpu"),
    )


def test_a_whole_model_is_loaded_whole(model: Path, tmp_path: Path) -> None:
    inspect_model(model)
    weights = loaded(model, tmp_path).state_dict()
    for name, value in load_file(model / "model.safetensors").items():
        assert torch.equal(weights[name], value)


@pytest.mark.parametrize("prefix", WRAPPERS)
def test_weights_under_another_name_are_refused_before_and_at_the_load(model: Path, tmp_path: Path, prefix: str) -> None:
    rewrite(model, lambda weights: {prefix + name: value for name, value in weights.items()})
    with pytest.raises(LamdatuiError, match="transformers would not find them"):
        inspect_model(model)
    with pytest.raises(StepError, match="weights are missing"):
        loaded(model, tmp_path)


def test_weights_that_are_missing_or_of_another_shape_are_refused(model: Path, tmp_path: Path) -> None:
    config = read_json(model / "config.json")
    write_json(model / "config.json", {**config, "num_hidden_layers": config["num_hidden_layers"] + 1})
    with pytest.raises(LamdatuiError, match="the weights are of"):
        inspect_model(model)
    with pytest.raises(StepError, match="weights are missing"):
        loaded(model, tmp_path)
    write_json(model / "config.json", config)
    rewrite(model, lambda weights: {name: value for name, value in weights.items() if "layers.0.mlp.up_proj" not in name})
    with pytest.raises(StepError, match=r"1 weights are missing .* the first: model\.layers\.0\.mlp\.up_proj\.weight"):
        loaded(model, tmp_path)


@pytest.mark.parametrize("kind", ["config", "fp8", "scales"])
def test_quantised_weights_are_refused(model: Path, kind: str) -> None:
    if kind == "config":
        write_json(
            model / "config.json", {**read_json(model / "config.json"), "quantization_config": {"quant_method": "bitsandbytes"}}
        )
    else:
        name = "model.layers.0.mlp.up_proj.weight"
        rewrite(
            model,
            lambda weights: (
                {**weights, name: weights[name].to(torch.float8_e4m3fn)}
                if kind == "fp8"
                else {**weights, f"{name}_scale": torch.ones(1)}
            ),
        )
    with pytest.raises(LamdatuiError, match="quantised") as refused:
        inspect_model(model)
    assert "bf16" in refused.value.fix


def test_a_native_architecture_is_loaded_without_the_models_own_code(model: Path, tmp_path: Path) -> None:
    config = {
        **read_json(model / "config.json"),
        "auto_map": {"AutoModelForCausalLM": "evil.Model", "AutoConfig": "evil.Config"},
    }
    write_json(model / "config.json", config)
    canary = tmp_path / "canary"
    (model / "evil.py").write_text(f"open({str(canary)!r}, 'w')\n")
    assert inspect_model(model).architecture == "llama"
    assert type(loaded(model, tmp_path)).__module__.startswith("transformers.models.llama")
    assert not canary.exists()
    write_json(model / "config.json", {**config, "model_type": "own_kind"})
    with pytest.raises(LamdatuiError, match="runs its own code") as refused:
        inspect_model(model)
    assert "auto_map" in refused.value.fix


def test_a_vocabulary_is_what_it_holds_and_not_how_it_was_written(model: Path) -> None:
    before, file = inspect_model(model), model / "tokenizer.json"
    told = read_json(file)
    file.write_text(
        json.dumps({**told, "truncation": {"max_length": 8, "strategy": "LongestFirst", "stride": 0, "direction": "Right"}})
    )
    again = inspect_model(model)
    assert (again.layout, again.tokenizer) == (before.layout, before.tokenizer) and again.digest != before.digest
    renamed = max(told["model"]["vocab"], key=told["model"]["vocab"].get)
    vocabulary = {"another token" if name == renamed else name: at for name, at in told["model"]["vocab"].items()}
    file.write_text(json.dumps({**told, "model": {**told["model"], "vocab": vocabulary}}))
    assert inspect_model(model).layout != before.layout
    file.unlink()
    with pytest.raises(LamdatuiError, match=r"neither tokenizer\.json") as refused:
        inspect_model(model)
    assert "save_pretrained" in refused.value.fix
    (model / "vocab.json").write_text("{}")
    with pytest.raises(LamdatuiError):
        inspect_model(model)
    (model / "merges.txt").write_text("#version: 0.2\n")
    assert inspect_model(model).tokenizer != before.tokenizer


def test_tokens_without_a_row_of_the_embeddings_are_refused(model: Path) -> None:
    config = read_json(model / "config.json")
    write_json(model / "config.json", {**config, "vocab_size": config["vocab_size"] + 8})
    with pytest.raises(LamdatuiError, match=f"config.json says vocab_size {config['vocab_size'] + 8}, the embeddings have"):
        inspect_model(model)
    write_json(model / "config.json", config)
    tokenizer = read_json(model / "tokenizer.json")
    token = {**tokenizer["added_tokens"][0], "id": 5000, "content": "<more>"}
    write_json(model / "tokenizer.json", {**tokenizer, "added_tokens": [*tokenizer["added_tokens"], token]})
    with pytest.raises(LamdatuiError, match="the tokenizer has tokens up to 5000, the embeddings have"):
        inspect_model(model)


def test_a_base_with_weights_that_are_not_finite_is_no_base(model: Path, tmp_path: Path) -> None:
    from lamdatui.step.models import load_model

    rewrite(
        model,
        lambda weights: {
            name: value * float("nan") if "layers.0.mlp.up_proj" in name else value for name, value in weights.items()
        },
    )
    told: Any = {"id": "m", "weights": str(model), "adapters": [], "digest": inspect_model(model).digest}
    with pytest.raises(StepError, match=r"the weight model\.layers\.0\.mlp\.up_proj\.weight is not finite") as caught:
        load_model(Store(tmp_path / "store"), told, torch.float32, torch.device("cpu"))
    assert caught.value.kind == "model"


def test_only_what_transformers_would_load_counts(model: Path) -> None:
    before = inspect_model(model)
    weights = load_file(model / "model.safetensors")
    save_file({f"layers.9.{name}": value for name, value in weights.items()}, model / "consolidated.safetensors")
    beside = inspect_model(model)
    assert (beside.parameters, beside.layout) == (before.parameters, before.layout)
    names = sorted(weights)
    parts = {"model-00001-of-00002.safetensors": names[:5], "model-00002-of-00002.safetensors": names[5:]}
    for file, held in parts.items():
        save_file({name: weights[name] for name in held}, model / file, {"format": "pt"})
    (model / "model.safetensors").unlink()
    with pytest.raises(LamdatuiError, match=r"neither model\.safetensors nor model\.safetensors\.index\.json"):
        inspect_model(model)
    index = {"weight_map": {name: file for file, held in parts.items() for name in held}}
    write_json(model / "model.safetensors.index.json", index)
    assert inspect_model(model).layout == before.layout
    index["weight_map"]["model.more.weight"] = next(iter(parts))
    write_json(model / "model.safetensors.index.json", index)
    with pytest.raises(
        LamdatuiError, match=r"1 weights that the index names are not in its files, the first: model\.more\.weight"
    ):
        inspect_model(model)


@pytest.mark.parametrize("where", [None, "text_config"])
def test_a_kernel_of_the_hub_is_code_and_refused(model: Path, where: str | None) -> None:
    """transformers fetches what config.json names so, where the package kernels is installed."""
    config = read_json(model / "config.json")
    for value in ("evil/kernel", {"": "evil/kernel@main"}):
        asked = {"_attn_implementation": value}
        write_json(model / "config.json", {**config, **(asked if where is None else {where: asked})})
        with pytest.raises(LamdatuiError, match="code of another repository \\(_attn_implementation\\)"):
            inspect_model(model)
    write_json(model / "config.json", {**config, "_attn_implementation": "sdpa"})
    assert inspect_model(model).architecture == "llama"
