"""Input that is not what it should be, of every kind: one `LamdatuiError` at once, never a traceback, never a wait for ever."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lamdatui.actionkit.timings import Timings
from lamdatui.base.errors import LamdatuiError
from lamdatui.base.jsonio import MOST_NESTED, file_digest, finite, parse_json, read_json, regular
from lamdatui.catalogue.fetch import local
from lamdatui.cli.checks import check_profile
from lamdatui.config.resources import is_trusted, load_prompt, load_registry, trusted_file
from lamdatui.config.settings import load_settings, settings_file
from lamdatui.hardware.recording import load_recording
from lamdatui.inputs.datafiles import inspect_dataset, read_task_rows
from lamdatui.inputs.profile import MAX_BYTES, load_profile
from lamdatui.inputs.taskfiles import load_task
from lamdatui.inputs.workspace import planner_settings
from lamdatui.serve.access import token_from
from lamdatui.tasks.scorers import problem
from lamdatui.wire import rundir
from tests.conftest import Commands
from tests.landed import Landed
from tests.test_profile import GOOD

pytestmark = pytest.mark.timeout(120)
READ = Callable[[Path], Any]
DEEP = "[" * 100_000


def fifo(path: Path) -> None:
    os.mkfifo(path)


def folder(path: Path) -> None:
    path.mkdir()


def device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def listener(path: Path) -> None:
    before = os.getcwd()
    os.chdir(path.parent)  # a socket's path is short
    try:
        socket.socket(socket.AF_UNIX).bind(path.name)
    finally:
        os.chdir(before)


def circle(path: Path) -> None:
    path.symlink_to(path)


def as_settings(path: Path) -> None:
    settings_file().parent.mkdir(parents=True)
    settings_file().symlink_to(path)
    load_settings()


def as_prompt(path: Path) -> None:
    place = trusted_file().parent / "prompts"
    place.mkdir(parents=True)
    (place / "select.md").symlink_to(path)
    load_prompt("select")


def as_gguf(path: Path) -> None:
    text = GOOD + f"planner: {{model: {path}}}\npolicy: {{name: hybrid}}\n"
    profile = path.parent / "mine.yaml"
    profile.write_text(text)
    planner_settings(load_profile(profile), 1)


def as_lock(path: Path) -> None:
    (path.parent / "run").mkdir()
    (path.parent / "run" / "lock").symlink_to(path)
    rundir.is_alive(path.parent / "run")


READERS: dict[str, READ] = {
    "profile": load_profile,
    "dataset": inspect_dataset,
    "task": read_task_rows,
    "recording": load_recording,
    "token": token_from,
    "settings": as_settings,
    "prompt": as_prompt,
    "gguf": as_gguf,
    "lock": as_lock,
}


@pytest.mark.parametrize("make", [fifo, folder, device, listener, circle])
@pytest.mark.parametrize("reader", READERS)
def test_only_regular_files_are_read(tmp_path: Path, reader: str, make: Callable[[Path], None]) -> None:
    make(tmp_path / "it")
    if reader == "prompt" and make is circle:
        pytest.skip("a link in a circle is no file of the folder")
    with pytest.raises(LamdatuiError) as caught:
        READERS[reader](tmp_path / "it")
    told = str(caught.value)
    told_of_folder = "holds no file of rows" in told or "holds no files of rows" in told
    assert (
        told_of_folder
        or "not a regular file" in told
        or "symbolic links" in told
        or "no such file" in told
        or "File exists" in told
    )
    assert len(told.splitlines()) <= 3


@pytest.mark.parametrize("make", [fifo, folder, device, listener, circle])
def test_the_readers_of_json_take_regular_files_only(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / "it")
    for read in (regular, read_json, file_digest):
        with pytest.raises(OSError):
            read(tmp_path / "it")


def test_what_may_be_missing_may_also_be_no_file(tmp_path: Path, home: Path) -> None:
    for name in ("trusted", "measurements.jsonl"):
        for place in ("config", "state"):
            (home / place).mkdir(exist_ok=True)
            fifo(home / place / name)
    (home / "config" / "actions").mkdir()
    fifo(home / "config" / "actions" / "mine.py")
    assert not is_trusted(tmp_path)
    assert Timings.open(home / "state" / "measurements.jsonl").items == []
    assert any("mine.py" in told and "not a regular file" in told for told in load_registry().problems)


def test_json_is_bounded_in_depth_and_numbers_in_size() -> None:
    deepest = "[" * MOST_NESTED + "]" * MOST_NESTED
    assert parse_json(deepest)
    for text in (f"[{deepest}]", DEEP, '{"a":' * 500 + "1" + "}" * 500):
        with pytest.raises(ValueError):
            parse_json(text)
    assert parse_json("[" + "[],{}," * 5000 + "1]")
    assert finite(10**400) is None


# --- profiles ------------------------------------------------------------------------------------------------------


def full(text: str) -> str:
    return text * (MAX_BYTES // len(text.encode()) - 100)


HOSTILE = {
    "flow lists": full("["),
    "flow mappings": full("{"),
    "both": full("[{a: "),
    "block mappings": "\n".join(" " * depth + "a:" for depth in range(700)),
    "block lists": full("- "),
    "complex keys": full("? "),
    "complex keys in flow": "[" + full("? "),
    "keys": "".join(f"a{number}: x\n" for number in range(20_000)),
    "items": f"[{full('a,')}]",
    "documents": full("---\n"),
    "comments": full("#\n"),
    "lines": full("a\n"),
    "folded": "name: " + full("a\n  "),
    "block text": "name: |\n" + full(" x\n"),
    "escapes": f'name: "{full(chr(92) + "x41")}"',
    "anchors": full("&a "),
    "aliases": "a: &a [x]\nb: " + full("*a "),
    "tags": full("!a "),
    "directives": full("%a b\n"),
    "digits": "seed: " + full("1"),
    "hexadecimal": "seed: 0x" + full("f"),
    "base 60": "seed: 1" + full(":59"),
    "fraction": "seed: 1." + full("0"),
    "binary": "name: !!binary " + full("QUFB"),
    "version": "%YAML " + "9" * 5000 + ".1\n---\na: b",
    "no character": 'name: "\\U00110000"',
    "unhashable key": "? [a]\n: b",
    "mapping as key": "{a: b}: c",
    "set": "!!set {a, b}",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_profile_is_refused_soon(tmp_path: Path, name: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(HOSTILE[name])
    assert path.stat().st_size <= MAX_BYTES
    before = time.process_time()
    with pytest.raises(LamdatuiError) as caught:
        load_profile(path)
    assert time.process_time() - before < 5  # seconds of CPU; about one on an idle machine
    assert caught.value.where.startswith(str(path))
    assert len(str(caught.value)) < 1500


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("name: mine", "name: mine\nseed: 1" + "0" * 400, "seed: not a number|at most 40 digits"),
        ("name: mine", f"name: mine\nseed: {2**32}", "seed is at most 4,294,967,295, not 4294967296"),
        ("name: mine", "name: mine\nseed: .nan", "must be finite"),
        ("name: mine", "name: mine\nseed: 2024-01-01", "seed is a whole number, not"),
        ("name: mine", "name: mine\n1: x", "a key is text"),
        ("name: mine", "name: mine\nyes: x", "a key is text"),
        ("name: mine", "name: mine\n~: x", "a key is text"),
        ("name: mine", 'name: "\\ud800"', "a character that no text can have"),
        ("name: mine", 'name: "a\\0b"', "a character that no text can have"),
        ("name: mine", "name: mine\nthreads: 1000000", "threads is at most 1,024, not 1000000"),
        ("name: mine", "name: mine\nbudget: {trials: 99999999999}", "budget.trials is at most"),
        ("name: mine", "name: mine\nbudget: {wall_minutes: .inf}", "must be finite"),
        ("name: mine", 'name: mine\nbudget: {wall_minutes: "inf"}', "budget.wall_minutes is a finite number"),
        ("name: mine", "name: mine\nbudget: {wall_minutes: 1.0e+300}", "budget.wall_minutes is at most"),
        ("task: 1.0", "task: .nan", "must be finite"),
        ("task: 1.0", 'task: "nan"', "objective.weights.task is a finite number"),
        ("1.0e-3", ".inf", "must be finite"),
        ("1.0e-3", "1" * 400, "at most 40 digits"),
        ("1.0e-3", "1" + "0" * 30, "a whole number has at most 64 bits"),
        ("scorer: exact", "scorer: exact, rows: {search: 99999999999}", "is at most"),
        ("name: mine", "name: !!bool x", "neither true nor false"),
        ("name: mine", "name: !!int ''", "at most 40 digits"),
        ("path: base", 'path: "~nobody-of-that-name/x"', "not a path"),
    ],
)
def test_poison_in_a_profile_is_told_with_its_line(tmp_path: Path, old: str, new: str, told: str) -> None:
    path = tmp_path / "mine.yaml"
    assert old in GOOD
    path.write_text(GOOD.replace(old, new))
    with pytest.raises(LamdatuiError, match=told) as caught:
        load_profile(path)
    assert "line" in caught.value.where or "nobody" in caught.value.where
    if "\n" in new:
        key, _, value = new.partition("\n")[2].partition(": ")
        if key in ("seed", "threads", "budget") and "trials" not in value and "wall" not in value:
            with pytest.raises(LamdatuiError):
                load_profile(tmp_path / "mine.yaml", [f"{key}={value}"])


@pytest.mark.parametrize(
    "text",
    [
        "=x", "=", "x", "", ".=x", "..=x", "seed=[", "seed=" + "[" * 100_000, "seed=" + "? " * 50_000, "seed=*a", "seed=.nan",
        "seed=1" + "0" * 400, "seed=\udcff", "\udcff=1", "seed=!!python/object:os.system x", "a" * 100_000 + "=1", "a." * 20_000 + "b=1",
        "seed.x=1", "models.base.path.x=1", "policy.script.0.type=sft", "policy.script=[1]", "seed=[1]: 2", "seed={[a]: b}", "models=",
        "models.base.path=" + "x/" * 5000 + "\x01",
    ],
)  # fmt: skip
def test_set_takes_no_poison(tmp_path: Path, text: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(GOOD)
    with pytest.raises(LamdatuiError) as caught:
        load_profile(path, [text])
    assert len(str(caught.value)) < 1500


def test_a_gpu_that_is_not_there_is_told_before_anything_runs(lab_profile, tmp_path: Path, monkeypatch) -> None:
    profile = str(lab_profile())

    def device(wanted: str) -> list[tuple[str, bool]]:
        found = check_profile(profile, [f"device={wanted}"], tmp_path)
        return [(each.status, "no driver" in each.detail) for each in found if each.subject == "device"]

    monkeypatch.setattr("lamdatui.hardware.gpu.read_gpus", lambda: ([], "no driver; it may be a container"))
    assert (device("auto"), device("cpu"), device("cuda")) == ([], [], [("bad", True)])


def test_a_date_is_text_and_a_name_that_no_run_can_have_is_told(lab_profile, tmp_path: Path) -> None:
    path = lab_profile(("name: lab", "name: 2024-01-01"))
    assert load_profile(path).name == "2024-01-01"
    path = lab_profile(("name: lab", "name: my own / search"))
    assert [finding.subject for finding in check_profile(str(path), [], tmp_path) if finding.status == "warn"] == ["name"]
    with pytest.raises(LamdatuiError, match="can't name a run"):
        rundir.new_name(load_profile(path), tmp_path)


# --- rows ----------------------------------------------------------------------------------------------------------


def task_row(**changes: Any) -> str:
    row = {"id": "a", "split": "search", "messages": [{"role": "user", "content": "q"}], "reference": "r", **changes}
    return json.dumps(row)


@pytest.mark.parametrize(
    ("scorer", "rows"),
    [
        ("exact", [task_row(id=["a"])]),
        ("exact", [task_row(id={"a": 1})]),
        ("exact", [task_row(id=None)]),
        ("exact", [task_row(id=True)]),
        ("exact", [task_row(id=1.5)]),
        ("exact", [task_row(id=1), task_row(id="1")]),
        ("exact", [task_row(id=1), task_row(id=1)]),
        ("exact", [task_row(split=["search"])]),
        ("exact", [task_row(messages=[{"role": "user", "content": "\ud800"}])]),
        ("exact", [task_row(messages=[{"role": "\ud800", "content": "q"}])]),
        ("exact", [task_row(extra=float("nan"))]),
        ("exact", [task_row(reference=float("inf"))]),
        ("exact", [task_row().replace('"r"', "1e999")]),
        ("exact", [task_row().replace('"r"', "[" * 300 + "]" * 300)]),
        ("exact", [task_row().replace('"r"', DEEP)]),
        ("exact", [task_row().replace('"r"', "1" * 5000)]),
        ("exact", [task_row(reference=5)]),
        ("exact", [task_row(reference=None)]),
        ("exact", [task_row(reference={"a": "b"})]),
        ("exact", [task_row(reference=[])]),
        ("exact", [task_row(reference=["a", 1])]),
        ("constraints", [task_row(reference={"constraints": []})]),
        ("constraints", [task_row(reference={"constraints": {"kind": "json"}})]),
        ("constraints", [task_row(reference={"constraints": [{"kind": ["json"]}]})]),
        ("constraints", [task_row(reference={"constraints": [{"kind": "min_words", "count": "3"}]})]),
        ("constraints", [task_row(reference={"constraints": [{"kind": "include", "words": ["zzz", 5]}]})]),
        ("constraints", [task_row(reference={"constraints": [{"kind": "include", "words": "zzz"}]})]),
        ("constraints", [task_row(reference={"constraints": [{"kind": "repeat", "text": 5}]})]),
        ("function_call", [task_row(reference={"answer": {"f": 5}, "function": [{"name": "f", "parameters": {}}]})]),
        ("function_call", [task_row(reference={"answer": {"f": {"x": [1]}}, "function": [{"name": "f", "parameters": 5}]})]),
        (
            "function_call",
            [
                task_row(
                    reference={"answer": {"f": {"x": [1]}}, "function": [{"name": "f", "parameters": {"properties": {"x": 5}}}]}
                )
            ],
        ),
        ("function_call", [task_row(reference={"answer": {"f": {"x": 5}}, "function": [{"name": "f", "parameters": {}}]})]),
    ],
)
def test_a_task_row_of_another_shape_is_refused(tmp_path: Path, scorer: str, rows: list[str]) -> None:
    good = [
        task_row(id=f"{split}-{len(rows)}", split=split, messages=[{"role": "user", "content": split}])
        for split in ("search", "sealed")
    ]
    path = tmp_path / "task.jsonl"
    path.write_text("\n".join(rows if scorer != "exact" or len(rows) > 1 else [*rows, *good]) + "\n")
    with pytest.raises(LamdatuiError) as caught:
        load_task("task", path, scorer, 16, {})
    assert str(path) in caught.value.where
    assert "row" in caught.value.where


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "\udfff", "completion": "a"},
        {"prompt": "q", "completion": "a\ud800"},
        {"messages": [{"role": "user", "content": "\ud800"}, {"role": "assistant", "content": "a"}]},
        {"prompt": "q", "scorer": ["exact"], "reference": "a"},
        {"prompt": "q", "scorer": {}, "reference": "a"},
        {"prompt": "q", "scorer": "exact", "reference": ["a", None]},
        {"prompt": "q", "scorer": "constraints", "reference": {"constraints": [{"kind": "json", "x": float("nan")}]}},
    ],
)
def test_a_dataset_row_of_another_shape_is_refused(tmp_path: Path, row: dict[str, Any]) -> None:
    path = tmp_path / "data.jsonl"
    path.write_text(json.dumps(row) + "\n")
    with pytest.raises(LamdatuiError) as caught:
        inspect_dataset(path)
    assert caught.value.where == f"{path}, row 1"


def test_a_right_reference_has_no_problem() -> None:
    call = {
        "answer": {"f": {"x": [1, "a"], "y": [""]}},
        "function": [{"name": "f", "parameters": {"properties": {"x": {}, "y": {}}}}],
    }
    assert problem("function_call", call) is None
    assert problem("exact", ["a", "b"]) is None
    assert problem("constraints", {"constraints": [{"kind": "include", "words": ["a"]}, {"kind": "json"}]}) is None


@pytest.mark.parametrize(
    "name", ["chain_sum?max_terms=NaN", "chain_sum?size=" + "9" * 5000, "chain_sum?max_terms=" + "[" * 5000]
)
def test_a_reference_to_generated_rows_takes_no_poison(tmp_path: Path, name: str) -> None:
    from lamdatui.inputs.workspace import locate

    with pytest.raises(LamdatuiError):
        locate(f"reasoning-gym:{name}")


# --- files of the user's folders -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "line",
    [
        DEEP,
        "[" * 300 + "]" * 300,
        '{"at": 1' + "0" * 400 + ', "gpus": []}',
        '{"at": NaN, "gpus": []}',
        '{"at": 0, "gpus": [{"index": 0, "util": 1' + "0" * 400 + "}]}",
        '{"at": 0, "gpus": [], "reason": "' + "x" * 2_000_000 + '"}',
        "\x00",
    ],
)
def test_a_recording_takes_no_poison(tmp_path: Path, line: str) -> None:
    path = tmp_path / "gpus.jsonl"
    path.write_text(f'{{"at": -1, "gpus": []}}\n{line}\n')
    with pytest.raises(LamdatuiError) as caught:
        load_recording(path)
    assert caught.value.where == f"{path}, line 2"


def test_damaged_measurements_cost_only_themselves(tmp_path: Path) -> None:
    good = dict(type="sft", family="supervised", device="cpu", dtype="float32", scale=5, predicted_seconds=1.0, seconds=2.0)
    good |= {"predicted_memory": None, "memory": None}
    bad = [
        good | {name: value} for name in ("scale", "seconds", "predicted_seconds") for value in ("1", [], float("nan"), 10**400)
    ]
    path = tmp_path / "measurements.jsonl"
    lines = [json.dumps(item).encode() for item in (*bad, good | {"seconds": None}, [], 5, {}, good)]
    path.write_bytes(b"\n".join([*lines, b"\xff\xfe", DEEP.encode(), b"\x00"]))
    assert [item.seconds for item in Timings.open(path).items] == [2.0]


@pytest.mark.parametrize(
    "words",
    [["profiles"], ["prompts"], ["actions"], ["runs"], ["keys"], ["doctor"], ["check", "lab"], ["show", "x"], ["models"]],
)
def test_a_damaged_home_is_told_or_passed_over(cli: Commands, home: Path, lab: Path, words: list[str]) -> None:
    for place in ("config", "state"):
        (home / place).mkdir()
    (home / "config" / "trusted").write_bytes(b"\xff\xfe")
    (home / "state" / "measurements.jsonl").write_bytes(b"\xff\xfe\n" + DEEP.encode())
    for kind, suffix in (("profiles", ".yaml"), ("prompts", ".md"), ("actions", ".py")):
        (home / "config" / kind).mkdir()
        fifo(home / "config" / kind / f"pipe{suffix}")
        circle(home / "config" / kind / f"circle{suffix}")
        (home / "config" / kind / f"bytes{suffix}").write_bytes(b"\xff\xfe")
    (cli.runs / "pipe").mkdir(parents=True)
    fifo(cli.runs / "pipe" / "run.db")
    (cli.runs / "lock").mkdir()
    (cli.runs / "lock" / "run.db").write_bytes(b"")
    fifo(cli.runs / "lock" / "lock")
    done = cli(*words, timeout=100)
    assert done.returncode == (2 if words[0] == "show" else 0), done.stderr
    assert "Traceback" not in done.stderr


def test_a_home_that_is_no_folder_is_one_error(cli: Commands, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    circle(tmp_path / "circle")
    for home in (tmp_path / "file", tmp_path / "circle", "~nobody-of-that-name"):
        for words in (["profiles"], ["check", "lab"], ["keys"]):
            done = cli(*words, LAMDATUI_HOME=str(home))
            assert done.returncode == 2, done.stdout + done.stderr
            assert done.stderr.startswith("error: LAMDATUI_HOME is not a folder")


def test_what_a_catalogue_manifest_may_be(home: Path) -> None:
    (home / "cache" / "catalogue").unlink()
    folder_ = home / "cache" / "catalogue" / "bfcl"
    folder_.mkdir(parents=True)
    for text in ("[]", "null", "5", DEEP, '{"files": 5, "version": 1}', '{"files": [[]], "version": 1}'):
        (folder_ / "manifest.json").write_text(text)
        assert local("bfcl") is None
    (folder_ / "manifest.json").unlink()
    fifo(folder_ / "manifest.json")
    assert local("bfcl") is None


def test_a_run_without_its_profile_can_be_read_and_says_what_is_missing(landed: Landed) -> None:
    """It was told of profiles, after seconds."""
    (landed.runs / "finished" / "profile.yaml").unlink()
    for words in (("attach", "finished", "--no-console"), ("serve", "finished", "--port", "0")):
        done = landed.cli(*words)
        assert done.returncode == 2 and "the run has no profile.yaml" in done.stderr and "lamdatui show finished" in done.stderr
    assert landed.show("finished")["status"] == "done"
