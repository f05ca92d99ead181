"""What each command may import, and that the wheel carries the drop-in folders."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from tests.conftest import CHECKOUT

HEAVY = ("torch", "transformers", "trl", "peft", "mergekit", "datasets", "xllamacpp")


def imported(code: str, *names: str) -> set[str]:
    script = f"{code}\nimport sys; print(*(set(sys.modules) & {set(names)!r}))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(done.stdout.splitlines()[-1].split()) if done.stdout.strip() else set()


def test_help_imports_nothing_heavy() -> None:
    assert imported("import lamdatui.cli.app", *HEAVY, "textual", "pydantic", "numpy", "httpx") == set()


def test_the_engine_imports_neither_torch_nor_textual() -> None:
    assert imported("import lamdatui.engine.__main__", *HEAVY, "textual") == set()


def test_the_console_imports_no_training_library() -> None:
    assert imported("import lamdatui.ui.app.consoleapp", *HEAVY, "numpy", "lamdatui.engine", "lamdatui.step") == set()


def test_doctor_and_profiles_run_from_the_command_line(cli) -> None:
    assert {"lab", "quickstart"} <= {line.split()[0] for line in cli("profiles").stdout.splitlines()}
    told = cli("doctor")
    assert "SQLite" in told.stdout
    assert told.returncode == 0, told.stdout


def test_every_test_that_a_document_names_is_there() -> None:
    pages = [*CHECKOUT.glob("*.md"), *CHECKOUT.glob("docs/*.md")]
    named = {name for page in pages for name in re.findall(r"`(tests/[\w/.]+)`", page.read_text())}
    assert len(named) > 20 and [name for name in sorted(named) if not (CHECKOUT / name).exists()] == []


def test_every_mutant_that_is_explained_is_of_a_line_that_is_there() -> None:
    for entry in tomllib.loads((CHECKOUT / "tests" / "mutants.toml").read_text())["explained"]:
        lines = (CHECKOUT / entry["module"]).read_text().splitlines()
        assert entry["old"] in " ".join(line.strip() for line in lines), f"{entry['module']}: {entry['old']}"


def test_every_named_fault_fits_the_code_and_names_tests_that_are_there() -> None:
    """`make mutants-named` puts each of them in; here it is seen that it still can."""
    named = tomllib.loads((CHECKOUT / "tests" / "mutants.toml").read_text())["named"]
    texts = {path: path.read_text() for path in (CHECKOUT / "tests").rglob("*.py")}
    for entry in named:
        text = (CHECKOUT / entry["module"]).read_text()
        assert text.count(entry["old"]) == 1, entry["name"]
        ast.parse(text.replace(entry["old"], entry["new"]))
        for file, _, name in (word.partition("::") for word in entry["tests"] if word.startswith("tests/")):
            assert not name or f"def {name.partition('[')[0]}(" in texts[CHECKOUT / file], entry["name"]
    assert len({entry["name"] for entry in named}) == len(named) > 100


def test_every_command_explains_itself(cli) -> None:
    for command in ("run", "attach", "stop", "show", "runs", "check", "doctor", "step", "export", "models", "actions"):
        done = cli(command, "--help")
        assert done.returncode == 0
        assert "Usage" in done.stdout


@pytest.mark.parametrize("words", [["show", "nothing"], ["stop", "nothing"], ["run", "nothing"], ["actions", "show", "stf"]])
def test_an_unknown_name_is_one_clear_error(cli, words: list[str]) -> None:
    done = cli(*words)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr


def test_the_wheel_carries_actions_prompts_and_profiles(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "-q", "-w", str(tmp_path), str(CHECKOUT)]
    subprocess.run(command, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    for kind in ("actions", "prompts", "profiles"):
        shipped = {Path(name).name for name in names if name.startswith(f"lamdatui/_builtin/{kind}/")}
        assert shipped >= {path.name for path in (CHECKOUT / kind).iterdir() if path.is_file()}
