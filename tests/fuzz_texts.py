"""Wrong texts for their readers: profiles, rows of datasets and tasks, answers of a planner, declarations of action files."""

from __future__ import annotations

import asyncio
import csv
import datetime
import decimal
import functools
import gzip
import io
import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import pyarrow
import yaml
from pyarrow import ipc, parquet

from lamdatui.actionkit.check import TEMPLATE, checked
from lamdatui.base.errors import LamdatuiError
from lamdatui.base.jsonio import canonical
from lamdatui.config.resources import load_registry, load_types
from lamdatui.domain.actions import ActionType, BoundType, Param, Slot
from lamdatui.domain.declarations import declaration, declared_type
from lamdatui.inputs.datafiles import read_noted
from lamdatui.inputs.profile import dump_profile, load_profile
from lamdatui.inputs.rowshapes import dataset_format, read_row
from lamdatui.inputs.taskfiles import load_task
from lamdatui.inputs.templatechecks import Look
from lamdatui.inputs.templates import make_template
from lamdatui.planner import client as planner_client
from lamdatui.planner import grammar
from lamdatui.planner.answers import pick, plain, whole_sentences
from lamdatui.planner.choose import Chooser, Style
from lamdatui.planner.client import PlannerClient, PlannerError, probe_grammar
from lamdatui.planner.settings import PlannerSettings
from lamdatui.tasks.scorers import SCORERS, score
from lamdatui.wire.validation import check_types
from tests.conftest import CHECKOUT
from tests.fuzz import Make, Read, Target
from tests.mutators import TOKENS, dumped, mutate, reshape, wrong_json
from tests.test_profile import GOOD
from tests.test_rowshapes import REFUSED, TAKEN

Json = dict[str, Any]
CHATML = "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"


# --- profiles --------------------------------------------------------------------------------------------------------


def profiles(folder: Path) -> tuple[Make, Read]:
    """A profile's text and what `--set` says; what is taken is written as a run keeps it, and read again."""
    texts = [GOOD, *(file.read_text() for file in sorted((CHECKOUT / "profiles").glob("*.yaml")))]
    seeds = [text.encode() for text in texts]
    values = [yaml.safe_load(text) for text in texts]
    path, kept = folder / "mine.yaml", folder / "kept.yaml"

    def make(dice: random.Random) -> tuple[bytes, list[str]]:
        at = dice.choice((0, 0, 0, *range(len(texts))))
        match dice.randrange(5):
            case 0 | 1:
                return mutate(dice, seeds[at], seeds), []
            case 2:
                return wrong_json(dice, [values[at]]), []
            case 3:
                shaped = reshape(dice, values[at], values)
                return yaml.safe_dump(json.loads(json.dumps(shaped))).encode("utf-8", "surrogatepass"), []
        words = [
            "seed=1",
            "models.base.path=x",
            "policy={name: random}",
            "tasks.task.rows={search: 3}",
            "actions.sft.rank={default: 4}",
        ]
        return seeds[0], [mutate(dice, dice.choice(words).encode()).decode("utf-8", "surrogateescape") for _ in range(2)]

    def read(case: tuple[bytes, list[str]]) -> None:
        path.write_bytes(case[0])
        profile = load_profile(path, case[1])
        kept.write_text(dump_profile(profile), encoding="utf-8")
        if load_profile(kept).search_digest() != profile.search_digest():
            raise AssertionError("what is kept of a profile is another one")

    return make, read


# --- rows ------------------------------------------------------------------------------------------------------------

ROWS: list[Json] = [row for row, *_ in [*TAKEN.values(), *REFUSED.values()]]
CELLS: tuple[Any, ...] = (
    datetime.datetime(2024, 1, 1), datetime.datetime(1, 1, 1), datetime.date(2024, 1, 1), datetime.time(1), datetime.timedelta(1), decimal.Decimal("1.5"),
    b"\xff\x00", float("nan"), float("inf"), 2**62, True, None, {"a": datetime.date(2024, 1, 1)}, [b"x"], [decimal.Decimal(1)], "x", 1.5,
)  # fmt: skip
"""What columnar files hold that JSON does not."""


