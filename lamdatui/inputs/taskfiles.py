"""A task: rows of two disjoint splits, a scorer, and the settings that its answers are generated with."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from lamdatui.base.errors import LamdatuiError
from lamdatui.base.jsonio import canonical, digest
from lamdatui.domain.objects import ModelObject
from lamdatui.domain.schemes import ASKED, GENERATORS, SCHEME, numbered
from lamdatui.inputs.asking import is_rated
from lamdatui.inputs.datafiles import asked, read_task
from lamdatui.inputs.ownscorers import OwnScorer, own_scorer
from lamdatui.tasks.judging import JUDGED, PROMPTS
from lamdatui.tasks.scorers import CHOICE, LM_EVAL, SCORERS, problem, score
from lamdatui.tasks.thinking import without_thinking

Split = Literal["search", "sealed"]
PROMPT_FORMAT = "chat-template"
"""Prompts go through the model's own chat template, with the generation prompt added."""


@dataclass(frozen=True)
class Asking:
    """How a task's answers are asked for and read.

    `think`: whether what a model thought before its answer is scored with it; `thinking`: whether the chat template is told to let the model
    think (null: it is told nothing); `generation`: settings of the model's own generation_config.json count, or none of them.
    """

    think: Literal["strip", "keep"] = "strip"
    thinking: bool | None = None
    generation: Literal["neutral", "own"] = "neutral"


BEFORE = Asking("keep", None, "own")
"""How answers were asked for and read before `ASKED`."""


@dataclass(frozen=True)
class Judge:
    """The model that judges a task's answers (`lamdatui.tasks.judging`). Its object is in no pool."""

    model: ModelObject

    @property
    def identity(self) -> str:
        """Of the judge and of how it is asked: what a run began with it keeps, also in a version that asks otherwise."""
        return digest([self.model.digest, PROMPTS])

    def request(self) -> dict[str, Any]:
        """How a step finds it, and what it has to find there (`lamdatui.step.request.ModelReference`)."""
        found = {
            "id": self.model.id,
            "weights": self.model.weights,
            "adapters": list(self.model.adapters),
            "digest": self.model.digest,
        }
        return {**found, "template": self.model.template, "own": self.model.own}


@dataclass(frozen=True)
class Task:
    """`rows[split]` are dicts with `id`, `messages`, `reference`; generation is greedy, at most `max_new_tokens`.

    `digest` is the sha256 of the task file's bytes.
    """

    name: str
    scorer: str
    max_new_tokens: int
    rows: dict[str, tuple[dict[str, Any], ...]]
    path: Path
    digest: str = ""
    asking: Asking = Asking()
    examples: tuple[dict[str, Any], ...] = ()
    """Messages that stand before each question (`lamdatui.inputs.fewshot`)."""
    own: OwnScorer | None = None
    """The scorer, where a person wrote it."""
    judge: Judge | None = None

    def key(self, model_digest: str, split: str, dtype: str, scheme: int = SCHEME, generator: str = GENERATORS[0]) -> str:
        """Identifies an evaluation: the model, the rows, the scorer, the prompt format and the generation settings.

        `scheme` says which scheme of digests (see `lamdatui.domain.schemes`) the key is of, `generator` what answers.
        """
        body: dict[str, Any] = {
            "model": model_digest,
            "rows": self.rows_digest(split),
            "scorer": self.scorer,
            "format": PROMPT_FORMAT,
            "max_new_tokens": self.max_new_tokens,
            "dtype": dtype,
        }
        if scheme >= ASKED:
            body |= asdict(self.asking)
        if generator != GENERATORS[0]:
            body["generator"] = generator
        if self.examples:
            body["examples"] = self.examples
        if self.own:
            body["scorer_source"] = self.own.source
        if self.judge:
            body["judge"] = self.judge.identity
        return digest(numbered(body, scheme))

    def with_examples(self, examples: tuple[dict[str, Any], ...]) -> Task:
        """The same task, asked after examples."""
        return replace(self, examples=examples)

    def rows_digest(self, split: str) -> str:
        """Digest of a split's rows: what a step that reads the file again has to find in it."""
        return self._digests[split]

    @cached_property
    def _digests(self) -> dict[str, str]:
        return {split: digest(rows) for split, rows in self.rows.items()}

    def agrees(self, rows: list[dict[str, Any]], split: str) -> bool:
        """Whether an evaluation's rows, which the first version wrote, are this split's, each with the score that its completion has."""
        if self.own or self.judge:
            return False  # it knew none of these
        try:
            return [row["id"] for row in rows] == [row["id"] for row in self.rows[split]] and all(
                score(self.scorer, asked["reference"], row["completion"], older=True) == row["score"]
                for asked, row in zip(self.rows[split], rows, strict=True)
            )
        except (KeyError, TypeError, ValueError):
            return False

    def reads_alike(self, rows: list[dict[str, Any]], split: str) -> bool:
        """Whether an evaluation of an older scheme has the scores that it would have now."""
        plain = not any({"tools", "chat_template_kwargs"} & row.keys() for row in self.rows[split])
        return (
            plain
            and self.own is None
            and self.judge is None
            and self.asking == Asking()
            and all(
                score(self.scorer, held["reference"], without_thinking(row["completion"])) == row["score"]
                for held, row in zip(self.rows[split], rows, strict=True)
            )
        )

    def request(self, key: str, split: str, scheme: int = SCHEME) -> dict[str, Any]:
        """What a step needs in order to evaluate one split, in a run of a scheme."""
        return {
            "task": self.name,
            "split": split,
            "key": key,
            "path": str(self.path),
            "rows": len(self.rows[split]),
            "rows_digest": self.rows_digest(split),
            "scorer": self.scorer,
            "max_new_tokens": self.max_new_tokens,
            **asdict(self.asking if scheme >= ASKED else BEFORE),
            "older": scheme < ASKED,
            **({"examples": list(self.examples)} if self.examples else {}),
            **({"scorer_source": self.own.source} if self.own else {}),
            **(self._judged() if self.judge else {}),
            **({"rated": True} if any(is_rated(row.get("asking") or {}) for row in self.rows[split]) else {}),
        }

    def _judged(self) -> dict[str, Any]:
        """Of a request: the judge, and the rows that it is tried out on."""
        assert self.judge is not None
        tried = {"tried_rows": len(self.rows["search"]), "tried_rows_digest": self.rows_digest("search")}
        return {"judge": self.judge.request(), **tried}


