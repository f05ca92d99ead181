"""Model directories that are not what they should be: one error that names the file, whatever stands in it."""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lamdatui.base.errors import LamdatuiError
from lamdatui.inputs.modelfiles import inspect_model
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


def test_an_adapter_is_not_a_model(model: Path) -> None:
    (model / "adapter_config.json").write_text("{}")
    with pytest.raises(LamdatuiError, match="adapter"):
        inspect_model(model)
    (model / "config.json").unlink()
    with pytest.raises(LamdatuiError, match=r"no readable config.json"):
        inspect_model(model)
    for other in (model / "tokenizer.json", model / "nothing"):
        with pytest.raises(LamdatuiError):
            inspect_model(other)
