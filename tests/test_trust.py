"""What others wrote runs nothing unasked: untrusted folders contribute nothing, and what a profile names is confirmed first."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pexpect
import pytest
from textual.widgets import Static

from lamdatui.base.clock import SystemClock
from lamdatui.base.errors import EXIT_PLANNER, UNCONFIRMED, LamdatuiError
from lamdatui.base.jsonio import file_digest
from lamdatui.config import resources
from lamdatui.inputs import trust
from lamdatui.inputs.profile import Profile, load_profile
from lamdatui.store.journal import Journal
from lamdatui.ui.kit.dialogs import ConfirmScreen
from lamdatui.wire.rundir import is_alive, prepare_run, wait_for_end
from tests.conftest import CHECKOUT, Commands
from tests.ui.test_start import started

QUIETLY = ("--headless", "--mode", "read-only", "--max-trials", "1")
FLIP = (
    "from lamdatui.actions import ActionType, Slot\n"
    "class Flip(ActionType):\n"
    "    name = '{name}'\n    summary = 'stands in for another one'\n    family = 'supervised'\n    source = 'nobody'\n"
    "    slots = (Slot('model', 'model', 'what'), Slot('dataset', 'dataset', 'on', formats=('sft',)))\n    params = ()\n"
    "    def run(self, step): raise NotImplementedError\n"
    "ACTION = Flip()\n"
)


@pytest.fixture
def canary(tmp_path: Path) -> Path:
    """Is there when the program ran."""
    return tmp_path / "canary"


@pytest.fixture
def program(tmp_path: Path, canary: Path) -> Path:
    path = tmp_path / "evil.sh"
    path.write_text(f"#!/bin/sh\ntouch {canary}\n")
    path.chmod(0o755)
    (tmp_path / "m.gguf").write_bytes(b"GGUF" + bytes(100))
    return path


def planner(text: str) -> tuple[str, str]:
    """The change that gives the lab's profile this planner."""
    return "budget:", f"planner: {{ {text} }}\nbudget:"


@pytest.fixture
def evil(lab_profile, program: Path, tmp_path: Path) -> Path:
    """The lab's profile with the program as its planner."""
    section = f"backend: llama-cpp-python, model: {program.parent / 'm.gguf'}, executable: ./evil.sh"
    return lab_profile(planner(section)).rename(tmp_path / "evil.yaml")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """The folder that a project would bring along."""
    for kind in ("actions", "profiles", "prompts"):
        (tmp_path / ".lamdatui" / kind).mkdir(parents=True)
    return tmp_path / ".lamdatui"


def trusting(home: Path, line: object) -> None:
    (home / "config").mkdir(exist_ok=True)
    (home / "config" / "trusted").write_text(f"{line}\n")


def refused(done: subprocess.CompletedProcess[str], canary: Path) -> None:
    assert done.returncode == 2, done.stderr
    assert f"error: {UNCONFIRMED}" in done.stderr
    assert "Traceback" not in done.stderr
    assert not canary.exists()


# --- folders ---------------------------------------------------------------------------------------------------------


def test_an_untrusted_folder_contributes_nothing_and_is_told(cli: Commands, evil: Path, canary: Path, project: Path) -> None:
    evil.rename(project / "profiles" / "lab.yaml")
    (project / "profiles" / "other.yaml").write_text("")
    (project / "prompts" / "system.md").write_text("Obey the project.")
    (project / "actions" / "flip.py").write_text(f"open({str(canary)!r}, 'w')\n")
    done = cli("run", "lab", "--name", "x", *QUIETLY)
    assert done.returncode == 0, done.stderr
    assert not canary.exists()
    assert f"note: {project} is not trusted" in done.stderr
    found = cli.show("x")
    assert found["profile"]["planner"] is None
    assert [problem["where"] for problem in found["problems"]] == ["trust"]
    for words in (["profiles"], ["prompts"], ["actions"]):
        listed = cli(*words, "--json")
        assert {row["origin"].partition(":")[0] for row in json.loads(listed.stdout)} == {"builtin"}
        assert f"{project} is not trusted" in listed.stderr
        assert str(resources.trusted_file()) in listed.stderr
    checked = json.loads(cli("check", "lab", "--json").stdout)
    assert [item["status"] for item in checked if str(project) in item["detail"]] == ["warn"]
    unknown = cli("run", "other", *QUIETLY)
    assert (unknown.returncode, "fix" in unknown.stderr, "is not trusted" in unknown.stderr) == (2, True, True)
    assert not canary.exists()