def datasets(folder: Path) -> tuple[Make, Read]:
    """Files of every format; what is taken is put through a chat template, and can be written as JSON, as a step does."""
    tables = _tables()
    template = make_template(folder, CHATML, "", {"eos_token": "<|im_end|>"}, None)

    def make(dice: random.Random) -> tuple[str, bytes, Json]:
        name, data = _file(dice, ROWS, tables)
        options: Json = {"answers": dice.choice(("all", "last"))}
        if dice.random() < 0.1:
            keys = [key for row in ROWS for key in row]
            options["columns"] = {
                dice.choice(("prompt", "completion", "messages", "role", "content")): dice.choice(keys) for _ in range(2)
            }
        return name, data, options

    def read(case: tuple[str, bytes, Json]) -> None:
        name, data, options = case
        path = folder / name
        path.write_bytes(data)
        found = read_noted(path, **options)
        look = Look(template)
        for row in found.rows:
            json.dumps(row).encode()
            look.add(row)
        look.notes()
        # A step reads the same rows from its own files.
        read_row(json.loads(json.dumps(found.rows[0])))
        assert dataset_format(found.rows[0]) == found.info.format

    return make, read


def tasks(folder: Path) -> tuple[Make, Read]:
    """Task files of every scorer; those that are taken score answers that nobody would give."""
    seeds = _task_rows()
    tables = _tables(task=True)

    def make(dice: random.Random) -> tuple[str, str, bytes, str]:
        scorer = dice.choice(list(seeds))
        rows = seeds[scorer]
        name, data = _file(dice, rows, tables, whole=rows)
        return scorer, name, data, _completion(dice, rows)

    def read(case: tuple[str, str, bytes, str]) -> None:
        scorer, name, data, completion = case
        path = folder / name
        path.write_bytes(data)
        task = load_task("task", path, scorer, 16, {})
        canonical([task.key("d", split, "float32") for split in task.rows])
        canonical([task.request("k", split) for split in task.rows])
        for row in (task.rows["search"][0], task.rows["sealed"][0]):
            found = score(scorer, row["reference"], completion) if scorer != "choice" else 0.0
            if not 0 <= found <= 1:
                raise AssertionError(f"a score of {found}")

    return make, read


def _task_rows() -> dict[str, list[Json]]:
    """Scorer → two rows of each split."""
    function = {
        "name": "f",
        "parameters": {"type": "dict", "properties": {"x": {"type": "integer"}, "y": {"type": "string"}}, "required": ["x"]},
    }
    references: dict[str, Any] = {
        "exact": ["a", ["a", "b"]],
        "word_f1": ["a b", ["c"]],
        "function_call": [{"answer": {"f": {"x": [1], "y": ["a", ""]}}, "function": [function]}] * 2,
        "bfcl": [{"category": "simple_python", "answer": [{"f": {"x": [1], "y": ["a", ""]}}], "function": [function]}] * 2,
        "constraints": [
            {"constraints": [{"kind": "min_words", "count": 3}, {"kind": "json"}]},
            {"constraints": [{"kind": "include", "words": ["a"]}, {"kind": "repeat", "text": "x"}]},
        ],
        "number": ["12", "1.5"],
        "regex": [{"pattern": "a+(b)", "answer": "b"}, "a+b"],
        "choice": ["a", "b"],
    }  # fmt: skip
    found: dict[str, list[Json]] = {}
    for scorer, (one, other) in references.items():
        more = {"asking": {"choices": ["a", "b"]}} if scorer == "choice" else {}
        found[scorer] = [
            {"id": f"{split}-{number}", "split": split, "messages": [{"role": "user", "content": f"q {split} {number}"}], "reference": reference, **more}
            for split in ("search", "sealed")
            for number, reference in enumerate((one, other))
        ]  # fmt: skip
    return found


