"""Writing an action: the rule book, the file to start from, copies of shipped ones, the pages, the example of the docs."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from lamdatui.actionkit.check import check, check_file, declaration_problems, new_file
from lamdatui.actionkit.docs import COMMAND, declarations, description, listing, markdown, shipped
from lamdatui.base.errors import LamdatuiError
from lamdatui.config.resources import load_registry
from lamdatui.domain.actions import ActionType, BoundType, Estimate, Param, Slot
from tests.conftest import CHECKOUT, Commands

SHIPPED = shipped()
RATE = Param("rate", "float", 0.1, "a rate", (0.1, 0.2), low=0.0, high=1.0)


class Sound(ActionType):
    name = "sound"
    summary = "a declaration without a fault"
    family = "supervised"
    source = "nobody"
    slots = (Slot("model", "model", "what to train"), Slot("dataset", "dataset", "what on", formats=("sft",)))
    params = (RATE,)

    def run(self, step: Any) -> None:
        raise NotImplementedError


def problems(**changes: Any) -> list[str]:
    kind = type("Changed", (Sound,), changes)()
    return declaration_problems(BoundType(kind, tuple(kind.params)))


def raises(self: Any, call: Any) -> Any:
    return call.datasets["dataset"][0].no_such_field


def test_a_sound_declaration_has_no_problems() -> None:
    assert problems() == []
    optional = Slot("more", "datasets", "more of it", formats=("sft", "preference"), least=0, most=3)
    assert problems(slots=(*Sound.slots, optional)) == []
    assert problems(slots=Sound.slots[1:], output="dataset", family="data") == []


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"name": "Sound"}, "name: small letters"),
        ({"name": "a-b"}, "name: letters, digits"),
        ({"name": "class"}, "name: letters, digits"),
        ({"summary": "short"}, "summary: "),
        ({"source": " "}, "source: "),
        ({"family": "other"}, "family: one of supervised"),
        ({"output": "file"}, "output: "),
        ({"version": 0}, "version: "),
        ({"version": "1"}, "version: "),
        ({"slots": ()}, "slots: at least one input"),
        ({"slots": Sound.slots[1:]}, "slots: a model can only be made from a model"),
        ({"slots": (Slot("model", "model", ""), Sound.slots[1])}, "slot model: no help text"),
        ({"slots": (Sound.slots[0], Slot("dataset", "dataset", "what on"))}, "slot dataset: say which formats"),
        ({"slots": (Slot("model", "model", "what", formats=("sft",)),)}, "slot model: formats are for datasets"),
        ({"slots": (Sound.slots[0], Slot("d", "dataset", "on", formats=("csv",)))}, "formats are sft"),  # type: ignore[arg-type]
        ({"slots": (Slot("model", "model", "what", most=2),)}, "use kind models"),
        ({"slots": (Slot("models", "models", "what", least=3, most=2),)}, "least is at most most"),
        ({"params": (replace(RATE, name="model"),)}, "the name model is used twice"),
        ({"params": (replace(RATE, help=""),)}, "hyperparameter rate: no help text"),
        ({"params": (replace(RATE, default=2.0),)}, "the default 2.0 is not legal"),
        ({"params": (replace(RATE, default=0.3),)}, "not in the search grid"),
        ({"params": (replace(RATE, choices=(0.1, 5.0)),)}, "the choice 5.0 is not legal"),
        ({"params": (replace(RATE, choices=(0.1, 0.1)),)}, "has a value twice"),
        ({"params": (replace(RATE, high=None),)}, "a number needs its legal range"),
        ({"params": (Param("count", "int", 1.0, "how many", low=0, high=9),)}, "is not of type int"),
        ({"params": (Param("way", "str", "a", "how"),)}, "text needs its legal words"),
        ({"check": raises}, "check() raised AttributeError"),
        ({"check": lambda self, call: "no"}, "check() returns a list"),
        ({"estimate": raises}, "estimate() raised AttributeError"),
        ({"estimate": lambda self, call: 5}, "estimate() returns an Estimate"),
        ({"estimate": lambda self, call: Estimate(seconds=-1)}, "seconds is a number from 0"),
        (
            {"estimate": lambda self, call: Estimate(seconds=10**5000)},
            "seconds is a number from 0, or None, not something of type int",
        ),
        ({"estimate": lambda self, call: Estimate(seconds="x" * 10**8)}, "seconds is a number from 0"),
        ({"check": lambda self, call: "x" * 10**8}, "returns a list of sentences, not 'xxx"),
    ],
    ids=lambda value: value if isinstance(value, str) else ",".join(value),
)
def test_each_fault_of_a_declaration_is_told(changes: dict[str, Any], told: str) -> None:
    found = problems(**changes)
    assert any(told in problem for problem in found), found


def test_what_is_missing_is_named() -> None:
    class Nothing(ActionType):
        def run(self, step: Any) -> None:
            raise NotImplementedError

    found = declaration_problems(BoundType(Nothing(), ()))
    assert "summary is missing" in found
    assert "slots is missing" in found


GENERATED = [bound for bound in SHIPPED if bound.origin.endswith("merge.py")]
"""Made in a loop from mergekit's own specs: there is no class to copy."""


