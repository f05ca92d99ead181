"""Drop-in folders: actions, prompts and profiles, ours and the user's, found by one rule.

Builtin → the user's config folder → the project's `.lamdatui/`; the last one wins by file stem. Action packages add
theirs through the entry point group `lamdatui.actions`, without replacing a name. Project code runs only if the person listed the
folder in the file `trusted` of the config folder.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType

from lamdatui import paths
from lamdatui.actions import ActionType, BoundType, Registry
from lamdatui.errors import LamdatuiError
from lamdatui.jsonio import regular

SUFFIXES = {"actions": ".py", "prompts": ".md", "profiles": ".yaml"}


def builtin(kind: str) -> Path:
    """The shipped folder of a kind: inside the installed package, or beside it in a checkout."""
    package = Path(__file__).parent
    shipped = package / "_builtin" / kind
    return shipped if shipped.is_dir() else package.parent / kind


def trusted_file() -> Path:
    """Lists, one a line, the project folders whose code may run."""
    return paths.config_dir() / "trusted"


def is_trusted(project: Path) -> bool:
    """Whether the person named this project folder."""
    try:
        return str(project.resolve()) in regular(trusted_file()).read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        return False


def folders(kind: str) -> list[tuple[str, Path]]:
    """(origin, folder) in the order in which they are read."""
    found = [("builtin", builtin(kind)), ("user", paths.config_dir() / kind)]
    project = Path.cwd() / ".lamdatui"
    if kind != "actions" or is_trusted(project):
        found.append(("project", project / kind))
    return [(origin, folder) for origin, folder in found if folder.is_dir()]


def files(kind: str) -> dict[str, tuple[str, Path]]:
    """stem → (origin, file); a later folder overrides an earlier one."""
    found = {}
    for origin, folder in folders(kind):
        for file in sorted(folder.glob(f"*{SUFFIXES[kind]}")):
            if not file.name.startswith("_"):
                found[file.stem] = (origin, file)
    return found


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


def _load_module(origin: str, file: Path) -> ModuleType:
    name = f"lamdatui_dropins.{origin}.{file.stem}"
    spec = importlib.util.spec_from_file_location(name, regular(file))
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


def load_registry() -> Registry:
    """Every action type that can be loaded; what can't be is a visible problem, never a crash."""
    registry = Registry()
    for origin, file in files("actions").values():
        try:
            for action_type in load_types(origin, file):
                registry.types[action_type.name] = BoundType(action_type, tuple(action_type.params), f"{origin}: {file.name}")
        except Exception as error:  # noqa: BLE001 (a user's file may raise anything; it becomes a visible problem)
            registry.problems.append(f"{file}: {type(error).__name__}: {error}")
    for point in entry_points(group="lamdatui.actions"):
        try:
            for action_type in _declared(point.load()):
                registry.types.setdefault(
                    action_type.name, BoundType(action_type, tuple(action_type.params), f"package: {point.value}")
                )
        except Exception as error:  # noqa: BLE001 (as above)
            registry.problems.append(f"entry point {point.name}: {type(error).__name__}: {error}")
    project = Path.cwd() / ".lamdatui"
    if (project / "actions").is_dir() and not is_trusted(project):
        registry.problems.append(f"{project}/actions was not loaded: add the folder's path to {trusted_file()} to trust it")
    return registry