def _completion(dice: random.Random, rows: Sequence[Json]) -> str:
    said = [
        '{"name": "f", "arguments": {"x": 1}}',
        "f(x=1, y='a')",
        "[f(x=1), f(x=2)]",
        "a b",
        "<think>x</think> 12",
        "```json\n{}\n```",
        "\\boxed{1}",
    ]
    if dice.random() < 0.4:
        return wrong_json(dice, [{"name": "f", "arguments": {"x": 1, "y": "a"}}, [rows[0]["reference"]]]).decode(
            "utf-8", "replace"
        )
    return mutate(dice, dice.choice(said).encode(), TOKENS).decode("utf-8", "replace")


def _file(
    dice: random.Random, rows: Sequence[Json], tables: Sequence[tuple[str, bytes]], whole: Sequence[Json] | None = None
) -> tuple[str, bytes]:
    """A name and bytes of rows, some of which are wrong, in one of the formats. `whole`: rows that belong together."""
    if dice.random() < 0.15:
        name, data = dice.choice(tables)
        return name, mutate(dice, data) if dice.random() < 0.8 else data
    chosen: list[Any] = list(whole) if whole else [dice.choice(rows)] * dice.choice((1, 2, 3))
    for _ in range(dice.choice((1, 1, 2))):
        place = dice.randrange(len(chosen))
        chosen[place] = reshape(dice, chosen[place], rows)
    match dice.randrange(8):
        case 0:
            name, data = "rows.json", dumped(chosen).encode()
        case 1:
            name, data = dice.choice(("rows.csv", "rows.tsv")), _csv(chosen)
        case _:
            ascii_only = dice.random() < 0.5
            name, data = (
                "rows.jsonl",
                "\n".join(dumped(row, ascii_only=ascii_only) for row in chosen).encode("utf-8", "surrogatepass"),
            )
    if dice.random() < 0.3:
        data = mutate(dice, data)
    if dice.random() < 0.04:
        name, data = f"{name}.gz", gzip.compress(data)
    elif dice.random() < 0.04:
        name, data = f"{name}.zst", pyarrow.compress(data, codec="zstd", asbytes=True)
    else:
        return name, data
    return name, mutate(dice, data) if dice.random() < 0.5 else data


def _csv(rows: Sequence[Any]) -> bytes:
    objects = [row for row in rows if isinstance(row, dict)] or [{}]
    names = list(dict.fromkeys(str(key) for row in objects for key in row))
    text = io.StringIO()
    writer = csv.writer(text, quoting=csv.QUOTE_ALL)
    writer.writerow(names)
    for row in objects:
        writer.writerow([value if isinstance(value, str) else dumped(value) for value in row.values()])
    return text.getvalue().encode("utf-8", "surrogatepass")


@functools.cache
def _tables(*, task: bool = False) -> list[tuple[str, bytes]]:
    """Parquet and Arrow of good rows, and of rows with a column of each type that JSON has not."""
    turns = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    every: list[list[Json]] = [[{"prompt": "q", "completion": "a"}] * 3, [{"messages": turns}] * 2]
    every += [[{"prompt": "q", "completion": "a", "more": cell}] for cell in CELLS]
    every += [[{"prompt": "q", "scorer": "exact", "reference": cell}] for cell in CELLS]
    every += [[{"messages": turns, "tools": [{"name": "f", "parameters": {"x": cell}}]}] for cell in CELLS]
    if task:
        every = [
            [{"id": str(split), "split": split, "messages": [{"role": "user", "content": split}], "reference": "a", "more": cell} for split in ("search", "sealed")]
            for cell in CELLS
        ]  # fmt: skip
    found = []
    for rows in every:
        table = pyarrow.Table.from_pylist(rows)
        for name in ("rows.parquet", "rows.arrow", "stream.arrow"):
            sink = io.BytesIO()
            if name == "rows.parquet":
                parquet.write_table(table, sink)
            else:
                with (ipc.new_file if name == "rows.arrow" else ipc.new_stream)(sink, table.schema) as writer:
                    writer.write_table(table)
            found.append((name, sink.getvalue()))
    return found


# --- the planner -----------------------------------------------------------------------------------------------------


