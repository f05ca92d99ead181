"""Drop-in folders: the last one wins and says so, a project's counts only when it is trusted, no file can break the rest."""

from __future__ import annotations

import importlib.metadata
import sys
from pathlib import Path

import pytest

from lamdatui.base.errors import LamdatuiError
from lamdatui.config import reading, resources

ACTION = (
    "from lamdatui.actions import ActionType, Slot\n"
    "print('loud')\n"
    "class Mine(ActionType):\n"
    "    name = '{name}'\n    summary = 's'\n    family = 'supervised'\n    source = 'nobody'\n"
    "    slots = (Slot('model', 'model', 'what'),)\n    params = ()\n"
    "    def run(self, step): raise NotImplementedError\n"
    "{declared}\n"
)


@pytest.fixture
def own(home: Path) -> Path:
    """The user's config folder."""
    for kind in resources.SUFFIXES:
        (home / "config" / kind).mkdir(parents=True)
    return home / "config"


@pytest.fixture
def project(own: Path, tmp_path: Path) -> Path:
    """A project's folder beside the user's own."""
    for kind in resources.SUFFIXES:
        (tmp_path / ".lamdatui" / kind).mkdir(parents=True)
    return tmp_path / ".lamdatui"


@pytest.fixture
def read_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files are loaded without the processes that try them first, which have tests of their own."""
    monkeypatch.setattr(reading, "problems", lambda sources, step: {})


def test_a_projects_folder_counts_only_when_it_is_trusted(project: Path, own: Path) -> None:
    (project / "prompts" / "system.md").write_text("Obey the project.")
    (own / "prompts" / "system.md").write_text("Obey me.")
    assert [origin for origin, _ in resources.folders("prompts")] == ["builtin", "user"]
    assert resources.load_prompt("system") == "Obey me."
    assert resources.untrusted().startswith(f"{project} is not trusted and was not read")
    assert resources.load_registry().problems == [resources.untrusted()]
    (own / "trusted").write_text(f"{project}\n")
    assert [origin for origin, _ in resources.folders("prompts")] == ["builtin", "user", "project"]
    assert resources.load_prompt("system") == "Obey the project."
    assert resources.untrusted() == ""
    assert resources.replaced("prompts") == {
        "system": f"the prompt system is not lamdatui's own but the project's: {project / 'prompts' / 'system.md'}"
    }


def test_trust_is_not_inherited_by_what_lies_below_or_above(project: Path, own: Path, tmp_path: Path) -> None:
    for other in (tmp_path.parent, project / "prompts", tmp_path / "below"):
        (own / "trusted").write_text(f"{other}\n")
        assert not resources.is_trusted(project)
    (own / "trusted").write_text(f"/somewhere\n{tmp_path}\n")
    assert resources.is_trusted(project)
    (own / "trusted").write_bytes(b"\xff\n")
    assert not resources.is_trusted(project)


def test_a_link_is_trusted_for_where_it_leads(project: Path, own: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    (own / "trusted").write_text(f"{tmp_path / 'link'}\n")
    assert resources.is_trusted(project) and resources.is_trusted(tmp_path / "link" / ".lamdatui")


def test_a_folder_without_drop_ins_is_not_worth_a_word(own: Path, tmp_path: Path) -> None:
    assert resources.untrusted() == ""
    (tmp_path / ".lamdatui").mkdir()
    assert resources.untrusted() == ""


def test_files_that_begin_with_an_underscore_or_end_otherwise_are_not_read(own: Path) -> None:
    for name in ("_draft.md", "notes.txt", "mine.md"):
        (own / "prompts" / name).write_text("x")
    assert {stem for stem, (origin, _) in resources.files("prompts").items() if origin == "user"} == {"mine"}
    assert resources.replaced("prompts") == {}


def test_a_prompt_is_text_or_one_clear_error(own: Path) -> None:
    with pytest.raises(LamdatuiError, match="no prompt named 'sistem'") as refused:
        resources.load_prompt("sistem")
    assert "system" in refused.value.fix
    (own / "prompts" / "mine.md").write_bytes(b"\xff")
    with pytest.raises(LamdatuiError, match="can't read the prompt") as refused:
        resources.load_prompt("mine")
    assert refused.value.where == str(own / "prompts" / "mine.md")


@pytest.mark.parametrize(
    ("first", "summary"),
    [("# lab: a small world\n", "a small world"), ("# A world\n", "A world"), ("name: lab\n", ""), ("", ""), ("#\n", "")],
)
def test_a_profile_says_what_it_is_in_its_first_line(own: Path, first: str, summary: str) -> None:
    file = own / "profiles" / "lab.yaml"
    file.write_text(first + "# lab: no\n")
    assert resources.profile_summary(file) == (summary if first else "no")
    assert resources.profile_summary(own / "profiles") == ""


@pytest.mark.parametrize(
    ("declared", "told"),
    [
        ("", "ValueError: no ACTION and no ACTIONS in the file"),
        ("ACTION = Mine", "is not an ActionType"),
        ("ACTIONS = [Mine(), 5]", "TypeError: 5 is not an ActionType"),
        ("ACTION = Mine()\nraise SystemExit(3)", "SystemExit: 3"),
        ("ACTION = Mine()\ndel Mine.params", "AttributeError"),
        (
            "class Bad(Mine):\n    @property\n    def params(self): raise ValueError('later')\nACTION = Bad()",
            "ValueError: later",
        ),
    ],
)
def test_a_file_that_can_not_be_loaded_is_told_and_the_rest_is_there(
    own: Path, read_at_once: None, capfd: pytest.CaptureFixture[str], declared: str, told: str
) -> None:
    (own / "actions" / "bad.py").write_text(ACTION.format(name="bad", declared=declared))
    (own / "actions" / "good.py").write_text(ACTION.format(name="good", declared="ACTION = Mine()"))
    registry = resources.load_registry()
    assert {"good", "sft", "merge_ties"} <= set(registry.types)
    assert registry.get("good").origin == "user: good.py" and registry.get("sft").origin == "builtin: sft.py"
    assert not registry.get("good").replaces and not registry.get("sft").replaces
    assert [told in problem for problem in registry.problems if "bad.py" in problem] == [True]
    assert "bad" not in registry.types
    assert capfd.readouterr() == ("", "")
    assert ("lamdatui_dropins.user.bad" in sys.modules) is ("raise SystemExit" not in declared)


def test_a_file_in_a_builtins_place_is_marked_and_what_it_lacks_is_told(own: Path, read_at_once: None) -> None:
    (own / "actions" / "sft.py").write_text(ACTION.format(name="sft", declared="ACTION = Mine()"))
    (own / "actions" / "preference.py").write_text(ACTION.format(name="other", declared="ACTION = Mine()"))
    registry = resources.load_registry()
    assert registry.get("sft").origin == "user: sft.py" and registry.get("sft").replaces
    assert not registry.get("other").replaces
    (problem,) = registry.problems
    assert problem.startswith(
        f"{own / 'actions' / 'preference.py'} is used in place of lamdatui's own preference.py: it does not offer "
    )
    assert "dpo" in problem and "dpo" not in registry.types
    (own / "actions" / "distill.py").write_text(ACTION.format(name="third", declared="ACTION = Mine()"))
    others = resources.load_registry().problems
    assert [told.partition(": it does not offer ")[2] for told in others if "distill.py" in told] == ["distill"]


def test_a_file_that_was_tried_and_failed_is_never_imported(own: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = own / "actions" / "evil.py"
    file.write_text(f"open({str(tmp_path / 'canary')!r}, 'w')\n")
    (own / "actions" / "good.py").write_text(ACTION.format(name="good", declared="ACTION = Mine()"))
    monkeypatch.setattr(reading, "problems", lambda sources, step: {str(file): "it ended Python"})
    registry = resources.load_registry()
    assert f"{file}: it ended Python" in registry.problems and "good" in registry.types
    assert not (tmp_path / "canary").exists()


def test_an_interrupt_while_files_are_loaded_is_the_persons(own: Path, read_at_once: None) -> None:
    (own / "actions" / "slow.py").write_text("raise KeyboardInterrupt\n")
    with pytest.raises(KeyboardInterrupt):
        resources.load_registry()


def test_bytecode_of_another_text_is_not_run(own: Path, read_at_once: None) -> None:
    import os
    import py_compile

    file = own / "actions" / "mine.py"
    file.write_text(ACTION.format(name="old", declared="ACTION = Mine()"))
    stat = file.stat()
    py_compile.compile(str(file))
    file.write_text(ACTION.format(name="new", declared="ACTION = Mine()"))
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert {"old", "new"} & set(resources.load_registry().types) == {"new"}


def test_a_package_adds_types_and_replaces_none(
    home: Path, tmp_path: Path, read_at_once: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = tmp_path / "their_actions.py"
    module.write_text(ACTION.format(name="theirs", declared="class Sft(Mine):\n    name = 'sft'\nACTIONS = (Mine(), Sft())"))
    monkeypatch.syspath_prepend(tmp_path)
    points = [
        importlib.metadata.EntryPoint(name, value, resources.GROUP)
        for name, value in (("good", "their_actions"), ("bad", "no_such_one"))
    ]

    def entry_points(group: str, value: str = "") -> list[importlib.metadata.EntryPoint]:
        return [point for point in points if group == resources.GROUP and value in ("", point.value)]

    monkeypatch.setattr(resources, "entry_points", entry_points)
    registry = resources.load_registry()
    assert registry.get("theirs").origin == "package: their_actions"
    assert registry.get("sft").origin == "builtin: sft.py"
    assert [problem.split(":")[0] for problem in registry.problems] == ["entry point bad"]
    monkeypatch.setattr(reading, "problems", lambda sources, step: {"no_such_one": "it hangs"})
    points.reverse()
    registry = resources.load_registry()
    assert "theirs" in registry.types and registry.problems == ["entry point bad: it hangs"]
    monkeypatch.setattr(reading, "problems", lambda sources, step: {"their_actions": "it hangs"})
    assert "theirs" not in resources.load_registry().types
