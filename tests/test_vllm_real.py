"""vLLM itself, on the CPU: as planner and for scores. Slow: its environment is made first (some minutes, once)."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from pathlib import Path

import psutil
import pytest

from lamdatui.planner.client import PlannerClient
from lamdatui.planner.servers import planner_server
from lamdatui.planner.settings import PlannerSettings
from tests.conftest import REAL_CATALOGUE, Commands
from tests.vllmenv import vllm_python

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

PROFILE = """
name: q
seed: 1
models: {{ base: {{ path: "catalogue:smollm2-135m" }} }}
datasets: {{ mix: {{ path: "catalogue:quickstart-data-2/mix.jsonl" }} }}
tasks:
  format_constraints:
    path: "catalogue:quickstart-data-2/format_constraints.jsonl"
    scorer: constraints
    max_new_tokens: 24
    rows: {{ search: 12, sealed: 4 }}
objective: {{ weights: {{ format_constraints: 1.0 }} }}
actions: {{ sft: {{ max_steps: {{ default: 2, choices: [2] }}, batch_size: {{ default: 2 }} }} }}
policy: {{ name: random }}
budget: {{ trials: 1, baselines: 0 }}
dtype: float32
generation: {{ backend: {backend}, executable: {python} }}
mode: auto
"""


@pytest.fixture(scope="module")
def python() -> Path:
    return vllm_python(REAL_CATALOGUE.parent)


def test_a_real_vllm_plans_is_ended_and_reaped(python: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "1")
    settings = PlannerSettings(
        backend="vllm",
        model=str(REAL_CATALOGUE / "smollm2-135m"),
        executable=str(python),
        arguments=("--enforce-eager", "--dtype", "float32"),
        context=1024,
        sleep="never",
    )

    def gone(processes: list[psutil.Process]) -> bool:
        end = time.monotonic() + 30
        while time.monotonic() < end:
            if not any(process.is_running() and process.status() != psutil.STATUS_ZOMBIE for process in processes):
                return True
            time.sleep(0.1)
        return False

    async def body() -> None:
        server = planner_server(settings, tmp_path / "planner.log")
        await server.start()
        assert server.alive and server.identity and server.memory_bytes() > 2**28
        client = PlannerClient(settings, server.url, model=server.model, key=server.key)
        messages = [{"role": "user", "content": "Say yes or no."}]
        answer = await client.chat(messages, grammar=None, schema=None, max_tokens=8, temperature=0, seed=1)
        assert answer.text
        await client.close()
        root = psutil.Process(server.identity[0])
        below = root.children(recursive=True)
        assert len(below) >= 3
        # A crash of its engine takes all of it along.
        worker = max(below, key=lambda process: process.memory_info().rss)
        os.kill(worker.pid, signal.SIGKILL)
        assert await server.death(60)
        assert gone([root, *below])
        await server.start()
        root = psutil.Process(server.identity[0])
        below = root.children(recursive=True)
        await server.close()
        assert gone([root, *below])

    asyncio.run(body())


def test_a_real_vllm_scores_as_transformers_does(python: Path, cli: Commands) -> None:
    found = {}
    for backend in ("transformers", "vllm"):
        path = cli.folder / f"{backend}.yaml"
        path.write_text(PROFILE.format(backend=backend, python=python))
        done = cli("run", str(path), "--name", backend, "--headless", "--mode", "auto", "--trust", timeout=1800)
        assert done.returncode == 0, done.stderr
        shown = cli.show(backend)
        assert shown["engine"]["generator"] == backend
        found[backend] = [shown["base"], shown["winner"], *(trial["model"] for trial in shown["trials"])]
    log = (cli.runs / "vllm/steps/base-base/1/log.txt").read_text()
    assert "vLLM and transformers answer" in log and "did not take the adapter" not in log
    assert (cli.runs / "vllm/steps/1/1/generator.log").read_text().count("--lora-modules") >= 1
    scores = {
        backend: [model["scores"]["format_constraints"]["search"]["mean"] for model in models[:2]]
        for backend, models in found.items()
    }
    # Rounding may turn a token, and so a row of twelve with two constraints.
    assert all(abs(ours - theirs) <= 1 / 12 for ours, theirs in zip(*scores.values(), strict=True)), json.dumps(scores)
    assert not [p for p in psutil.process_iter(["cmdline"]) if "vllm.entrypoints" in " ".join(p.info["cmdline"] or [])]