@pytest.mark.parametrize("line", ["{folder}", "{parent}", "{parent}/./.lamdatui/", "  {folder}  "])
def test_a_line_names_the_folder_or_the_one_that_holds_it(home: Path, project: Path, line: str) -> None:
    trusting(home, line.format(folder=project, parent=project.parent))
    assert resources.is_trusted(project)
    assert resources.untrusted() == ""


@pytest.mark.parametrize("line", ["", ".", ".lamdatui", "/", "{parent}/..", "{parent}/other", "~nobody-of-that-name", "\0"])
def test_other_lines_trust_nothing(home: Path, project: Path, line: str) -> None:
    trusting(home, line.format(parent=project.parent))
    assert not resources.is_trusted(project)
    assert resources.untrusted()


def test_what_a_trusted_project_replaces_is_shown_everywhere(
    cli: Commands, home: Path, project: Path, lab_profile, gguf: Path
) -> None:
    trusting(home, project.parent)
    lab_profile().rename(project / "profiles" / "lab.yaml")
    (project / "prompts" / "system.md").write_text("Be brief.")
    (project / "actions" / "mine.py").write_text(FLIP.format(name="sft"))
    for words, name in ((["profiles"], "lab"), (["prompts"], "system"), (["actions"], "sft")):
        listed = cli(*words, "--json")
        rows = {row["name"]: row for row in json.loads(listed.stdout)}
        assert rows[name]["origin"].startswith("project")
        assert [row["name"] for row in rows.values() if row["replaces_builtin"]] == [name]
    assert "in place of lamdatui's own" in cli("actions").stdout
    assert f"not lamdatui's own but the project's: {project / 'prompts' / 'system.md'}" in cli("prompts").stderr
    narrowed = ("--set", "actions={sft: {}, dpo: {}}", "--set", f"planner={{model: {gguf}}}")
    told = " ".join(
        item["detail"] for item in json.loads(cli("check", "lab", *narrowed, "--json").stdout) if item["status"] != "ok"
    )
    for word in ("the profile lab is not", "the action sft is not", "the prompt system is not"):
        assert word in told
    done = cli("run", "lab", "--name", "x", "--set", "actions={sft: {}, dpo: {}}", *QUIETLY)
    assert done.returncode == 0, done.stderr
    assert f"note: the profile lab is not lamdatui's own but the project's: {project / 'profiles' / 'lab.yaml'}" in done.stderr
    assert [(item["where"], "the action sft is" in item["message"]) for item in cli.show("x")["problems"]] == [("origin", True)]


def test_a_file_in_place_of_a_shipped_one_tells_what_is_no_longer_offered(cli: Commands, home: Path) -> None:
    folder = home / "config" / "actions"
    folder.mkdir(parents=True)
    (folder / "sft.py").write_text(FLIP.format(name="flip"))
    assert f"{folder / 'sft.py'} is used in place of lamdatui's own sft.py: it does not offer sft" in cli("actions").stderr


def test_a_file_of_the_current_folder_does_not_take_a_name(cli: Commands, evil: Path, canary: Path) -> None:
    evil.rename(cli.folder / "lab")
    checked = json.loads(cli("check", "lab", "--json").stdout)
    assert checked[0]["detail"] == "lab: 12 trials, mode ask"
    refused(cli("run", "./lab", *QUIETLY), canary)


# --- profiles --------------------------------------------------------------------------------------------------------


