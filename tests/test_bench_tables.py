"""The tables of bounded spaces: what is in a space, and that a build can be cut anywhere."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bench.policies.build import Build
from bench.policies.spaces import MERGES, SPECS, Planned, Spec, enumerate_space, generated_rows, opening_ids
from bench.policies.table import Node, Table
from lamdatui.tasks.strings import split_of

TINY = Spec(
    "tiny",
    "llama",
    ("reverse", "copy"),
    ("call",),
    "prefer",
    sft_rates=(1e-3,),
    sft_steps=(4,),
    dpo_rates=(3e-4,),
    opening=(1e-3, 4, 3e-4),
    expanded=(1, 1),
    merged=0,
    pairs=(0, 1),
)


@pytest.fixture(params=sorted(SPECS))
def spec(request: pytest.FixtureRequest) -> Spec:
    return SPECS[request.param]


def full(nodes: list[Planned]) -> list[Planned]:
    return [node for node in nodes[1:] if node.fraction == 1.0 and node.seed == 1]


def test_a_space_is_the_same_each_time_and_has_each_node_once(spec: Spec) -> None:
    nodes = enumerate_space(spec)
    assert nodes == enumerate_space(spec)
    assert [node.id for node in nodes] == list(range(len(nodes)))
    assert len({node.key for node in nodes}) == len(nodes)
    assert len(full(nodes)) >= 560


def test_parents_come_first_and_may_have_children(spec: Spec) -> None:
    nodes = enumerate_space(spec)
    for node in nodes[1:]:
        parents = [nodes[parent] for parent in node.models]
        assert parents and all(parent.id < node.id and parent.expandable for parent in parents)
        assert all(parent.fraction == 1.0 and parent.seed == 1 for parent in parents)
        assert node.depth == 1 + max(parent.depth for parent in parents)
        assert len(parents) == (2 if node.type in MERGES else 1)


def test_what_is_expanded_has_all_eighteen_actions(spec: Spec) -> None:
    nodes = enumerate_space(spec)
    counts: dict[int, int] = {}
    for node in full(nodes):
        if node.type not in MERGES:
            counts[node.models[0]] = counts.get(node.models[0], 0) + 1
    assert set(counts.values()) == {18}
    depths = [nodes[model].depth for model in counts]
    assert [depths.count(depth) for depth in range(4)] == [1, 12, 12, 1]
    assert any(nodes[model].type in MERGES and nodes[model].depth == 2 for model in counts)


def test_the_opening_is_there_and_goes_on(spec: Spec) -> None:
    nodes = enumerate_space(spec)
    tuned, preferred, merged = (nodes[each] for each in opening_ids(spec, nodes))
    assert (tuned.type, tuned.models, tuned.dataset) == ("sft", (0,), spec.sft[0])
    assert (preferred.type, preferred.models) == ("dpo", (tuned.id,))
    assert (merged.type, merged.models) == ("merge_linear", (tuned.id, preferred.id))
    assert all(node.expandable for node in (tuned, preferred, merged))


def test_quarters_and_repeats_are_leaves_of_what_is_there_in_full(spec: Spec) -> None:
    nodes = enumerate_space(spec)
    known = {(n.type, n.models, n.dataset, tuple(n.params.items())) for n in full(nodes)}
    others = [node for node in nodes[1:] if node.fraction < 1.0 or node.seed > 1]
    assert all((n.type, n.models, n.dataset, tuple(n.params.items())) in known and not n.expandable for n in others)
    assert sum(node.fraction < 1.0 for node in others) == sum(n.type == "sft" and n.depth <= 2 for n in full(nodes))
    repeats = [node for node in others if node.seed > 1]
    assert len(repeats) == 2 * round(0.1 * len(full(nodes)))
    assert not any(node.type in MERGES for node in repeats)


def test_generated_rows_are_of_the_training_split() -> None:
    spec = SPECS["phi"]
    for name, parts in spec.generated.items():
        rows = generated_rows(spec, name, 1)
        assert rows == generated_rows(spec, name, 1)
        assert len(rows) == sum(parts.values())
        assert {split_of(row["prompt"].partition(":")[2].removesuffix("=")) for row in rows} == {"train"}


def made(table: Table) -> dict[int, Node]:
    return {node.id: replace(node, seconds=0.0) for node in table.nodes.values()}


def test_a_build_that_was_cut_goes_on_to_the_same_table(lab: Path, tmp_path: Path) -> None:
    for name in ("cut", "whole"):
        (tmp_path / name).mkdir()
    Build(TINY, tmp_path / "cut", check=0).run(limit=3)
    with (tmp_path / "cut" / "journal.jsonl").open("a") as journal:
        journal.write('{"key": "half a li')
    # The weights are gone too: parents are made again when they are needed.
    shutil.rmtree(tmp_path / "cut" / "store" / "objects")
    again = Build(TINY, tmp_path / "cut", check=0)
    assert len(again.records) == 3
    again.run(limit=2)
    whole = Build(TINY, tmp_path / "whole", check=1)
    whole.run(limit=5)
    cut, other = again.table(), whole.table()
    assert made(cut) == made(other)
    assert len(cut.nodes) == 5
    assert cut.bits.keys() == other.bits.keys() and all((cut.bits[node] == other.bits[node]).all() for node in cut.bits)
    assert other.made["decoded"] == {"nodes": 1, "rows": 600, "differ": 0}

    file = tmp_path / "tiny.json.xz"
    cut.save(file)
    read = Table.load(file)
    assert (read.name, read.tasks, read.rows, read.opening) == (cut.name, cut.tasks, cut.rows, cut.opening)
    assert (read.nodes, read.settings, read.made) == (cut.nodes, cut.settings, cut.made)
    for node in read.nodes:
        assert read.search(node).shape == (2, 100) and read.sealed(node).shape == (2, 200)
        assert (read.search(node) == cut.search(node)).all() and (read.sealed(node) == cut.sealed(node)).all()
        assert read.objective(node) == pytest.approx(sum(read.score(node).values()))
    assert read.children(0) == [1, 2] and read.find("sft", [0], "call", {"learning_rate": 1e-3, "max_steps": 4}) == 1
    # What a table says of the base is what its task says.
    assert read.score(0, "sealed")["copy"] == np.mean(again.works.scores("llama", ("copy",), 200, "sealed")["copy"])


def test_a_failed_node_is_a_result_and_its_children_have_no_parent(lab: Path, tmp_path: Path) -> None:
    build = Build(TINY, tmp_path, check=0)
    child = next(node for node in build.nodes if node.models == (1,))
    build.records[build.nodes[1].key] = {"status": "failed", "error": "nan", "seconds": {"execute": 1.0, "evaluate": 0.0}}
    record = build.make(child)
    assert (record["status"], record["error"]) == ("failed", "parent")
