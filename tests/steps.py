"""Real steps on the lab, in this process: what a step's process does between its claim and its outcome, without its start."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lamdatui.base.jsonio import digest
from lamdatui.config.resources import load_registry
from lamdatui.domain.actions import make_action
from lamdatui.domain.objects import DatasetObject, ModelObject, ObjectPool, PoolObject, object_to_json
from lamdatui.domain.state import RunState
from lamdatui.domain.trials import Trial
from lamdatui.inputs.datafiles import inspect_dataset, read_task_rows
from lamdatui.inputs.modelfiles import inspect_model
from lamdatui.step.files import write_request
from lamdatui.step.request import reference, result_object
from lamdatui.store.artifacts import Store

SKILLS = ("reverse", "copy", "call")


class Lab:
    """A pool of the lab's objects, a store, and steps that add to both; ids of results are those of trials (`m1`, `d2`)."""

    def __init__(self, lab: Path, folder: Path, *, dtype: str = "float32", threads: int = 1) -> None:
        self.dtype, self.threads = dtype, threads
        self.lab = lab
        self.folder = folder
        self.store = Store(folder / "store")
        self.registry = load_registry()
        self.state = RunState(pool=ObjectPool())
        self.extra: dict[str, Any] = {}
        """What requests say besides."""
        for name in ("llama", "phi"):
            self.add_model(name, lab / name)
        for path in sorted((lab / "data").glob("*.jsonl")):
            self.add_dataset(path.stem, path)

    @property
    def pool(self) -> ObjectPool:
        return self.state.pool

    def add_model(self, name: str, path: Path) -> None:
        """Put a model directory into the pool."""
        info = inspect_model(path)
        self.pool.add(
            ModelObject(
                name,
                info.digest,
                info.architecture,
                info.layout,
                str(path),
                (),
                info.parameters,
                tokenizer=info.tokenizer,
                traits=info.traits,
                sizes=info.sizes,
            )
        )

    def add_dataset(self, name: str, path: Path) -> None:
        """Put a dataset file into the pool."""
        info = inspect_dataset(path)
        self.pool.add(
            DatasetObject(name, info.digest, info.format, info.rows, str(path), chars=info.chars, longest=info.longest)
        )

    def problems(self, kind: str, inputs: Mapping[str, Sequence[str]], device: str = "cpu", **params: Any) -> list[str]:
        """What `check` says of an action."""
        bound = self.registry.get(kind)
        return bound.problems({k: tuple(v) for k, v in inputs.items()}, bound.fill(params), self.pool, device)

    def attempt(
        self,
        kind: str,
        inputs: Mapping[str, Sequence[str]],
        *,
        seed: int = 1,
        evaluations: Sequence[dict[str, Any]] = (),
        small: bool = False,
        **params: Any,
    ) -> tuple[dict[str, Any], Path, dict[str, Any]]:
        """Run one action; (outcome, the step's directory, the action as JSON)."""
        bound = self.registry.get(kind)
        named = {slot: tuple(ids) for slot, ids in inputs.items()}
        assert bound.problems(named, bound.fill(params), self.pool) == []
        action = make_action(bound, named, params, self.pool, seed=seed, dtype=self.dtype).to_json()
        folder = self.folder / f"step-{len(list(self.folder.glob('step-*'))) + 1}"
        folder.mkdir(parents=True)
        models, datasets = {}, {}
        for slot in bound.type.slots:
            if slot.takes_models:
                models[slot.name] = [reference(self.pool.model(each), self.pool) for each in named.get(slot.name, ())]
            else:
                datasets[slot.name] = [object_to_json(self.pool.dataset(each)) for each in named.get(slot.name, ())]
        request = {"step": "1/1", "purpose": "trial", "trial": 1, "digest": action["digest"], "action": action}
        request |= {"models": models, "datasets": datasets, "subject": None, "evaluations": list(evaluations)}
        request |= {"store": str(self.store.root), "device": "cpu", "dtype": self.dtype}
        request |= {"threads": self.threads, "small": small, "always": False}
        request["tasks"] = [{"path": str(path), "digest": ""} for path in sorted((self.lab / "tasks").glob("*.jsonl"))]
        write_request(folder, request | self.extra)
        self.execute(folder)
        return json.loads((folder / "outcome.json").read_text()), folder, action

    def execute(self, folder: Path) -> None:
        """Do the step of a directory, to its outcome."""
        from lamdatui.step.child import run_step

        run_step(folder, self.registry)

    def run(self, kind: str, inputs: Mapping[str, Sequence[str]], **settings: Any) -> PoolObject:
        """Run one action that has to work; its result, which is in the pool from then on."""
        outcome, folder, action = self.attempt(kind, inputs, **settings)
        assert outcome["status"] == "ok", f"{kind}: {outcome['error']}"
        number = max(self.state.trials, default=0) + 1
        self.state.trials[number] = Trial(number, "done", action)
        made = result_object(self.state, number, self.registry.get(kind).type, self.store.manifest(action["digest"]))
        self.pool.add(made)
        self.last = folder
        return made

    def model(self, kind: str, inputs: Mapping[str, Sequence[str]], **settings: Any) -> ModelObject:
        """`run` of an action that makes a model."""
        made = self.run(kind, inputs, **settings)
        assert isinstance(made, ModelObject)
        return made

    def dataset(self, kind: str, inputs: Mapping[str, Sequence[str]], **settings: Any) -> DatasetObject:
        """`run` of an action that makes a dataset."""
        made = self.run(kind, inputs, **settings)
        assert isinstance(made, DatasetObject)
        return made

    def rows(self, data: DatasetObject) -> list[dict[str, Any]]:
        """The normalised rows of a dataset that an action made."""
        lines = (self.store.resolve(data.path) / "data.jsonl").read_text(encoding="utf-8").splitlines()
        return [json.loads(line) for line in lines]

    def load(self, name: str) -> Any:
        """A model of the pool, loaded in float32 with its adapters merged in."""
        import torch

        from lamdatui.step.models import load_model

        return load_model(self.store, reference(self.pool.model(name), self.pool), torch.float32, torch.device("cpu"))

    def weights(self, name: str) -> dict[str, Any]:
        """Name → tensor of a model of the pool."""
        return {key: tensor.detach() for key, tensor in self.load(name).named_parameters()}

    def difference(self, a: str, b: str) -> float:
        """The largest difference of any weight of two models of one layout."""
        ours, theirs = self.weights(a), self.weights(b)
        assert ours.keys() == theirs.keys()
        return max(float((ours[name] - theirs[name]).abs().max()) for name in ours)

    def accuracy(self, name: str, skills: Sequence[str] = SKILLS, rows: int = 100) -> dict[str, float]:
        """Exact match on the first search rows of each skill."""
        return {skill: sum(found) / len(found) for skill, found in self.scores(name, skills, rows).items()}

    def scores(
        self, name: str, skills: Sequence[str] = SKILLS, rows: int = 100, split: str = "search"
    ) -> dict[str, list[float]]:
        """Skill → score of each of the first `rows` rows of a split."""
        from lamdatui.step.evaluate import evaluate
        from lamdatui.step.generate import BATCH_TOKENS
        from lamdatui.step.generators import TransformersGenerator
        from lamdatui.step.models import load_tokenizer

        model, tokenizer = self.load(name), load_tokenizer(self.store, reference(self.pool.model(name), self.pool))
        generator = TransformersGenerator(model, tokenizer, BATCH_TOKENS)
        found = {}
        for skill in skills:
            request = {"task": skill, "split": split, "key": "", "path": str(self.lab / "tasks" / f"{skill}.jsonl")}
            found_rows = [row for row in read_task_rows(Path(request["path"])) if row["split"] == split][:rows]
            request |= {"rows": rows, "rows_digest": digest(found_rows), "scorer": "exact", "max_new_tokens": 16}
            value = evaluate(generator, tokenizer, request, lambda **_: None)
            found[skill] = [row["score"] for row in value["rows"]]
        return found