def test_a_profile_that_names_a_program_starts_nothing_unasked(cli: Commands, evil: Path, program: Path, canary: Path) -> None:
    refused(done := cli("run", "./evil.yaml", "--name", "x", *QUIETLY), canary)
    assert file_digest(program) in done.stderr
    assert not cli.runs.exists()
    refused(cli("planner", "check", "evil.yaml"), canary)
    (finding,) = [item for item in json.loads(cli("check", "evil.yaml", "--json").stdout) if item["subject"] == "trust"]
    assert (finding["status"], str(program) in finding["detail"], canary.exists()) == ("warn", True, False)


def test_a_prepared_run_directory_starts_nothing_unasked(cli: Commands, evil: Path, canary: Path) -> None:
    run_dir = prepare_run(load_profile(evil), "x", cli.runs)
    Journal(run_dir / "run.db", SystemClock()).close()
    for words in (["--mode", "read-only"], ["--view"], []):
        line = [sys.executable, "-P", "-m", "lamdatui.engine", str(run_dir), *words]
        refused(subprocess.run(line, capture_output=True, text=True, timeout=60), canary)
    refused(cli("attach", "x", "--no-console"), canary)
    refused(cli("serve", "x", "--port", "0"), canary)
    refused(cli("run", "evil.yaml", "--name", "x", *QUIETLY), canary)


def test_trust_is_told_recorded_once_and_holds_for_these_contents(
    cli: Commands, evil: Path, program: Path, canary: Path
) -> None:
    done = cli("run", "evil.yaml", "--name", "x", *QUIETLY, "--trust")
    assert done.returncode == EXIT_PLANNER, done.stderr
    assert canary.exists()
    assert f'planner.executable: "{program}" (sha256 {file_digest(program)})' in done.stderr
    assert trust.confirmed_file().stat().st_mode & 0o777 == 0o600
    canary.unlink()
    assert cli("planner", "check", "evil.yaml").returncode == EXIT_PLANNER
    assert canary.exists()
    cli("planner", "check", "evil.yaml", "--trust")
    assert len(trust.confirmed_file().read_text().splitlines()) == 1
    canary.unlink()
    program.write_text(program.read_text() + "# changed\n")
    refused(cli("run", "evil.yaml", "--name", "x", *QUIETLY), canary)
    refused(cli("attach", "x", "--no-console"), canary)
    refused(cli("planner", "check", "evil.yaml"), canary)


def sensitive(lab_profile: Callable[..., Path], text: str) -> dict[str, Any]:
    return trust.sensitive(load_profile(lab_profile(planner(text))))


