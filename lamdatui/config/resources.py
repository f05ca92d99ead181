"""Drop-in folders: actions, scorers, prompts and profiles, ours and the user's, found by one rule.

Builtin → the user's config folder → the project's `.lamdatui/`; the last one wins by file stem, and whoever uses it is told where
it took a builtin's place. Action packages add theirs through the entry point group `lamdatui.domain.actions`, without replacing a name. A
project's folder contributes nothing, neither code nor text, unless the person listed it in the file `trusted` of the config folder.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import os
import sys
from collections.abc import Callable, Iterator
from importlib.machinery import SourceFileLoader
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Any, TextIO

from lamdatui.base import paths
from lamdatui.base.errors import LamdatuiError
from lamdatui.base.jsonio import regular
from lamdatui.domain.actions import ActionType, BoundType, Registry
from lamdatui.domain.declarations import faults

GROUP = "lamdatui.actions"
SUFFIXES = {"actions": ".py", "scorers": ".py", "prompts": ".md", "profiles": ".yaml"}


def builtin(kind: str) -> Path:
    """The shipped folder of a kind: inside the installed package, or beside it in a checkout."""
    package = Path(__file__).parent.parent
    shipped = package / "_builtin" / kind
    return shipped if shipped.is_dir() else package.parent / kind


def project() -> Path:
    """The folder in which a project may keep files of its own; it need not exist."""
    return Path.cwd() / ".lamdatui"


def trusted_file() -> Path:
    """Lists, one a line, the project folders that are read: a `.lamdatui` folder, or the folder that holds it."""
    return paths.config_dir() / "trusted"


def is_trusted(folder: Path) -> bool:
    """Whether the person named this `.lamdatui` folder, or the project that it lies in."""
    try:
        lines = regular(trusted_file()).read_text(encoding="utf-8").splitlines()
        # A relative line would trust whatever folder one is in.
        named = {Path(os.path.realpath(path)) for line in lines if os.path.isabs(path := os.path.expanduser(line.strip()))}
    except (OSError, ValueError):
        return False
    return not named.isdisjoint((folder.resolve(), folder.parent.resolve()))


def folders(kind: str) -> list[tuple[str, Path]]:
    """(origin, folder) in the order in which they are read. This alone decides whether a project's files count."""
    found = [("builtin", builtin(kind)), ("user", paths.config_dir() / kind)]
    if is_trusted(project()):
        found.append(("project", project() / kind))
    return [(origin, folder) for origin, folder in found if folder.is_dir()]


def untrusted() -> str:
    """One line on a project's folder that is not read, with the way to trust it; empty where there is none."""
    folder = project()
    if not any((folder / kind).is_dir() for kind in SUFFIXES) or is_trusted(folder):
        return ""
    return f"{folder} is not trusted and was not read; to trust what is in it, add its path as a line to {trusted_file()}"


def files(kind: str) -> dict[str, tuple[str, Path]]:
    """stem → (origin, file); a later folder overrides an earlier one."""
    found = {}
    for origin, folder in folders(kind):
        for file in sorted(folder.glob(f"*{SUFFIXES[kind]}")):
            if not file.name.startswith("_"):
                found[file.stem] = (origin, file)
    return found


def replaced(kind: str) -> dict[str, str]:
    """stem → one line on the user's or the project's file that is used in place of a builtin one."""
    ours = {file.stem for file in builtin(kind).glob(f"*{SUFFIXES[kind]}")}
    noun = kind.removesuffix("s")
    return {
        stem: f"the {noun} {stem} is not lamdatui's own but the {origin}'s: {file}"
        for stem, (origin, file) in files(kind).items()
        if origin != "builtin" and stem in ours
    }


def profile_summary(file: Path) -> str:
    """What a profile is, from the comment at its top; nothing where there is none."""
    try:
        with regular(file).open(encoding="utf-8", errors="replace") as handle:
            first = handle.readline(1000).strip()
    except OSError:
        return ""
    text = first.lstrip("#").strip() if first.startswith("#") else ""
    return text.removeprefix(f"{file.stem}:").strip()