def test_a_generated_type_has_nothing_to_copy_and_says_so() -> None:
    assert len(GENERATED) >= 19
    for bound in GENERATED:
        with pytest.raises(LamdatuiError, match="not written out as a class"):
            new_file(f"my_{bound.name}", like=bound.name)


@pytest.mark.parametrize("bound", [b for b in SHIPPED if b not in GENERATED], ids=lambda bound: bound.name)
def test_a_copy_of_every_shipped_action_type_passes(bound: BoundType, home: Path) -> None:
    file = new_file(f"my_{bound.name}", like=bound.name)
    assert file == home / "config" / "actions" / f"my_{bound.name}.py"
    (found,) = check_file(file)
    assert (found.name, found.problems) == (f"my_{bound.name}", [])
    registry = load_registry()
    assert registry.problems == []
    assert registry.get(bound.name).origin == bound.origin
    mine = registry.get(f"my_{bound.name}")
    assert mine.origin.startswith("user: ")
    assert mine.type.slots == bound.type.slots
    assert mine.params == bound.params


def test_new_writes_a_file_that_passes_and_never_overwrites(cli: Commands, home: Path) -> None:
    done = cli("actions", "new", "my_start")
    assert done.returncode == 0, done.stderr
    file = home / "config" / "actions" / "my_start.py"
    assert done.stdout.strip() == str(file)
    text = file.read_text()
    code = [line for line in text.splitlines() if line.strip() and not line.strip().startswith("#")]
    assert len(code) < 40
    assert cli("actions", "check", "my_start").returncode == 0
    assert "my_start" in cli("actions").stdout
    for words, told in (
        (["my_start"], "exists already"),
        (["sft"], "there is an action type 'sft' already"),
        (["My-Start"], "letters, digits and underscores"),
        (["../elsewhere"], "letters, digits and underscores"),
        (["other", "--like", "stf"], "did you mean 'sft'?"),
        (["other", "--like", "my_start"], "is not a shipped action type"),
    ):
        refused = cli("actions", "new", *words)
        assert refused.returncode == 2, words
        assert told in refused.stderr
        assert len(refused.stderr.strip().splitlines()) <= 3
    assert file.read_text() == text
    assert [path.name for path in file.parent.iterdir()] == ["my_start.py"]


def test_the_name_of_a_shipped_file_is_taken_too(monkeypatch: pytest.MonkeyPatch) -> None:
    stems = {bound.origin.partition(": ")[2].removesuffix(".py") for bound in SHIPPED} - {bound.name for bound in SHIPPED}
    for stem in stems:
        with pytest.raises(LamdatuiError, match="there is a file"):
            new_file(stem)


BROKEN = {
    "heavy.py": ("import torch\n", "imports torch"),
    "gone.py": ("import nothing_of_that_name\n", "line 1"),
    "quits.py": ("raise SystemExit(3)\n", "ended Python with status 3"),
    "empty.py": ("", "no ACTION"),
}
WORKING = (
    "from lamdatui.actions import ActionType, Slot\n"
    "class Copy(ActionType):\n"
    "    name = '{name}'\n    summary = 'a copy of a model'\n    family = 'supervised'\n    source = 'nobody'\n"
    "    slots = (Slot('model', 'model', 'what to copy'),)\n    params = ()\n"
    "    def run(self, step): step.finish_training(step.load_model(), step.load_tokenizer())\n"
    "ACTION = Copy()\n"
)


def test_check_tells_what_is_wrong_with_files(cli: Commands) -> None:
    for name, (text, _) in BROKEN.items():
        (cli.folder / name).write_text(text + (WORKING.format(name=name[:-3]) if name == "heavy.py" else ""))
    (cli.folder / "good.py").write_text(WORKING.format(name="good"))
    done = cli("actions", "check", *(f"./{name}" for name in BROKEN), "good.py", "--json")
    assert done.returncode == 1, done.stderr
    *bad, good = json.loads(done.stdout)
    assert good["problems"] == []
    for found, (name, (_, told)) in zip(bad, BROKEN.items(), strict=True):
        assert any(told in problem for problem in found["problems"]), (name, found)
    assert cli("actions", "check", "good.py").returncode == 0
    for word in ("nothing_of_that_name", "nothing.py"):
        unknown = cli("actions", "check", word)
        assert unknown.returncode == 2
        assert unknown.stderr.startswith("error: ")


def test_check_without_names_looks_at_every_file(home: Path) -> None:
    folder = home / "config" / "actions"
    folder.mkdir(parents=True)
    (folder / "broken.py").write_text("1 / 0\n")
    found = {item.name: item.problems for item in check([])}
    assert {bound.name for bound in SHIPPED} <= set(found)
    assert found.pop("broken.py")
    assert not any(found.values()), found
    (told,) = check(["broken"])
    assert "ZeroDivisionError" in told.problems[0]