def test_the_digest_covers_words_and_contents(lab_profile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    tool = tmp_path / "bin" / "vllm"
    tool.parent.mkdir()
    tool.write_text("#!/bin/sh\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tool.parent}:{os.environ['PATH']}")
    template = tmp_path / "chat.jinja"
    template.write_text("a")
    text = f"backend: vllm, model: m, executable: vllm, arguments: [--chat-template={template}, --enforce-eager]"
    first = sensitive(lab_profile, text)
    assert (first["executable"]["runs"], first["executable"]["sha256"]) == (str(tool), file_digest(tool))
    assert [item["sha256"] for item in first["arguments"]] == [file_digest(template), None]
    (home / "config").mkdir()
    assert not trust.is_confirmed(first)
    trust.confirm(first)
    # As after a full disk: what was cut off is no confirmation, and the next one is whole.
    with trust.confirmed_file().open("a") as handle:
        handle.write("0123")
    second = sensitive(lab_profile, text.replace("enforce-eager", "other"))
    assert not trust.is_confirmed(second)
    trust.confirm(second)
    assert trust.is_confirmed(first) and trust.is_confirmed(second)
    template.write_text("b")
    assert not trust.is_confirmed(sensitive(lab_profile, text))
    template.write_text("a")
    assert trust.is_confirmed(sensitive(lab_profile, text))
    tool.write_text("#!/bin/sh\ntrue\n")
    assert not trust.is_confirmed(sensitive(lab_profile, text))


@pytest.mark.parametrize(("backend", "is_covered"), [("vllm", True), ("llama-cpp-python", False)])
def test_a_file_that_the_first_word_of_the_command_line_names_is_covered(
    lab_profile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, backend: str, is_covered: bool
) -> None:
    tool = tmp_path / "tool"
    tool.write_text("#!/bin/sh\n")
    tool.chmod(0o755)
    text = f"backend: {backend}, model: m, executable: {tool}"
    before = sensitive(lab_profile, text)
    (tmp_path / "serve").write_text("import os\n")
    assert (sensitive(lab_profile, text) != before) is is_covered


@pytest.mark.parametrize(
    ("url", "here"),
    [
        ("http://127.0.0.1:8000", True),
        ("http://127.8.9.1/v1", True),
        ("http://localhost:1", True),
        ("http://[::1]:8000", True),
        ("https://planner.example", False),
        ("http://127.0.0.1@planner.example/", False),
        ("http://planner.example#@127.0.0.1", False),
        ("http://127.0.0.1.planner.example", False),
        ("http://localhost.planner.example", False),
        ("http://192.168.0.2:8000", False),
        ("http://0.0.0.0:8000", False),
        ("http://[::ffff:192.0.2.1]:80", False),
        ("http://127.1", False),
        ("http://", False),
        ("http://[", False),
    ],
)
def test_only_loopback_addresses_need_no_confirmation(lab_profile, url: str, here: bool) -> None:
    assert trust.is_loopback(url) is here
    assert (sensitive(lab_profile, f"backend: openai, url: '{url}'") == {}) is here


def test_values_can_not_pass_for_lines_of_the_question(lab_profile) -> None:
    found = sensitive(lab_profile, 'backend: vllm, model: m, arguments: ["x\\nplanner.url: y\\e[2J\\u202e"]')
    lines = trust.told(found)
    assert len(lines) == 3 and all(line.isprintable() for line in lines)


def test_the_question_says_what_leaves_this_machine_and_which_program_is_meant(lab_profile) -> None:
    away = trust.told(sensitive(lab_profile, "backend: openai, url: 'http://planner.example/v1'"))
    assert away[1:] == [
        '  planner.url: "http://planner.example/v1"',
        "    Prompts, with the record of the run, leave this machine.",
    ]
    here = trust.told({"url": "http://127.0.0.1:8000/v1"})
    assert here[2] == "    It is on this machine."
    missing, there = (
        trust.told(sensitive(lab_profile, f"backend: vllm, model: m, executable: {path}"))[2]
        for path in ("/no/such/vllm", sys.executable)
    )
    assert "There is no such program now." in missing and "no such program" not in there
    # A name that PATH resolves is told with what it stands for.
    named = trust.told(sensitive(lab_profile, "backend: vllm, model: m, executable: sh"))
    assert "It is" not in there and "It is" not in missing and "/sh" in named[2].partition(" It is ")[2]


class Recorder:
    """A server on loopback that keeps the Authorization header of each request."""

    def __init__(self) -> None:
        self.keys: list[str | None] = []
        recorder = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                recorder.keys.append(self.headers.get("Authorization"))
                body = b'{"data": [{"id": "m"}]}'
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def recorder() -> Iterator[Recorder]:
    found = Recorder()
    yield found
    found.server.shutdown()
    found.server.server_close()


def test_a_key_is_sent_only_after_a_confirmation(cli: Commands, lab_profile, recorder: Recorder, canary: Path) -> None:
    profile = str(lab_profile(planner(f"backend: openai, url: '{recorder.url}', api_key_env: SECRET")))
    refused(cli("planner", "check", profile, SECRET="s3cret"), canary)
    refused(cli("run", profile, *QUIETLY, SECRET="s3cret"), canary)
    assert recorder.keys == []
    assert "SECRET" in cli("planner", "check", profile, "--trust", "--situations", "0", SECRET="s3cret").stderr
    assert set(recorder.keys) == {"Bearer s3cret"}
    # The same key for another address is another confirmation.
    elsewhere = str(lab_profile(planner(f"backend: openai, url: '{recorder.url}/other', api_key_env: SECRET")))
    refused(cli("planner", "check", elsewhere, SECRET="s3cret"), canary)


@pytest.mark.parametrize("answer", ["n", "", "yeah"])
def test_no_in_a_terminal_starts_nothing(cli: Commands, evil: Path, canary: Path, answer: str) -> None:
    line = cli.line("run", str(evil), "--name", "x")
    child = pexpect.spawn(line[0], line[1:], cwd=str(cli.folder), timeout=60, encoding="utf-8", dimensions=(40, 200))
    child.expect_exact("evil.sh")
    child.expect_exact("[y/N]")
    child.send(answer + "\r")
    child.expect(pexpect.EOF)
    child.close()
    assert (child.exitstatus, "not confirmed" in (child.before or "")) == (2, True)
    assert not (canary.exists() or cli.runs.exists() or trust.confirmed_file().exists())


def test_yes_in_a_terminal_is_asked_for_once(cli: Commands, evil: Path, canary: Path) -> None:
    line = cli.line("planner", "check", str(evil))
    for asked in (True, False):
        child = pexpect.spawn(line[0], line[1:], cwd=str(cli.folder), timeout=60, encoding="utf-8", dimensions=(40, 200))
        if asked:
            child.expect_exact("[y/N]")
            assert not canary.exists()
            child.send("y\r")
        child.expect(pexpect.EOF)
        child.close()
        assert child.exitstatus == EXIT_PLANNER
        assert ("[y/N]" in (child.before or "")) is False
        canary.unlink()


def test_attach_asks_in_a_terminal(cli: Commands, evil: Path, canary: Path) -> None:
    run_dir = prepare_run(load_profile(evil), "x", cli.runs)
    Journal(run_dir / "run.db", SystemClock()).close()
    line = cli.line("attach", "x")
    child = pexpect.spawn(line[0], line[1:], cwd=str(cli.folder), timeout=60, encoding="utf-8")
    child.expect_exact("[y/N]")
    child.send("n\r")
    child.expect(pexpect.EOF)
    child.close()
    assert (child.exitstatus, canary.exists()) == (2, False)


def test_shipped_profiles_need_no_confirmation() -> None:
    profiles = [load_profile(path) for path in (CHECKOUT / "profiles").glob("*.yaml")]
    assert len(profiles) > 4
    assert [trust.sensitive(profile) for profile in profiles] == [{}] * len(profiles)


def test_a_confirmation_that_can_not_be_kept_is_an_error(home: Path, lab_profile, monkeypatch: pytest.MonkeyPatch) -> None:
    (home / "config").write_text("in the way")
    profile: Profile = load_profile(lab_profile(planner("backend: openai, url: 'http://planner.example'")))
    with pytest.raises(LamdatuiError, match="can't re"):
        trust.ask(profile, "p", trust=True, can_ask=False)
    with pytest.raises(LamdatuiError, match="can't record the confirmation"):
        trust.confirm({"url": "http://planner.example"})
    (home / "config").unlink()
    monkeypatch.setenv("LAMDATUI_HOME", str(home / "not" / "there"))
    trust.confirm({"url": "http://planner.example"})
    assert trust.confirmed_file().is_file() and trust.confirmed_file().is_relative_to(home / "not")


@pytest.mark.parametrize(
    ("typed", "yes"), [("y", True), (" YES ", True), ("n", False), ("", False), ("yess", False), ("\x04", False)]
)
def test_only_a_yes_at_a_terminal_confirms(
    home: Path, lab_profile, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], typed: str, yes: bool
) -> None:
    profile = load_profile(lab_profile(planner("backend: openai, url: 'http://planner.example', model: m")))
    ours, theirs = os.openpty()
    os.write(ours, f"{typed}\n".encode())
    with open(theirs, encoding="utf-8") as terminal, monkeypatch.context() as patched:
        patched.setattr(sys, "stdin", terminal)
        patched.setattr(sys.stderr, "isatty", lambda: True)
        if yes:
            trust.ask(profile, "p", trust=False, can_ask=True)
            trust.require(profile, "p")
            assert "Run and reach this from now on? [y/N] " in capsys.readouterr().err
            trust.ask(profile, "p", trust=False, can_ask=True)
            assert capsys.readouterr().err == ""
            trust.ask(profile, "p", trust=True, can_ask=True)
            assert "trusted, as --trust says" in capsys.readouterr().err
        else:
            with pytest.raises(LamdatuiError, match="not confirmed: nothing was started"):
                trust.ask(profile, "p", trust=False, can_ask=True)
            assert not trust.confirmed_file().exists()
    os.close(ours)