def load_task(
    name: str,
    path: Path,
    scorer: str,
    max_new_tokens: int,
    limits: dict[str, int],
    asking: Asking | None = None,
    judge: Judge | None = None,
) -> Task:
    """Read a task file and keep the first `limits[split]` rows of each split.

    Raises LamdatuiError when a row is malformed, when a split is empty or too short, or when the splits share a prompt.
    """
    try:
        own = None if scorer in SCORERS or judge else own_scorer(scorer)
    except LamdatuiError as error:
        if scorer in JUDGED:
            raise LamdatuiError(
                f"the scorer {scorer} needs a judge", where=f"task {name}", fix="add judge: {model: FOLDER} to the task"
            ) from error
        raise LamdatuiError(error.what, where=error.where or f"task {name}", fix=error.fix) from error
    every, found = read_task(path)
    for row in every:
        if wrong := own.problem(row["reference"]) if own else problem(scorer, row["reference"]):
            where = f"{path}, the row {row['id']!r} (task {name})"
            raise LamdatuiError(f"the reference does not suit the scorer {scorer}: {wrong}", where=where)
        rated = is_rated(row.get("asking") or {})
        if scorer != LM_EVAL and not own and rated != (scorer == CHOICE):
            what = "has choices, which the scorer choice rates" if rated else "has no choices that could be rated"
            raise LamdatuiError(
                f"the row {what}; the task's scorer is {scorer}", where=f"{path}, the row {row['id']!r} (task {name})"
            )
    rows = {}
    for split in ("search", "sealed"):
        having = tuple(row for row in every if row["split"] == split)
        wanted = limits.get(split, len(having))
        if not having or len(having) < wanted:
            raise LamdatuiError(
                f"{len(having)} {split} rows; the profile asks for {wanted or 'some'}", where=f"{path} (task {name})"
            )
        rows[split] = having[:wanted]
    search, sealed = ({canonical(asked(row)["prompt"]) for row in rows[split]} for split in ("search", "sealed"))
    shared = search & sealed
    if shared:
        raise LamdatuiError(
            f"{len(shared)} prompts are in both splits", where=f"{path} (task {name})", fix="make the splits disjoint"
        )
    return Task(name, scorer, max_new_tokens, rows, path, found, asking or Asking(), own=own, judge=judge)
