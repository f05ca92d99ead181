"""The command line, in processes of its own, before hostile models, data, profiles and folders: what it says of each, and what the canaries say."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.corpus.canaries import Canaries
from tests.corpus.data import FILE, data_cases, lines, rows_of_text, task_cases
from tests.corpus.making import EITHER, REFUSED, TAKEN, InputCase
from tests.corpus.models import model_cases
from tests.corpus.projects import GOOD, FileCase, ProfileCase, file_cases, profile_cases

SECONDS = 400
TOLD = (0, 2, 3, 4)
"""Exit codes of a command that said what there was to say."""
QUIETLY = ("--headless", "--mode", "read-only", "--max-trials", "1")
LOADER = """
import json, sys
from pathlib import Path
import torch
from lamdatui.step.errors import StepError
from lamdatui.step.models import load_model, load_tokenizer
from lamdatui.store.artifacts import Store
store = Store(Path("loaded-store"))
for name, weights, adapters in json.loads(sys.argv[1]):
    told = {"id": name, "weights": weights, "adapters": adapters, "digest": ""}
    try:
        load_tokenizer(store, told)
        load_model(store, told, torch.float32, torch.device("cpu"))
        print(name, "loaded")
    except StepError as error:
        print(name, "refused:", error)
"""
"""What a step does with models that check lets pass."""


@dataclass
class Session:
    """Commands in a folder below `root`, and what is wrong with what they did: case → words."""

    nest: Canaries
    root: Path
    wrong: dict[str, list[str]] = field(default_factory=dict)
    said: dict[str, str] = field(default_factory=dict)
    """Case → how it ended."""

    def __call__(self, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
        """Run `lamdatui` as it is installed: its script brings no file of the folder into Python's path."""
        line = [str(Path(sys.executable).parent / "lamdatui"), *words]
        return self.process(folder, line)

    def process(self, folder: Path, line: Sequence[str]) -> subprocess.CompletedProcess[str]:
        """Any command; one that takes too long ends with 124."""
        # A relative path in it would be the hostile folder.
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        try:
            return subprocess.run(
                line,
                cwd=folder,
                env=environment,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=SECONDS,
                stdin=subprocess.DEVNULL,
            )
        except subprocess.TimeoutExpired as late:
            return subprocess.CompletedProcess(line, 124, str(late.stdout or ""), str(late.stderr or ""))

    def note(self, case: str, *words: str) -> None:
        """Something is wrong."""
        self.wrong.setdefault(case, []).extend(words)

    def after(
        self,
        case: str,
        folder: Path,
        done: subprocess.CompletedProcess[str],
        codes: Iterable[int] = TOLD,
        *,
        may_open: bool = False,
        is_kept: bool = False,
    ) -> None:
        """Look at a command's end, at all that was written beside the case, and at the canaries."""
        if done.returncode not in codes:
            self.note(case, f"exit code {done.returncode}: {(done.stderr or done.stdout)[-300:]}")
        if done.returncode == 2 and "check" not in done.args and "error: " not in done.stderr:
            self.note(case, f"refused without a word: {done.stderr[-200:]}")
        logs = [
            path
            for path in (folder / "lamdatui-runs").rglob("*")
            if path.is_file() and not path.is_symlink() and "evil" not in path.parts
        ]
        texts = [done.stdout, done.stderr, *(path.read_bytes() for path in logs if not is_kept)]
        if any("Traceback (most recent call last)" in text for text in (done.stdout, done.stderr)):
            self.note(case, f"a traceback: {done.stderr[-400:]}")
        for told in self.nest.touched(texts, may_open=may_open):
            self.note(told.removeprefix("made ") if told.startswith("made ") else case, told)


def statuses(done: subprocess.CompletedProcess[str], kind: str, count: int) -> dict[int, list[str]]:
    """Number of a case → the statuses of its findings in what `check --json` printed."""
    found: dict[int, list[str]] = {place: [] for place in range(count)}
    with contextlib.suppress(ValueError):
        for item in json.loads(done.stdout):
            for word in item["subject"].split():
                if word.startswith("case-") and (item["subject"].startswith(kind) or " × " in item["subject"]):
                    found[int(word.removeprefix("case-"))].append(item["status"])
    return found