@pytest.mark.parametrize("missing", ["stdin", "stderr", "console"])
def test_without_a_terminal_nothing_is_asked_and_nothing_confirmed(
    home: Path, lab_profile, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    profile = load_profile(lab_profile(planner("backend: openai, url: 'http://planner.example', model: m")))
    monkeypatch.setattr(sys.stdin, "isatty", lambda: missing != "stdin")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: missing != "stderr")
    with pytest.raises(LamdatuiError, match=f"{UNCONFIRMED}: planner.url"):
        trust.ask(profile, "p", trust=False, can_ask=missing != "console")
    assert not trust.confirmed_file().exists()
    trust.ask(profile, "p", trust=True, can_ask=False)
    trust.require(profile, "p")
    assert len(trust.confirmed_file().read_text().splitlines()) == 1
    # A second --trust tells again and keeps one line.
    trust.ask(profile, "p", trust=True, can_ask=False)
    assert len(trust.confirmed_file().read_text().splitlines()) == 1


def test_a_confirmation_after_a_line_that_was_cut_off_has_its_own(home: Path) -> None:
    found = {"url": "https://planner.example"}
    trust.confirm({"url": "https://other.example"})
    whole = trust.confirmed_file().read_bytes()
    trust.confirmed_file().write_bytes(whole[:-5])
    assert not trust.is_confirmed(found)
    trust.confirm(found)
    assert trust.is_confirmed(found) and trust.is_confirmed({"url": "https://other.example"})
    trust.confirm({"url": "https://third.example"})
    assert [line[:1] != "" for line in trust.confirmed_file().read_text().splitlines()] == [True] * 3
    assert not trust.is_confirmed({**found, "backend": "openai"}) and trust.is_confirmed({})
    trust.confirmed_file().unlink()
    trust.confirmed_file().mkdir()
    with pytest.raises(LamdatuiError, match="can't read what was confirmed"):
        trust.is_confirmed(found)


async def test_the_start_screen_opens_a_prepared_run_only_after_a_yes(
    cli: Commands, evil: Path, program: Path, canary: Path
) -> None:
    run_dir = prepare_run(load_profile(evil), "x", cli.runs)
    Journal(run_dir / "run.db", SystemClock()).close()
    async with started(cli.folder, runs=cli.runs) as start:
        await start.until(lambda: start.app.focused is not None and start.app.focused.id == "start-runs", "the run", 60)
        await start.pilot.press("enter")
        await start.until(lambda: isinstance(start.app.screen, ConfirmScreen), "the question", 60)
        assert str(program) in str(start.app.screen.query_one(".dialog-text", Static).content)
        await start.pilot.press("escape")
        await start.until(lambda: start.app.screen.id == "start", "the start screen")
        assert not canary.exists() and not is_alive(run_dir)
        await start.pilot.press("enter")
        await start.until(lambda: isinstance(start.app.screen, ConfirmScreen), "the question again", 60)
        await start.pilot.press("down", "enter")
        await start.until(canary.exists, "the program", 60)
    assert wait_for_end(run_dir, 60)
