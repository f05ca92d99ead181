"""What fuzzing found, the smallest input of each kind: readers hold what they read against its declared types, and refuse what lies."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import decimal
import io
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import apsw
import pyarrow
import pytest
from pyarrow import ipc, parquet

from lamdatui.actionkit.check import checked
from lamdatui.base.errors import MOST_CHARS, LamdatuiError
from lamdatui.base.jsonio import Damaged, write_json, write_record
from lamdatui.cli.headless import Headless
from lamdatui.cli.show import print_run
from lamdatui.config.resources import load_registry
from lamdatui.domain.actions import ActionType, Param, Slot
from lamdatui.domain.declarations import faults
from lamdatui.domain.state import RunState
from lamdatui.engine.server import Peer, Server
from lamdatui.inputs.adapterfiles import find_base
from lamdatui.inputs.datafiles import read_noted
from lamdatui.inputs.modelfiles import inspect_model
from lamdatui.inputs.taskfiles import load_task
from lamdatui.inputs.templates import read_template
from lamdatui.planner.session import MOST_RECORDED, PlannerSession
from lamdatui.planner.settings import PlannerSettings
from lamdatui.step.files import CLAIM, OUTCOME, read_claim, read_outcome
from lamdatui.store.artifacts import Store
from lamdatui.store.journal import Journal, read_run, read_state
from lamdatui.store.schema import link
from lamdatui.ui.view.state import ViewState
from lamdatui.wire.client import Client
from lamdatui.wire.protocol import FRAME_BYTES, decode, encode
from tests.fuzz_folders import _model
from tests.test_journal import MODEL, fill
from tests.views import PROMPTS

Json = dict[str, Any]

# --- texts -----------------------------------------------------------------------------------------------------------

TURNS = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]


@pytest.mark.parametrize(
    ("cell", "read"),
    [
        (datetime.date(2024, 1, 2), "2024-01-02"),
        (datetime.datetime(2024, 1, 2, 3), "2024-01-02T03:00:00"),
        (datetime.timedelta(hours=1), "1:00:00"),
        (decimal.Decimal("1.50"), "1.50"),
        (b"\xff\0", {"base64": "/wA="}),
        ({"a": [b"x"]}, {"a": [{"base64": "eA=="}]}),
    ],
)
def test_columns_that_json_does_not_have_are_read_as_it_would_write_them(tmp_path: Path, cell: Any, read: Any) -> None:
    rows = [
        {"id": split, "split": split, "messages": [{"role": "user", "content": split}], "reference": "a", "more": cell}
        for split in ("search", "sealed")
    ]
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "task.parquet")
    assert load_task("t", tmp_path / "task.parquet", "exact", 9, {}).rows["search"][0]["more"] == read
    tool = {"name": "f", "parameters": {"x": cell}}
    parquet.write_table(
        pyarrow.Table.from_pylist([{"messages": TURNS, "tools": [tool], "prompt": None}]), tmp_path / "data.parquet"
    )
    (row,) = read_noted(tmp_path / "data.parquet").rows
    assert row["tools"][0]["function"]["parameters"] == {"x": read}
    parquet.write_table(pyarrow.Table.from_pylist([{"prompt": "q", "completion": b"a"}]), tmp_path / "bytes.parquet")
    with pytest.raises(LamdatuiError, match="a message is"):
        read_noted(tmp_path / "bytes.parquet")


def test_an_arrow_file_whose_offsets_lie_is_refused(tmp_path: Path) -> None:
    sink = io.BytesIO()
    table = pyarrow.table({"prompt": ["a" * 20] * 3, "completion": ["b"] * 3})
    with ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    data = sink.getvalue()
    offsets = b"".join(number.to_bytes(4, "little") for number in (0, 20, 40, 60))
    assert data.count(offsets) == 1
    (tmp_path / "d.arrow").write_bytes(data.replace(offsets, offsets[:4] + b"\xf0\xff\xff\xff" + offsets[8:]))
    with pytest.raises(LamdatuiError, match="can't be read as Arrow"):
        read_noted(tmp_path / "d.arrow")


def test_an_error_quotes_no_more_than_a_person_reads(tmp_path: Path) -> None:
    (tmp_path / "d.jsonl").write_text(json.dumps({"messages": [{"role": "x" * 70_000, "content": "q"}, TURNS[1]]}))
    with pytest.raises(LamdatuiError) as refused:
        read_noted(tmp_path / "d.jsonl")
    assert len(refused.value.what) == MOST_CHARS + 1 and len(str(refused.value).splitlines()) == 3
    assert str(LamdatuiError("a\nb\r\n  c", where="d", fix="e\nf")) == "error: a b c\n  where: d\n  fix:   e f"


# --- action files ----------------------------------------------------------------------------------------------------

SLOT = Slot("model", "model", "the model")
PARAM = Param("rate", "float", 0.5, "how fast", (0.5,), 0.0, 1.0)


class Declared(ActionType):
    name, summary, family, source = "mine", "trains a model a little", "supervised", "a paper"
    slots, params = (SLOT,), (PARAM,)

    def run(self, step: Any) -> None:
        return


def _changed(item: Any, **values: Any) -> Any:
    made = object.__new__(type(item))
    for name in item.__dataclass_fields__:
        object.__setattr__(made, name, values.get(name, getattr(item, name)))
    return made


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"summary": 5}, "summary: Expected `str`, got `int`"),
        ({"source": ("a", "b")}, "source: Expected `str`, got `array`"),
        ({"params": 7}, "params: a tuple, not int"),
        ({"params": (3,)}, "params, number 1: Param(…), not int"),
        ({"slots": ({"name": "model"},)}, "slots, number 1: Slot(…), not dict"),
        ({"slots": (_changed(SLOT, least="1"),)}, "slots, number 1: least: Expected `int`, got `str`"),
        ({"slots": (_changed(SLOT, help=[]),)}, "slots, number 1: help: Expected `str`"),
        ({"params": (_changed(PARAM, low="0"),)}, "params, number 1: low: Expected `float | null`, got `str`"),
        ({"params": (_changed(PARAM, high=float("inf")),)}, "params, number 1: high: a finite number, not inf"),
        ({"params": (_changed(PARAM, default=float("nan")),)}, "params, number 1: default: a finite number, not nan"),
        ({"params": (_changed(PARAM, choices=([1],)),)}, "params, number 1: choices"),
        ({"params": (_changed(PARAM, type=[1]),)}, "params, number 1: type: Expected `str`"),
    ],
)
def test_a_declaration_of_other_types_is_told_and_not_offered(home: Path, changes: Json, told: str) -> None:
    (found,) = checked([type("Own", (Declared,), changes)()], "own.py")
    assert any(told in problem for problem in found.problems), found.problems
    folder = home / "config" / "actions"
    folder.mkdir(parents=True)
    summary = "5" if "summary" in changes else "'trains a model a little'"
    (folder / "own.py").write_text(
        f"from lamdatui.actions import ActionType\n\nclass Own(ActionType):\n    name, summary, family, source = 'own', {summary}, 'supervised', 'x'\n"
        "    slots, params = (), ()\n\n    def run(self, step):\n        pass\n\nACTION = Own()\n"
    )
    registry = load_registry()
    assert ("own" in registry.types) is ("summary" not in changes)
    assert any("summary: Expected `str`" in problem for problem in registry.problems) is ("summary" in changes)


def test_the_shipped_declarations_are_of_their_types() -> None:
    for bound in load_registry().types.values():
        assert faults(bound.type) == []
    assert "mine" not in load_registry().types and not [
        each for each in checked([Declared()], "x.py")[0].problems if "imports" not in each
    ]


# --- frames ----------------------------------------------------------------------------------------------------------


async def _asked(folder: Path, frame: Any, handler: Callable[..., Any] = lambda *_: None) -> Json:
    journal = Journal(folder / "run.db")
    fill(journal)
    sent: list[bytes] = []
    writer: Any = SimpleNamespace(write=sent.append, close=lambda: None)
    await Server(folder / "s", journal, handler, asyncio.Event())._command(Peer(writer), encode(frame))
    journal.close()
    return json.loads(sent[0])


@pytest.mark.parametrize(
    ("frame", "told"),
    [
        ({"command": ["pause"]}, "no command"),
        ({"command": {"a": 1}}, "no command"),
        ({"command": "trial", "args": {"number": [1]}}, "there is no trial"),
        ({"command": "trial", "args": {"number": True}}, "there is no trial"),
        ({"command": "attach", "args": {"role": "console", "after": 2**70}}, "attach.after is the number of an event"),
        ({"command": "attach", "args": {"role": "console", "after": True}}, "attach.after is the number of an event"),
        ({"command": "x" * 100_000}, "no command"),
    ],
)
async def test_a_command_of_other_types_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], frame: Json, told: str
) -> None:
    reply = await _asked(tmp_path, {"type": "command", "id": 3, "args": {}, **frame})
    assert reply["id"] == 3 and reply["ok"] is False and told in reply["error"] and len(reply["error"]) < 500
    assert "Traceback" not in capsys.readouterr().err


async def test_an_answer_that_fits_into_no_frame_is_told(tmp_path: Path) -> None:
    reply = await _asked(tmp_path, {"type": "command", "id": 3, "command": "actions"}, lambda *_: "x" * FRAME_BYTES)
    assert (
        reply == {"type": "reply", "id": 3, "ok": False, "result": None, "error": reply["error"]}
        and "too long" in reply["error"]
    )
    (tmp_path / "other").mkdir()
    assert (await _asked(tmp_path / "other", {"type": "command", "id": [3], "command": "actions"}))["id"] is None


def test_a_frame_of_too_many_levels_is_none() -> None:
    with pytest.raises(ValueError, match="nested too deeply"):
        decode(b'{"type": "event", "event": ' + b"[" * 30_000 + b"]" * 30_000 + b"}")


def test_what_a_planner_said_on_record_fits_into_a_frame() -> None:
    session = PlannerSession(PlannerSettings(backend="openai", url="http://x", model="m"), PROMPTS, Path("log"))
    session._note("think", "x" * FRAME_BYTES, 1, 0.1)
    assert len(session.calls[0].answer) == MOST_RECORDED


@pytest.mark.parametrize("reply", [{"ok": 1, "error": "no"}, {"error": "no"}, {"ok": "yes", "error": "no"}])
async def test_a_reply_that_is_not_plainly_good_is_a_refusal(reply: Json) -> None:
    reader = asyncio.StreamReader()
    reader.feed_data(encode({"type": "reply", "id": 1, **reply}))
    writer: Any = SimpleNamespace(write=lambda _: None, drain=lambda: asyncio.sleep(0))
    client = Client(reader, writer)
    asked = asyncio.create_task(client.command("pause"))
    await asyncio.sleep(0)
    reader.feed_eof()
    assert [frame async for frame in client.frames()] == []
    with pytest.raises(LamdatuiError, match="no"):
        await asked


@pytest.mark.parametrize(
    "frame",
    [
        {"type": "event"},
        {"type": "event", "event": []},
        {"type": "event", "event": {"seq": 1, "kind": "trial.opened", "wall": 1.0, "mono": 1.0, "data": {"number": "1"}}},
        {"type": "event", "event": {"seq": 1, "kind": ["a"], "wall": 1.0, "mono": 1.0, "data": {}}},
        {"type": "hello", "pid": "1"},
        {"type": "metric", "metric": 7},
        {"type": "metric", "metric": {"task": "t", "total": 3, "phase": []}},
        {"type": "metric", "metric": {"step": 1, "max_steps": 9, "loss": 10**400}},
    ],
)
def test_a_headless_client_tells_a_frame_that_it_can_not_read(tmp_path: Path, frame: Json) -> None:
    with pytest.raises(LamdatuiError, match=f"a frame of the engine \\({frame['type']}\\) can't be read") as refused:
        Headless(tmp_path, as_json=False)._take(frame)
    assert "another version" in refused.value.fix


# --- steps -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [
        {"error": "oom"},
        {"error": {"class": 3, "message": "m"}},
        {"error": {"message": "m"}},
        {"seconds": []},
        {"status": "\ud800"},
        {"status": ["ok"]},
    ],
)
def test_an_outcome_of_other_types_is_damaged(tmp_path: Path, changes: Json) -> None:
    outcome = {"status": "failed", "cached": False, "seconds": {"total": 1.0}, "error": {"class": "oom-train", "message": "m"}}
    write_record(tmp_path / OUTCOME, outcome)
    assert read_outcome(tmp_path) == outcome
    write_record(tmp_path / OUTCOME, outcome | changes)
    with pytest.raises(Damaged, match="outcome"):
        read_outcome(tmp_path)


@pytest.mark.parametrize("changes", [{"pid": "self"}, {"start_time": None}, {"by": 3}, {"boot_id": []}])
def test_a_claim_of_other_types_is_damaged(tmp_path: Path, changes: Json) -> None:
    write_record(tmp_path / CLAIM, {"by": "step", "pid": 1, "start_time": 1.0, "boot_id": "b"} | changes)
    with pytest.raises(Damaged):
        read_claim(tmp_path)


@pytest.mark.parametrize("value", ["x", [], {}, float("inf"), None, "9" * 400, 10**400])
def test_a_metric_without_numbers_is_shown_as_far_as_it_goes(value: Any) -> None:
    view = ViewState()
    view.take_metrics(
        "1/1", [{"phase": "train", "total": value, "done": value}, {"step": 1, "max_steps": value, "loss": value}]
    )
    assert view.progress is not None and view.progress.done == 1


# --- folders and databases -------------------------------------------------------------------------------------------


@pytest.fixture
def model(tmp_path: Path) -> Path:
    (tmp_path / "model").mkdir()
    for name, data in _model().items():
        (tmp_path / "model" / name).write_bytes(data)
    inspect_model(tmp_path / "model")
    return tmp_path / "model"


def _told_of(model: Path, name: str, change: Callable[[Json], object]) -> None:
    value = json.loads((model / name).read_text())
    change(value)
    (model / name).write_text(json.dumps(value))


def test_a_model_whose_settings_hold_no_numbers_is_refused(model: Path) -> None:
    _told_of(model, "config.json", lambda told: told.update(num_attention_heads=float("nan")))
    with pytest.raises(LamdatuiError, match="holds NaN or Infinity"):
        inspect_model(model)


def test_odd_tokens_of_a_model_are_no_vocabulary(model: Path) -> None:
    before = inspect_model(model)
    _told_of(model, "tokenizer.json", lambda told: told["added_tokens"][0].update(content={"a": 1}))
    assert inspect_model(model).tokenizer != before.tokenizer
    _told_of(model, "tokenizer_config.json", lambda told: told.update(chat_template=[{"name": {"a": 1}, "template": "x"}]))
    (model / "chat_template.jinja").unlink()
    assert read_template(model).text == ""


def test_a_tokenizer_that_lacks_its_own_unknown_token_cuts_nothing(model: Path) -> None:
    _told_of(model, "tokenizer.json", lambda told: told["model"].update(unk_token="nowhere"))
    template = read_template(model)
    assert template.tokenizer is not None and template.ids("z") is None and template.ids("a") == [1]


def test_a_template_that_is_nested_too_deeply_is_told(model: Path) -> None:
    (model / "chat_template.jinja").write_text("{{ " + "(" * 3000 + "1" + ")" * 3000 + " }}")
    with pytest.raises(ValueError, match="nested too deeply"):
        read_template(model).ask({"prompt": TURNS[:1]})


@pytest.mark.parametrize("name", ["x" * 5000, "a\0b", "/" * 5000])
def test_a_base_that_no_folder_can_be_called_is_not_here(tmp_path: Path, name: str) -> None:
    write_json(tmp_path / "adapter_config.json", {"base_model_name_or_path": name})
    with pytest.raises(LamdatuiError, match="which is not here"):
        find_base(tmp_path, "")


@pytest.mark.parametrize("changes", [{"size": "9"}, {"size": -1}, {"size": None}, {"blake2b": 3}])
def test_a_manifest_of_other_types_is_damaged(tmp_path: Path, changes: Json) -> None:
    store = Store(tmp_path)
    with store.staging() as staged:
        (staged / "w").write_text("x")
        store.publish(staged, "d", {"kind": "full"})
    about = store.manifest("d")
    for name, files in (("w", {"w": about["files"]["w"] | changes}), ("/etc/passwd", {"/etc/passwd": about["files"]["w"]})):
        write_record(tmp_path / "objects" / "d" / "manifest.json", {**about, "files": files})
        assert store.find("d") is None and store.problem("d") == ["manifest.json"], name
        with pytest.raises(Damaged):
            store.drop("d")
    write_record(tmp_path / "objects" / "d" / "manifest.json", {**about, "kind": "dataset"})
    assert store.find("d") is None


@pytest.mark.parametrize(
    "rows",
    [["x"], [["a"]], [{"id": [1], "score": 1.0, "completion": "a"}], [{"id": 1, "score": "1", "completion": "a"}], {"a": 1}],
)
def test_an_evaluation_of_other_types_is_put_aside(tmp_path: Path, rows: Any) -> None:
    store = Store(tmp_path)
    store.record_evaluation("k", {"key": "k", "rows": rows})
    assert store.evaluation("k") is None and len(list((tmp_path / "damaged").iterdir())) == 1


def _rewrite(path: Path, change: Callable[[int, str, Json], tuple[str, Any] | None]) -> None:
    """Other events in a run, with hashes that fit; what is None is left out."""
    with contextlib.closing(apsw.Connection(str(path))) as db:
        rows = list(db.execute("SELECT seq, kind, wall, mono, data FROM events ORDER BY seq"))
        db.execute("DELETE FROM events; DELETE FROM chain")
        before, number = "", 0
        for seq, kind, wall, mono, data in rows:
            if (found := change(seq, kind, json.loads(data))) is None:
                continue
            number += 1
            text = found[1] if isinstance(found[1], str) else json.dumps(found[1])
            row = (number, found[0], wall, mono, text)
            before = link(before, row)
            db.execute("INSERT INTO events VALUES (?,?,?,?,?)", row)
            db.execute("INSERT INTO chain VALUES (?,?)", (number, before))


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    folder = tmp_path / "runs" / "r"
    folder.mkdir(parents=True)
    journal = Journal(folder / "run.db")
    fill(journal)
    journal.close()
    return folder


@pytest.mark.parametrize(
    ("kind", "changes", "told"),
    [
        (
            "evaluation.recorded",
            {"score": {"mean": 0.5, "n": 2}},
            "evaluation.recorded: Object missing required field `interval`",
        ),
        ("evaluation.recorded", {"score": []}, "evaluation.recorded: Expected `object`, got `array`"),
        ("step.intended", {"digest": 7}, "step.intended: Expected `str | null`, got `int`"),
        ("object.added", {"object": MODEL | {"adapters": "x"}}, "object.added: Expected `array`, got `str`"),
        ("object.added", {"object": MODEL | {"kind": []}}, "object.added: Expected `str`, got `array`"),
        ("run.created", {"profile": {"budget": {"baselines": "x"}}}, "run.created: profile: Expected `float`, got `str`"),
        (
            "run.created",
            {"profile": {"budget": {"step_minutes": {}}}},
            "run.created: profile: Expected `float | null`, got `object`",
        ),
        ("run.created", {"profile": {"budget": {"planner_tokens": 10**400}}}, "run.created: profile: Number out of range"),
        ("run.created", {"profile": {"tasks": []}}, "run.created: profile: Expected `object`, got `array`"),
        ("trial.decided", {"reason": "\ud800", "by": 5}, "trial.decided: Expected `str`, got `int`"),
    ],
)
def test_a_run_whose_events_hold_other_types_is_one_of_a_newer_version(
    run_dir: Path, capsys: pytest.CaptureFixture[str], kind: str, changes: Json, told: str
) -> None:
    _rewrite(run_dir / "run.db", lambda seq, name, data: (name, data | changes if name == kind else data))
    assert told in read_state(run_dir / "run.db").newer
    for how in ({"planner": False, "as_json": True}, {"planner": False, "as_json": False}, {"planner": True, "as_json": False}):
        print_run("r", run_dir.parent, **how)
    assert "Traceback" not in capsys.readouterr().err
    with pytest.raises(LamdatuiError, match="newer version"):
        Journal(run_dir / "run.db")


@pytest.mark.parametrize(
    "change",
    [
        lambda seq, kind, data: None if kind == "object.added" else (kind, data),
        lambda seq, kind, data: None if kind == "trial.opened" else (kind, data),
        lambda seq, kind, data: (kind, data | {"object": MODEL | {"trial": 7}} if kind == "object.added" else data),
        lambda seq, kind, data: (
            ("run.ended", {"status": "done", "reason": "", "winner": "m9", "beats_base": None, "gain": None})
            if seq == 14
            else (kind, data)
        ),
        lambda seq, kind, data: (kind, "[" * 30_000 + "]" * 30_000 if seq == 5 else data),
        lambda seq, kind, data: (kind, "[]" if seq == 5 else data),
    ],
)
def test_a_run_whose_events_speak_of_what_is_not_there_is_damaged(run_dir: Path, change: Callable[..., Any]) -> None:
    _rewrite(run_dir / "run.db", change)
    with pytest.raises(LamdatuiError, match="no readable run: it is damaged"):
        read_state(run_dir / "run.db")


def test_a_summary_of_other_types_is_damaged(run_dir: Path) -> None:
    for body in ('{"profile": [], "name": "r"}', "[" * 30_000, '{"max_trials": "x"}', "7"):
        with contextlib.closing(apsw.Connection(str(run_dir / "run.db"))) as db:
            db.execute("UPDATE projections SET body = ?", (body,))
        with pytest.raises(LamdatuiError, match="it is damaged"):
            read_run(run_dir / "run.db")


def test_a_step_without_seconds_has_taken_none() -> None:
    state = RunState()
    from lamdatui.domain.events import Event

    state.apply(Event(1, "step.intended", 1.0, 1.0, {"step": "1/1", "purpose": "trial", "trial": None, "digest": None}))
    state.apply(
        Event(2, "step.ended", 1.0, 1.0, {"step": "1/1", "status": "failed", "cached": False, "seconds": None, "error": None})
    )
    assert state.steps["1/1"].seconds == {}