def planners(folder: Path) -> tuple[Make, Read]:
    """What a planner's server sends, byte by byte, for every question that is asked of one."""
    settings = PlannerSettings(backend="openai", url="http://planner", model="m")
    said = {"body": b"", "status": 200, "models": b""}

    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("models"):
            return httpx.Response(200, stream=httpx.ByteStream(said["models"]))
        return httpx.Response(int(said["status"]), stream=httpx.ByteStream(said["body"]))

    def make(dice: random.Random) -> Json:
        return {
            "body": _stream(dice),
            "status": dice.choice((200, 200, 200, 200, 200, 400, 429, 500)),
            "models": wrong_json(dice, [{"data": [{"id": "m", "meta": {"n_params": 135_000_000}}]}]),
            "style": dice.choice(("letters", "yes-no")),
            "probe": dice.random() < 0.2,
        }

    client = PlannerClient(settings, "http://planner", model="m")
    client._http = httpx.AsyncClient(transport=httpx.MockTransport(answer))
    runner = asyncio.Runner()

    async def ask(case: Json) -> None:
        # What it has found out of a server in the case before.
        client.logprobs, client.dialect = True, "schema"
        if await client.parameters() < 0:
            raise AssertionError("a model with less than no parameters")
        if case["probe"]:
            await probe_grammar(client)
        await _chosen(client, case["style"])
        free = await client.chat([], grammar=grammar.free_text(), schema=None, max_tokens=9, temperature=0, seed=1)
        canonical([whole_sentences(free.text), plain(free.reasoning, 80), free.tokens, free.prompt_tokens, free.new_tokens])
        pick(free.text, "choice", ["a", "b", "A", "Yes"])

    def read(case: Json) -> None:
        said.update({name: case[name] for name in said})
        waits, planner_client.RETRY_WAITS = planner_client.RETRY_WAITS, ()
        try:
            runner.run(ask(case))
        finally:
            planner_client.RETRY_WAITS = waits

    return make, read


async def _chosen(client: PlannerClient, style: Style) -> None:
    async def ask(user: str, *, reuse_prefix: bool, **options: Any) -> Any:
        return await client.chat(
            [{"role": "user", "content": user}], temperature=0.0, seed=1, reuse_prefix=reuse_prefix, **options
        )

    picked = await Chooser(ask, style).choose("\n".join, str, ["one", "two", "three"], random.Random(1))
    canonical([picked.told(), list(picked.probabilities)])
    if abs(sum(picked.probabilities) - 1) > 1e-6:
        raise AssertionError("probabilities that do not add up to one")