def test_actions_are_readable_in_eighty_columns(cli: Commands, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    rows, found = declarations()
    assert found == []
    for line in listing(rows).splitlines():
        assert len(line) <= 80, line
    for row in rows:
        assert f"{row['name']} " in listing(rows)
        told = description(row)
        assert all(len(line) <= 80 for line in told.splitlines()), told
        assert all(slot["help"].split()[-1] in told for slot in row["slots"])
        assert all(f"  {param['name']}" in told for param in row["params"])
    shown = json.loads(cli("actions", "show", "sft", "--json").stdout)
    assert (shown["family"], shown["output"], shown["origin"]) == ("supervised", "model", "builtin: sft.py")
    assert {"slots", "params", "source", "version", "summary"} <= set(shown)
    assert "hyperparameters" in cli("actions", "show", "sft").stdout


def test_a_file_that_cannot_be_loaded_is_told_beside_the_list(cli: Commands, home: Path) -> None:
    folder = home / "config" / "actions"
    folder.mkdir(parents=True)
    (folder / "broken.py").write_text("1 / 0\n")
    (folder / "vague.py").write_text(WORKING.format(name="vague").replace("summary =", "about ="))
    done = cli("actions")
    assert done.returncode == 0
    assert "broken.py" in done.stderr
    assert "vague lacks summary" in done.stderr
    assert cli("actions", "show", "vague").returncode == 2
    assert "summary is missing" in cli("actions", "check", "vague").stdout
    assert "sft" in done.stdout


def test_the_page_of_actions_is_up_to_date() -> None:
    page = (CHECKOUT / "docs" / "actions.md").read_text()
    assert page == markdown(SHIPPED), f"docs/actions.md is not what the declarations say; run: {COMMAND}"


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)


def profile_with(lab_profile, actions: dict[str, Any]) -> Path:
    """The lab's profile with these actions and no others."""
    path = lab_profile()
    data = yaml.safe_load(path.read_text())
    path.write_text(yaml.safe_dump({**data, "actions": actions}, sort_keys=False))
    return path


def test_the_example_of_the_docs_runs_as_the_page_says(cli: Commands, home: Path, lab_profile) -> None:
    page = (CHECKOUT / "docs" / "writing-actions.md").read_text()
    example = blocks(page, "python")[0]
    assert len(example.splitlines()) < 40
    folder = home / "config" / "actions"
    folder.mkdir(parents=True)
    (folder / "dft.py").write_text(example)
    checked = cli("actions", "check", "dft")
    assert checked.returncode == 0, checked.stdout
    profile = profile_with(lab_profile, yaml.safe_load(blocks(page, "yaml")[0])["actions"])
    assert cli("check", str(profile)).returncode == 0
    done = cli("run", str(profile), "--name", "try", "--headless", "--mode", "auto", "--max-trials", "2")
    assert done.returncode == 0, done.stderr
    trials = cli.show("try")["trials"]
    assert [(trial["status"], trial["action"]["type"]) for trial in trials] == [("done", "dft")] * 2
    assert trials[0]["action"]["digest"] != trials[1]["action"]["digest"]
    dry = cli("step", "try", "1", "--dry-run", TMPDIR=str(cli.folder))
    assert dry.returncode == 0, dry.stderr
    assert "loss_type: dft" in dry.stdout


def test_the_page_names_what_a_step_has() -> None:
    page = (CHECKOUT / "docs" / "writing-actions.md").read_text()
    from lamdatui.step.context import StepContext

    table = page.partition("## What `run` gets")[2].partition("## Rules")[0]
    cells = [line.partition(" | ")[0] for line in table.splitlines() if line.startswith("| `")]
    named = set(re.findall(r"`(\w+)(?:\(|`)", "\n".join(cells)))
    source = Path(sys.modules["lamdatui.step.context"].__file__ or "").read_text()
    assert {name for name in named if not hasattr(StepContext, name) and f"self.{name}" not in source} == set()
    inside = {"batch_tokens"}
    public = {name for name in vars(StepContext) if not name.startswith("_")} - inside
    assert public - named == set()


def test_the_file_to_start_from_trains_a_model(cli: Commands, lab_profile) -> None:
    assert cli("actions", "new", "my_start").returncode == 0
    narrowed = {"method": {"default": "full"}, "learning_rate": {"default": 2e-3}, "max_steps": {"default": 3}}
    profile = profile_with(lab_profile, {"my_start": narrowed})
    done = cli("run", str(profile), "--name", "start", "--headless", "--mode", "auto", "--max-trials", "1")
    assert done.returncode == 0, done.stderr
    (trial,) = cli.show("start")["trials"]
    assert trial["status"] == "done", trial