def group(session: Session, kind: str, cases: Sequence[InputCase], *, label: str = "") -> list[InputCase]:
    """Have `check` look at all cases of a kind in one profile; those that it lets pass."""
    folder = session.root / f"{kind}{label}"
    folder.mkdir(parents=True)
    section: dict[str, Any] = {}
    for number, case in enumerate(cases):
        place = folder / f"case-{number}"
        if kind == "model":
            shutil.copytree(BASE, place)
        else:
            place.mkdir()
        case.make(place)
        section[f"case-{number}"] = {"path": case_path(case, place), **case.settings}
    whole = {**GOOD, f"{kind}s": {**GOOD[f"{kind}s"], **section}}
    (folder / "p.yaml").write_text(json.dumps(whole))
    done = session(folder, "check", "p.yaml", "--json")
    session.after(f"{kind}-group", folder, done, (0, 2), may_open=any(case.may_open for case in cases))
    found = statuses(done, kind, len(cases))
    passed = []
    for number, case in enumerate(cases):
        ended = REFUSED if "bad" in found[number] else TAKEN if found[number] else "nothing"
        session.said[str(case)] = ended
        if ended == "nothing" or (case.want != EITHER and ended != case.want):
            session.note(str(case), f"check says {ended}, not {case.want}: {done.stderr[-300:] if ended == 'nothing' else ''}")
        if ended == TAKEN:
            passed.append(case)
    return passed


def case_path(case: InputCase, place: Path) -> str:
    """How the profile names a case."""
    text = str(place / case.path) if case.path else str(place)
    return f"lm_eval:{text}?search=1&sealed=1" if case.family == "benchmarks" else text


BASE = Path()


def use_base(path: Path) -> None:
    """The good model that the others are made from."""
    global BASE
    BASE = path


def models(session: Session, cases: Sequence[InputCase], *, label: str = "") -> None:
    """Check all; load what passes as a step does; a run with those that are to be taken."""
    passed = group(session, "model", cases, label=label)
    folder = session.root / f"model{label}"
    told = []
    for case in passed:
        place = folder / f"case-{list(cases).index(case)}"
        told.append(
            [str(case), str(BASE if case.family == "adapters" else place), [str(place)] if case.family == "adapters" else []]
        )
    done = session.process(folder, [sys.executable, "-P", "-c", LOADER, json.dumps(told)])
    # The secret may be a file of a model: where links led to it, check has let it pass.
    session.after("model-loader", folder, done, (0,), may_open=any(case.may_open for case in passed))
    for line in done.stdout.splitlines():
        session.said[line.split(" ")[0]] = line
    taken = {
        f"case-{list(cases).index(case)}": {"path": str(folder / f"case-{list(cases).index(case)}")}
        for case in passed
        if case.want == TAKEN
    }
    if taken:
        (folder / "run.yaml").write_text(json.dumps({**GOOD, "models": {**GOOD["models"], **taken}}))
        session.after("model-run", folder, session(folder, "run", "run.yaml", "--name", "x", *QUIETLY), (0,))


def data(session: Session, cases: Sequence[InputCase], *, label: str = "") -> None:
    """Check all; train on what passes, and on rows of every kind; show some."""
    passed = group(session, "dataset", cases, label=label)
    folder = session.root / f"dataset{label}"
    rows = [
        {"prompt": f"rev:{text[:40]}=", "completion": text[:40].encode("utf-8", "replace").decode()}
        for _, text in rows_of_text(session.nest)
    ]
    (folder / "all.jsonl").write_text(lines(*rows))
    section = {
        f"case-{list(cases).index(case)}": {"path": case_path(case, folder / f"case-{list(cases).index(case)}")}
        for case in passed
    }
    (folder / "run.yaml").write_text(json.dumps({**GOOD, "datasets": {"all": {"path": "all.jsonl"}, **section}}))
    done = session(folder, "run", "run.yaml", "--name", "x", "--headless", "--mode", "auto")
    session.after("dataset-run", folder, done, (0,), may_open=any(case.may_open for case in passed))
    for name in ("all", *list(section)[:2]):
        session.after("dataset-show", folder, session(folder, "data", "show", "run.yaml", name))


def tasks(session: Session, cases: Sequence[InputCase], *, label: str = "") -> None:
    """Check all; answer and score what passes."""
    passed = group(session, "task", cases, label=label)
    folder = session.root / f"task{label}"
    section = {}
    for case in passed:
        name = f"case-{list(cases).index(case)}"
        section[name] = {"path": case_path(case, folder / name), **case.settings, "max_new_tokens": 4}
    (folder / "run.yaml").write_text(json.dumps({**GOOD, "tasks": {**GOOD["tasks"], **section}}))
    session.after(
        "task-run",
        folder,
        session(folder, "run", "run.yaml", "--name", "x", *QUIETLY),
        (1, *TOLD),
        may_open=any(case.may_open for case in passed),
    )


