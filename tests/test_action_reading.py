"""Action files that end Python, hang, fork or lie while they are read: a problem that is told, and everything else works."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from lamdatui.base import limits
from lamdatui.config import reading
from lamdatui.config.resources import load_registry
from lamdatui.domain.actions import ActionType, BoundType, Call, Estimate, Slot
from lamdatui.domain.objects import ModelObject, ObjectPool
from tests.conftest import Commands

QUIETLY = ("--headless", "--mode", "read-only", "--max-trials", "1")
SHORT = {"LAMDATUI_READ_SECONDS": "5"}
GOOD = (
    "from lamdatui.actions import ActionType, Slot\n"
    "class Copy(ActionType):\n"
    "    name = 'copy_model'\n    summary = 'a copy of a model'\n    family = 'supervised'\n    source = 'nobody'\n"
    "    slots = (Slot('model', 'model', 'what to copy'),)\n    params = ()\n"
    "    def run(self, step): step.finish_training(step.load_model('model'), step.load_tokenizer('model'))\n"
    "ACTION = Copy()\n"
)
FORKS = "import os, time\nif os.fork() == 0:\n    time.sleep(1000)\n"
FAKE = 'import sys\nprint(\'{"names": ["sft"]}\', flush=True)\nsys.exit(5)\n'
BAD: dict[str, tuple[str, str]] = {
    "exit0": ("import sys\nsys.exit(0)\n", "it ended Python with status 0 while it was read (line 2)"),
    "exit3": ("import sys\nsys.exit(3)\n", "it ended Python with status 3 while it was read"),
    "exit_text": ("import sys\nsys.exit('no GPU')\n", "it ended Python with status 1 (no GPU)"),
    "exit_at_once": ("import os\nos._exit(0)\n", "it ended Python with status 0 while it was read"),
    "killed": ("import os\nos.kill(os.getpid(), 9)\n", "it was ended by SIGKILL while it was read"),
    "interrupt": ("raise KeyboardInterrupt\n", "KeyboardInterrupt"),
    "own": ("class Mine(BaseException): ...\nraise Mine('so there')\n", "Mine: so there (line 2)"),
    "sleeps": ("import time\ntime.sleep(1000)\n", "it took longer than 5 s to be read"),
    "spins": ("while True: pass\n", "it took longer than 5 s to be read"),
    "deaf": ("import signal\nsignal.signal(15, signal.SIG_IGN)\nwhile True: pass\n", "it took longer than 5 s"),
    "waits_at_the_end": (GOOD + "import atexit, time\natexit.register(time.sleep, 1000)\n", "it took longer than 5 s"),
    "leaves_a_child": (FORKS + GOOD, "it leaves a process behind"),
    "goes_on_twice": ("import os\nos.fork()\n" + GOOD, "it forks while it is read|it leaves a process behind"),
    "lies": (FAKE, "it ended Python with status 5 while it was read"),
    "floods": ("while True: print('x' * 100000)\n", "it took longer than 5 s"),
    "reads_the_others": (
        "from lamdatui.config.resources import load_registry\nload_registry().get('copy_model')\n",
        "LamdatuiError",
    ),
    "syntax": ("def broken(:\n", "SyntaxError"),
    "ordinary": ("import nothing_of_that_name\n", "nothing_of_that_name' (line 1)"),
    "empty": ("", "no ACTION and no ACTIONS"),
    "large": ("#" * (reading.MOST_BYTES + 1), "is larger than 1 MiB"),
}


@pytest.fixture
def actions(home: Path) -> Path:
    folder = home / "config" / "actions"
    folder.mkdir(parents=True)
    return folder


@pytest.fixture
def nothing_left(tmp_path: Path) -> Iterator[None]:
    yield
    ours = [p for p in psutil.process_iter(["cmdline"]) if any(str(tmp_path) in w for w in p.info["cmdline"] or [])]
    assert [p.info["cmdline"] for p in ours if "lamdatui.actionkit.probe" in (p.info["cmdline"] or [])] == []


def test_each_way_to_fail_is_told_and_the_rest_works(cli: Commands, actions: Path, nothing_left: None) -> None:
    (actions / "good.py").write_text("print('garbage')\n" + GOOD)
    assert cli("actions").stderr == ""
    for name, (text, _) in BAD.items():
        (actions / f"{name}.py").write_text(text)
    os.mkfifo(actions / "pipe.py")
    (actions / "folder.py").mkdir()
    told = {**{name: words for name, (_, words) in BAD.items()}, "pipe": "not a regular file", "folder": "not a regular file"}
    done = cli("actions", "--json", timeout=60, **SHORT)
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)
    assert {row["name"] for row in rows if not row["origin"].startswith("builtin")} == {"copy_model"}
    assert "sft" in {row["name"] for row in rows}
    problems = [line.removeprefix("problem: ") for line in done.stderr.splitlines()]
    assert len(problems) == len(told), done.stderr
    for name, words in told.items():
        (line,) = [line for line in problems if line.startswith(f"{actions / name}.py: ")]
        assert any(part in line for part in words.split("|")), line


@pytest.mark.parametrize(
    "name",
    [
        "exit0",
        "sleeps",
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("exit_at_once", "interrupt", "own", "leaves_a_child")),
    ],
)
def test_every_command_works_beside_such_a_file(cli: Commands, actions: Path, name: str, lab: Path, nothing_left: None) -> None:
    text, words = BAD[name]
    short, words = {"LAMDATUI_READ_SECONDS": "1"}, words.replace("5 s", "1 s")
    (actions / "mine.py").write_text(text)
    for command in (["check", "lab"], ["run", "lab", "--name", "x", *QUIETLY]):
        done = cli(*command, **short)
        assert done.returncode == 0, done.stderr
        assert f"mine.py: {words}" in done.stdout + done.stderr
    assert [item["where"] for item in cli.show("x")["problems"]] == ["actions"]
    named = cli("run", "lab", "--name", "y", "--set", "actions={copy_model: {}}", *QUIETLY, **short)
    assert named.returncode == 2, named.stderr
    assert "no action type named 'copy_model'" in named.stderr and words in named.stderr
    assert not (cli.runs / "y").exists()


@pytest.mark.parametrize("name", ["exit0", "exit_at_once", "interrupt", "sleeps", "goes_on_twice"])
def test_actions_check_show_and_new_are_safe(
    cli: Commands, actions: Path, name: str, tmp_path: Path, nothing_left: None
) -> None:
    text, words = BAD[name]
    environment = {"LAMDATUI_READ_SECONDS": "1.5"}
    words = words.replace("5 s to be read", "")
    (tmp_path / "one.py").write_text(text)
    done = cli("actions", "check", "./one.py", **environment)
    assert done.returncode == 1, done.stderr
    assert any(part in done.stdout for part in words.split("|")), done.stdout
    (actions / "mine.py").write_text(text)
    for command, code in ((["actions", "show", "sft"], 0), (["actions", "new", "other"], 0), (["actions", "show", "mine"], 2)):
        done = cli(*command, **environment)
        assert done.returncode == code, done.stderr
        assert "Traceback" not in done.stderr


def test_check_and_estimate_that_end_python_are_findings(cli: Commands, tmp_path: Path) -> None:
    (tmp_path / "one.py").write_text(GOOD.replace("    def run", "    def check(self, call): raise SystemExit(0)\n    def run"))
    (tmp_path / "two.py").write_text(
        GOOD.replace("    def run", "    def estimate(self, call):\n        while True: pass\n    def run")
    )
    done = cli("actions", "check", "./one.py", "./two.py", "--json", LAMDATUI_READ_SECONDS="1")
    first, second = json.loads(done.stdout)
    assert "check() raised SystemExit" in first["problems"][0]
    assert "longer than 6 s" in second["problems"][0]


def test_a_good_file_runs_a_step_and_is_looked_at_once(
    cli: Commands, actions: Path, lab_profile, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = cli.folder / "seen"
    (actions / "good.py").write_text(
        f"import os\nopen({str(seen)!r}, 'a').write(f'{{os.environ.get(\"LAMDATUI_READING\")}}\\n')\n" + GOOD
    )
    (actions / "sleeps.py").write_text(BAD["sleeps"][0])
    done = cli(
        "run", str(lab_profile()), "--name", "x", "--set", "actions={copy_model: {}}", "--headless", "--mode", "auto",
        "--max-trials", "1", **SHORT,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (trial,) = cli.show("x")["trials"]
    assert (trial["status"], trial["action"]["type"]) == ("done", "copy_model")
    # In a process of its own once; then in the command, in the engine and in the step.
    assert seen.read_text().split().count("1") == 1
    assert len(seen.read_text().split()) >= 4


def records() -> list[Path]:
    return list(reading._folder().glob("*.json"))


def test_a_record_holds_for_the_contents_and_only_a_step_believes_a_failure(
    actions: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = tmp_path / "count"
    counting = f"open({str(count)!r}, 'a').write('x')\n"
    monkeypatch.setattr(reading, "_failed", {})
    (actions / "mine.py").write_text(counting + "1 / 0\n")
    for looks, step in ((1, False), (1, True), (1, False)):
        assert "ZeroDivisionError" in load_registry(step=step).problems[0]
        assert len(count.read_text()) == looks
    reading._failed.clear()
    assert "ZeroDivisionError" in load_registry(step=True).problems[0]
    assert len(count.read_text()) == 1
    # Another process: a command looks again.
    assert "ZeroDivisionError" in load_registry().problems[0]
    assert len(count.read_text()) == 2
    (actions / "mine.py").write_text(counting + GOOD)
    reading._failed.clear()
    for looks in (4, 5):
        assert load_registry().problems == []
        assert len(count.read_text()) == looks
    assert len(records()) == 2


def test_a_file_that_got_through_and_ends_python_here_is_a_problem(actions: Path) -> None:
    """A command ended with exit code 0, and had printed nothing."""
    (actions / "mine.py").write_text("import os\nif 'LAMDATUI_READING' not in os.environ:\n    raise SystemExit(0)\n" + GOOD)
    registry = load_registry()
    assert "SystemExit: 0" in registry.problems[0] and "sft" in registry.types and "copy_model" not in registry.types


def test_bytecode_that_came_along_is_not_run(actions: Path, tmp_path: Path) -> None:
    import py_compile

    canary, file = tmp_path / "canary", actions / "mine.py"
    file.write_text(f"open({str(canary)!r}, 'w')\n")
    py_compile.compile(str(file), invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH)
    file.write_text(GOOD)
    assert "copy_model" in load_registry().types
    assert not canary.exists()


def test_without_a_state_folder_it_is_looked_at_each_time(actions: Path, home: Path) -> None:
    (home / "state").write_text("in the way")
    (actions / "mine.py").write_text(GOOD)
    for _ in range(2):
        assert "copy_model" in load_registry().types


def test_an_interrupt_ends_a_command_that_reads(cli: Commands, actions: Path, nothing_left: None) -> None:
    (actions / "sleeps.py").write_text(
        f"import time, pathlib\npathlib.Path({str(cli.folder / 'began')!r}).touch()\ntime.sleep(1000)\n"
    )
    command = cli.popen("actions")
    end = time.monotonic() + 120
    while not (cli.folder / "began").exists():
        assert time.monotonic() < end
        time.sleep(0.02)
    command.send_signal(signal.SIGINT)
    assert command.wait(30) == 130


# --- check and estimate ----------------------------------------------------------------------------------------------


class Theirs(ActionType):
    name = "theirs"
    summary = "somebody else's action"
    family = "supervised"
    source = "nobody"
    slots = (Slot("model", "model", "what"),)
    params = ()

    def run(self, step: Any) -> None:
        raise NotImplementedError


POOL = ObjectPool({"base": ModelObject("base", "d", "A", "one", "/w", (), 10, tokenizer="t")})


class Odd(BaseException):
    pass


def raises(error: BaseException) -> Callable[..., Any]:
    def method(self: Any, call: Call) -> Any:
        raise error

    return method


def spin(self: Any, call: Call) -> Any:
    while True:
        try:
            pass
        except Exception:  # noqa: BLE001 (it is what is tried)
            continue


def ask(**changes: Any) -> tuple[BoundType, list[str]]:
    bound = BoundType(type("Changed", (Theirs,), changes)(), (), "user: theirs.py")
    return bound, bound.problems({"model": ("base",)}, {}, POOL)


@pytest.fixture(autouse=True)
def forgetful(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "_slow", {})


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (raises(ValueError("no\nway")), "ValueError: no way"),
        (raises(SystemExit(0)), "SystemExit: 0"),
        (raises(Odd("x")), "Odd: x"),
        (lambda self, call: call.no_such_thing, "AttributeError"),
        (lambda self, call: "no", "TypeError"),
        (lambda self, call: 7, "TypeError"),
    ],
)
@pytest.mark.parametrize("method", ["check", "estimate"])
def test_what_somebodys_check_or_estimate_raises_is_a_reason(method: str, answer: Any, told: str) -> None:
    bound, problems = ask(**{method: answer})
    assert len(problems) == 1
    assert problems[0].startswith(f"the {method} of theirs failed: ") and told in problems[0]
    call = bound.call({"model": ("base",)}, {}, POOL)
    assert bound.estimate(call) == Estimate()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1.0])
def test_an_estimate_that_is_no_number_is_a_reason(value: float) -> None:
    _, problems = ask(estimate=lambda self, call: Estimate(seconds=value))
    assert "is no number from 0" in problems[0]


def test_sound_answers_are_taken() -> None:
    assert ask(check=lambda self, call: ["not now"])[1] == ["not now"]
    bound, problems = ask(estimate=lambda self, call: Estimate(seconds=2.0))
    assert problems == []
    assert bound.estimate(bound.call({"model": ("base",)}, {}, POOL)).seconds == 2.0


def test_an_endless_check_is_ended_and_not_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "SECONDS", 0.3)
    ran = signal.getitimer(signal.ITIMER_REAL)[0]
    began = time.monotonic()
    for _ in range(50):
        assert ask(check=spin)[1] == ["the check of theirs failed: it takes longer than 0.3 s"]
    assert time.monotonic() - began < 5
    # The timer of whoever had one (here: pytest's) goes on.
    assert (signal.getitimer(signal.ITIMER_REAL)[0] > 0) == (ran > 0)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), asyncio.CancelledError()])
def test_what_is_the_persons_or_the_loops_passes(error: BaseException) -> None:
    with pytest.raises(type(error)):
        ask(check=raises(error))


def test_a_run_goes_on_beside_a_type_whose_check_fails(cli: Commands, actions: Path, lab_profile) -> None:
    (actions / "mine.py").write_text(GOOD.replace("    def run", "    def check(self, call): raise SystemExit(0)\n    def run"))
    profile = str(lab_profile())
    narrowed = ("--set", "actions={copy_model: {}, sft: {}}")
    told = [
        item for item in json.loads(cli("check", profile, *narrowed, "--json").stdout) if item["subject"] == "action copy_model"
    ]
    assert [(item["status"], "the check of copy_model failed: SystemExit" in item["detail"]) for item in told] == [
        ("warn", True)
    ]
    done = cli("run", profile, "--name", "x", *narrowed, *QUIETLY)
    assert done.returncode == 0, done.stderr
    assert [trial["action"]["type"] for trial in cli.show("x")["trials"]] == ["sft"]


def test_no_probe_outlives_a_killed_command(cli: Commands, actions: Path) -> None:
    """Nobody is left to end it; its own alarm does."""
    report, writer = os.pipe()
    (actions / "sleeps.py").write_text(BAD["sleeps"][0])
    line = [
        sys.executable,
        "-P",
        "-m",
        "lamdatui.actionkit.probe",
        "read",
        "user",
        str(actions / "sleeps.py"),
        str(writer),
        "-9",
    ]
    began = time.monotonic()
    done = subprocess.run(line, pass_fds=(writer,), timeout=60)
    os.close(writer)
    os.close(report)
    assert (done.returncode, time.monotonic() - began < 20) == (-signal.SIGALRM, True)