def _stream(dice: random.Random) -> bytes:
    tops = [
        {"token": token, "logprob": dice.choice((-0.1, -2.5, 0, -9999))}
        for token in dice.sample(("A", "B", "C", " Yes", "No", "x"), 3)
    ]
    token = {"token": "A", "logprob": -0.1, "top_logprobs": tops}
    text = dice.choice(("A", "Yes", '{"choice": "A"}', '{"choice": "b"}', "It helped. It did not", "\x1b[2J\u202e", "a"))
    chunks: list[Any] = [
        {"choices": [{"delta": {"role": "assistant", "content": None}, "finish_reason": None}]},
        {"choices": [{"delta": {"content": text}, "logprobs": {"content": [token]}, "finish_reason": None}]},
        {"choices": [{"delta": {"reasoning": "hm"}, "finish_reason": "stop"}]},
        {"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 1, "total_tokens": 10}},
    ]  # fmt: skip
    if dice.random() < 0.85:
        place = dice.randrange(len(chunks))
        chunks[place] = reshape(dice, chunks[place], chunks)
    ascii_only = dice.random() < 0.5
    lines = [f"data: {dumped(chunk, ascii_only=ascii_only)}" for chunk in chunks]
    data = ("\n\n".join([*lines, "data: [DONE]"]) + "\n\n").encode("utf-8", "surrogatepass")
    return mutate(dice, data) if dice.random() < 0.3 else data


# --- action files ----------------------------------------------------------------------------------------------------


def declarations_of_actions(folder: Path) -> tuple[Make, Read]:
    """The class that an action file declares, with other values: held against the rules, offered, recorded and read back."""
    seeds = [_plain_type(bound.type) for bound in load_registry().types.values()]

    def make(dice: random.Random) -> Json:
        shaped = reshape(dice, dice.choice(seeds), seeds)
        return shaped if isinstance(shaped, dict) else {"name": shaped}

    def read(case: Json) -> None:
        kind = _declared(case)
        (found,) = checked([kind], "file.py")
        # This process has imported what an action file must not.
        problems = [problem for problem in found.problems if not problem.startswith("loading the file imports")]
        "\n".join([*problems, found.name]).encode("utf-8", "backslashreplace")
        if problems:
            raise LamdatuiError("; ".join(problems))
        bound = BoundType(kind, tuple(kind.params))
        told = json.loads(canonical({kind.name: declaration(bound)}))
        check_types({"types": told})
        declared_type(kind.name, told[kind.name]).defaults()
        bound.fill({})

    return make, read


def _plain_type(kind: ActionType) -> Json:
    found = {name: getattr(kind, name) for name in ("name", "version", "summary", "family", "source", "output", "samples")}
    told = declaration(BoundType(kind, tuple(kind.params)))
    return json.loads(json.dumps({**found, "slots": told["slots"], "params": told["params"]}))


def _declared(told: Json) -> ActionType:
    """An action type whose class says this: lists of objects that look like slots or hyperparameters are made such."""
    body: Json = {"run": lambda self, step: None}
    for name, value in told.items():
        items = tuple(_part(item, name) for item in value) if isinstance(value, list) else value
        body[str(name).replace("\0", "")] = items
    body = {
        name: value
        for name, value in body.items()
        if not name.startswith("__") and not any("\ud800" <= c <= "\udfff" for c in name)
    }
    return type("Own", (ActionType,), body)()


def _part(item: Any, name: str) -> Any:
    """As a person writes it: what the class takes is given to it, whatever its value."""
    cls = {"slots": Slot, "params": Param}.get(name)
    if cls is None or not isinstance(item, dict):
        return item
    raw = {f"@raw:{name}@": float(value) for name, value in (("nan", "nan"), ("infinity", "-inf"), ("400 digits", "inf"))}
    item = {key: raw.get(value, value) if isinstance(value, str) else value for key, value in item.items()}
    known = {
        key: tuple(value) if isinstance(value, list) else value
        for key, value in item.items()
        if key in cls.__dataclass_fields__
    }
    try:
        return cls(**known)
    except TypeError:  # Python's own words for a missing argument, told with the line of the file
        return item


def action_files(folder: Path) -> tuple[Make, Read]:
    """The text of an action file: what is no Python, or declares something else, is told. Only words of the shipped files are ever run."""
    template = TEMPLATE.replace("@NAME@", "mine").replace("@CLASS@", "Mine")
    texts = [template.encode(), *(file.read_bytes() for file in sorted((CHECKOUT / "actions").glob("[!_]*.py")))]
    path = folder / "mine.py"

    def make(dice: random.Random) -> bytes:
        text = dice.choice((texts[0], texts[0], dice.choice(texts)))
        # Within what is run when the file is read: the body of a method never is.
        return mutate(dice, text, [b"None", b"()", b"[]", b"{}", b"1", b"-1", b"''", b"'x'", b"True", b"\n", b"    "])

    def read(case: bytes) -> None:
        path.write_bytes(case)
        try:
            kinds = load_types("user", path)
        except BaseException as error:
            # What a file raises is told by whoever reads files: here it only must not end anything.
            if isinstance(error, KeyboardInterrupt | AssertionError):
                raise
            raise LamdatuiError(f"{type(error).__name__}: {error}"[:500]) from error
        for item in checked(kinds, str(path)):
            str(item)

    return make, read


TARGETS: dict[str, Target] = {
    "profile": Target(profiles),
    "dataset": Target(datasets),
    "task": Target(tasks),
    "planner": Target(planners, (PlannerError,)),
    "declaration": Target(declarations_of_actions),
    # What a file itself takes, read in a process of its own by the product, is not its reader's.
    "action-file": Target(action_files, room=150 * 2**20),
}
"""By name; `SCORERS` that need a package of their own are left out of the tasks."""
assert set(_task_rows()) < set(SCORERS)
