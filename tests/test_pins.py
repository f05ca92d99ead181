"""The lists of pinned versions agree with the ranges of pyproject.toml."""

from __future__ import annotations

import tomllib

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from lamdatui.planner import vllm
from tests.conftest import CHECKOUT

PROJECT = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]


def pins(name: str) -> dict[str, Version]:
    lines = (CHECKOUT / name).read_text().splitlines()
    found = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(package): Version(version) for package, version in found}


def wanted(*extras: str) -> list[Requirement]:
    lines = [*PROJECT["dependencies"], *(line for extra in extras for line in PROJECT["optional-dependencies"][extra])]
    return [need for need in map(Requirement, lines) if need.name != PROJECT["name"]]


@pytest.mark.parametrize(
    ("file", "extras"),
    [
        ("constraints.txt", ("dev", "lm-eval", "reasoning-gym", "serve")),
        ("constraints-vllm.txt", ("dev", "lm-eval", "reasoning-gym", "serve", "qlora", "llama-cpp-python", "vllm")),
    ],
)
def test_every_range_is_met(file: str, extras: tuple[str, ...]) -> None:
    pinned = pins(file)
    for need in wanted(*extras):
        version = pinned.get(canonicalize_name(need.name))
        assert version is not None, f"{file} has no {need.name}"
        assert version in need.specifier, f"{file}: {need.name}=={version} is outside {need.specifier}"


def test_one_environment_has_what_vllm_asks_for() -> None:
    pinned = pins("constraints-vllm.txt")
    assert pinned["vllm"] == Version(vllm.VERSION)
    # From the metadata of vLLM 0.32.0.
    for asked in (
        "torch==2.13.0",
        "transformers>=5.16.1,<5.20.0",
        "xgrammar==0.2.8",
        "numba==0.65.0",
        "fastapi>=0.133.0,<0.137.0",
    ):
        need = Requirement(asked)
        assert pinned[need.name] in need.specifier