def load_prompt(name: str) -> str:
    """The text of a prompt. Raises LamdatuiError when no folder has it or it can't be read."""
    known = files("prompts")
    if name not in known:
        raise LamdatuiError(f"no prompt named {name!r}", fix=f"known prompts: {', '.join(sorted(known))}")
    file = known[name][1]
    try:
        return regular(file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise LamdatuiError(f"can't read the prompt: {error}", where=str(file)) from error


class _AsWritten(SourceFileLoader):
    """Compiles the text that is there: bytecode beside it may be that of another text."""

    def path_stats(self, path: Any) -> Any:
        raise OSError("no bytecode")


def _load_module(origin: str, file: Path, *, is_scorer: bool = False) -> ModuleType:
    name = f"lamdatui_dropins.{origin}.{'scorers.' if is_scorer else ''}{file.stem}"
    loader = SourceFileLoader(name, str(file)) if origin == "builtin" else _AsWritten(name, str(file))
    spec = importlib.util.spec_from_file_location(name, regular(file), loader=loader)
    if spec is None or spec.loader is None:
        raise ImportError(f"{file} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        sys.modules.pop(name, None)
        raise
    return module


def _declared(module: ModuleType) -> Iterator[ActionType]:
    if "ACTION" not in vars(module) and "ACTIONS" not in vars(module):
        raise ValueError("no ACTION and no ACTIONS in the file")
    for item in [*vars(module).get("ACTIONS", ()), *([module.ACTION] if "ACTION" in vars(module) else [])]:
        if not isinstance(item, ActionType):
            raise TypeError(f"{item!r} is not an ActionType")
        yield item


def load_types(origin: str, file: Path) -> list[ActionType]:
    """The action types that a file declares. Raises whatever the file raises, ValueError or TypeError when it has none."""
    return list(_declared(_load_module(origin, file)))


def load_scorer(origin: str, file: Path) -> ModuleType:
    """A scorer's module. Raises whatever the file raises, ValueError when it has no `score`."""
    module = _load_module(origin, file, is_scorer=True)
    if not callable(vars(module).get("score")) or not callable(vars(module).get("problem", print)):
        raise ValueError("no function score(reference, completion) in the file")
    return module


def load_point(value: str) -> list[ActionType]:
    """The action types of an installed package's entry point, by what it points to. Raises whatever its module raises."""
    return [kind for point in entry_points(group=GROUP, value=value) for kind in _declared(point.load())]


def _read(registry: Registry, place: str, load: Callable[[], list[ActionType]]) -> list[ActionType]:
    """What is declared; nothing, and a problem, where it can't be loaded or one of the types lacks what each must have."""
    try:
        # What it prints would stand among what a command says.
        with contextlib.redirect_stdout(_nowhere()), contextlib.redirect_stderr(_nowhere()):
            found = [kind for kind in load() if (kind.name, kind.params, kind.slots)]
            for kind in found:
                if wrong := faults(kind):
                    raise TypeError(f"{str(kind.name)[:100]}: {'; '.join(wrong[:3])}")
            return found
    except KeyboardInterrupt:
        # The person's: the file got through in a process of its own.
        raise
    except BaseException as error:  # noqa: BLE001 (somebody's file may raise anything; it becomes a visible problem)
        registry.problems.append(f"{place}: {type(error).__name__}: {error}")
        return []


@functools.cache
def _nowhere() -> TextIO:
    # Never closed: a file may keep what it was given as its output.
    return open(os.devnull, "w", encoding="utf-8")


def load_registry(*, step: bool = False) -> Registry:
    """Every action type that can be loaded; what can't be is a visible problem, never a crash.

    What is not shipped is first read in a process of its own (`lamdatui.config.reading`, which says what `step` means).
    """
    from lamdatui.config import reading

    registry, found = Registry(), files("actions")
    own: dict[str, Path] = {}
    """Type → the shipped file that declares it, also where another file of that name is used in its place."""
    for file in sorted(builtin("actions").glob("[!_]*.py")):
        for kind in _read(registry, str(file), lambda file=file: load_types("builtin", file)):
            own[kind.name] = file
            if found[file.stem][0] == "builtin":
                registry.types[kind.name] = BoundType(kind, tuple(kind.params), f"builtin: {file.name}")
    theirs, points = [item for item in found.values() if item[0] != "builtin"], list(entry_points(group=GROUP))
    sources = [*(reading.file_source(*item) for item in theirs), *map(reading.point_source, points)]
    unread = reading.problems(sources, step=step) if sources else {}
    for origin, file in theirs:
        if str(file) in unread:
            registry.problems.append(f"{file}: {unread[str(file)]}")
            continue
        for kind in _read(registry, str(file), lambda origin=origin, file=file: load_types(origin, file)):
            bound = BoundType(kind, tuple(kind.params), f"{origin}: {file.name}", replaces=kind.name in own)
            registry.types[kind.name] = bound
    for point in points:
        if point.value in unread:
            registry.problems.append(f"entry point {point.name}: {unread[point.value]}")
            continue
        for kind in _read(registry, f"entry point {point.name}", lambda point=point: load_point(point.value)):
            registry.types.setdefault(kind.name, BoundType(kind, tuple(kind.params), f"package: {point.value}"))
    for stem in sorted({file.stem for name, file in own.items() if name not in registry.types}):
        gone = ", ".join(name for name, file in own.items() if file.stem == stem and name not in registry.types)
        registry.problems.append(f"{found[stem][1]} is used in place of lamdatui's own {stem}.py: it does not offer {gone}")
    if note := untrusted():
        registry.problems.append(note)
    return registry