def profiles(session: Session, cases: Sequence[ProfileCase]) -> None:
    """A run of each that nobody confirms and nothing may come of."""
    for number, case in enumerate(cases):
        folder = session.root / f"profile-{number}"
        (folder / "scorers").mkdir(parents=True)
        (folder / "p.yaml").write_text(case.text, encoding="utf-8", errors="surrogatepass")
        (folder / "model.gguf").write_bytes(b"GGUF\x03\0\0\0" + b"\xff" * 16 + bytes(200))
        (folder / "program.sh").symlink_to(session.nest.program)
        done = session(folder, "run", "./p.yaml", *QUIETLY)
        codes = {REFUSED: TOLD[1:], TAKEN: (0,), EITHER: TOLD}[case.want]
        session.said[str(case)] = (done.stderr.strip().splitlines() or ["nothing"])[0 if done.returncode else -1][:160]
        session.after(str(case), folder, done, codes, may_open=case.may_open, is_kept=case.is_kept)


def project(session: Session, cases: Sequence[FileCase], *, label: str = "", short: bool = False) -> None:
    """All files in one folder, and the commands that somebody tries in a folder that they cloned."""
    folder = session.root / f"project{label}"
    folder.mkdir(parents=True)
    for case in cases:
        place = folder / case.path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(case.text)
        if ".git/" in case.path:
            place.chmod(0o755)
        session.said[str(case)] = "not run"
    (folder / "p.yaml").write_text(json.dumps(GOOD))
    (folder / FILE).write_text(lines(*({"prompt": f"do {n}=", "completion": f"{n}{n}"} for n in range(40))))
    long: list[tuple[tuple[str, ...], Sequence[int]]] = [
        (("check", "lab"), (0,)), (("models",), (0,)), (("prompts",), (0,)), (("profiles",), (0,)), (("policies",), (0,)), (("runs",), (0,)), (("planner", "servers"), TOLD),
        (("init", "--model", str(BASE), "--data", FILE, "--to", "mine.yaml", "--yes"), (0,)), (("doctor",), TOLD), (("show", "evil"), (1,)), (("attach", "evil", "--no-console"), TOLD[1:]),
        (("run", "./lamdatui-runs/up/profile.yaml", *QUIETLY), TOLD[1:]), (("doctor", "evil"), (1, *TOLD)), (("run", "p.yaml", "--name", "x", "--headless", "--mode", "auto"), (0,)), (("show", "x"), (0,)),
        (("doctor", "x"), (0,)), (("data", "show", "p.yaml", "copy"), (0,)), (("prune",), (1,)), (("export", "x", "--to", "out"), (*TOLD, 1)),
    ]  # fmt: skip
    quick: list[tuple[tuple[str, ...], Sequence[int]]] = [(("actions",), (0,)), (("check", "p.yaml"), (0,))]
    for words, codes in quick + ([] if short else long):
        session.after(f"project {' '.join(words)[:60]}", folder, session(folder, *words), codes)


def everything(session: Session, catalogue: Path, each: int = 1) -> None:
    """All inputs, or each so-manieth of those that cost a process or a step."""
    use_base(catalogue / "lab-bases" / "llama")
    nest = session.nest
    models(session, model_cases(nest, BASE)[::each])
    data(session, data_cases(nest)[::each])
    tasks(session, task_cases(nest)[::each])
    profiles(session, profile_cases(nest)[::each])
    project(session, file_cases(nest))


def counted(cases: Iterable[Any]) -> dict[str, int]:
    """How many there are of each family."""
    found: dict[str, int] = {}
    for case in cases:
        found[case.family] = found.get(case.family, 0) + 1
    return found


def environment(home: Path, catalogue: Path) -> None:
    """A home of its own for all commands, which shares what was fetched."""
    (home / "cache").mkdir(parents=True)
    (home / "cache" / "catalogue").symlink_to(catalogue)
    os.environ |= {"LAMDATUI_HOME": str(home), "LAMDATUI_LINGER": "0.2", "OMP_NUM_THREADS": "1"}
