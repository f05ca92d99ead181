"""Action types told from their declarations: in the terminal, as JSON, and as the reference page docs/actions.md.

`python -m lamdatui.actionkit.docs [FILE]` prints or writes that page.
"""

from __future__ import annotations

import shutil
import sys
import textwrap
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from lamdatui.actionkit.check import DECLARED
from lamdatui.base.errors import LamdatuiError
from lamdatui.domain.actions import FAMILIES, BoundType, Param, Value
from lamdatui.domain.declarations import declaration, declared_type

COMMAND = "python -m lamdatui.actionkit.docs docs/actions.md"
ABOUT = {
    "supervised": "Learn to give the answers of a dataset.",
    "preference": "Learn from answers that are better or worse, right or wrong.",
    "reinforcement": "Learn from scores of the model's own answers.",
    "distillation": "Learn from another model.",
    "merge": "Make one model of several, without data.",
    "data": "Make a dataset of what is there; later actions may use it.",
}
WIDTH = 118


def declarations(only: str | None = None) -> tuple[list[dict[str, Any]], list[str]]:
    """Declarations of the action types as JSON, and what could not be loaded. Raises LamdatuiError for an unknown name."""
    from lamdatui.config.resources import load_registry

    registry = load_registry()
    whole, problems = [], list(registry.problems)
    for bound in [registry.get(only)] if only else registry.types.values():
        missing = [field for field in DECLARED if not hasattr(bound.type, field)]
        if not missing:
            whole.append(bound)
        elif only:
            raise LamdatuiError(f"{only} lacks {', '.join(missing)}", where=bound.origin, fix=f"lamdatui actions check {only}")
        else:
            problems.append(f"{bound.origin}: {bound.name} lacks {', '.join(missing)}")
    rows = [
        {
            "name": bound.name,
            **declaration(bound),
            "source": bound.type.source,
            "version": bound.type.version,
            "origin": bound.origin,
            "replaces_builtin": bound.replaces,
        }
        for bound in sorted(whole, key=_order)
    ]
    return rows, problems


def _order(bound: BoundType) -> tuple[int, str]:
    family = bound.type.family
    return FAMILIES.index(family) if family in FAMILIES else len(FAMILIES), bound.name


def _columns() -> int:
    """Width of the text: the terminal's, within what reads well."""
    return max(60, min(shutil.get_terminal_size((80, 24)).columns, 110))


def _hanging(text: str, indent: int, first: str = "") -> str:
    """Text wrapped to the terminal with every line but the first (which `first` begins) indented."""
    return textwrap.fill(
        text,
        _columns(),
        initial_indent=first or " " * indent,
        subsequent_indent=" " * indent,
        break_long_words=False,
        break_on_hyphens=False,
    )


def listing(rows: list[dict[str, Any]]) -> str:
    """The action types for people: name, family, output and origin on a line, what it does below."""
    lines = []
    for row in rows:
        lines.append(f"{row['name']:22} {row['family']:13} {row['output']:7} {row['origin']}{_replacing(row)}")
        lines.append(_hanging(row["summary"], 2))
    return "\n".join(lines)


def _replacing(row: dict[str, Any]) -> str:
    return " (in place of lamdatui's own)" if row["replaces_builtin"] else ""


def description(row: dict[str, Any]) -> str:
    """One declaration for people."""
    kind = declared_type(row["name"], row)
    lines = [
        _hanging(row["summary"], 2, f"{row['name']}: "),
        f"  family   {row['family']}",
        f"  output   {row['output']}",
        f"  origin   {row['origin']}{_replacing(row)}, version {row['version']}",
        _hanging(row["source"], 11, "  source   "),
        "",
        "inputs",
    ]
    for slot in kind.slots:
        lines.append(_hanging(f"{slot.describe()}; {slot.help}", 19, f"  {slot.name:16} "))
    lines += ["", "hyperparameters"]
    for param in kind.params:
        facts = f"{param.type}, default {spelled(param.default)} {param.unit}".rstrip()
        if param.choices:
            facts += f"; search {', '.join(map(spelled, param.choices))}"
        if param.type != "bool":
            facts += f"; {'one of' if param.allowed else 'legal'} {legal_words(param)}"
        lines += [_hanging(param.help, 19, f"  {param.name:16} "), _hanging(facts, 19)]
    return "\n".join(lines if kind.params else [*lines[:-1], "no hyperparameters"])


def shipped() -> list[BoundType]:
    """Every shipped action type, by family and name; the user's own files are not looked at."""
    from lamdatui.config.resources import builtin, load_types

    found = []
    for file in sorted(builtin("actions").glob("[!_]*.py")):
        found += [BoundType(kind, tuple(kind.params), f"builtin: {file.name}") for kind in load_types("builtin", file)]
    return sorted(found, key=_order)


def markdown(types: Iterable[BoundType]) -> str:
    """The page: a section a family, in it each action type with its inputs and a table of its hyperparameters."""
    types = list(types)
    lines = [
        "# Actions",
        "",
        f"<!-- Written by `{COMMAND}` from the declarations in actions/: change those, not this page. -->",
        "",
        *_wrapped(
            "What a search can do to a model or a dataset. A profile offers an action by naming it in its `actions:` section, "
            "where each hyperparameter may get another default or search grid. `lamdatui actions show NAME` tells the same in "
            "the terminal; [writing actions](writing-actions.md) says how to add one."
        ),
        "",
        "| family | actions |",
        "|---|---|",
    ]
    families = [family for family in FAMILIES if any(bound.type.family == family for bound in types)]
    for family in families:
        names = ", ".join(f"[{b.name}](#{b.name})" for b in types if b.type.family == family)
        lines.append(f"| {family} | {names} |")
    for family in families:
        lines += ["", f"## {family.capitalize()}", "", ABOUT[family]]
        for bound in types:
            if bound.type.family == family:
                lines += ["", *_section(bound)]
    return "\n".join(lines) + "\n"


def _section(bound: BoundType) -> list[str]:
    kind = bound.type
    lines = [f"### {bound.name}", "", *_wrapped(f"{kind.summary[0].upper()}{kind.summary[1:]}. Makes a {kind.output}."), ""]
    lines += [*_wrapped(f"Source: {kind.source} (`actions/{bound.origin.partition(': ')[2]}`, version {kind.version})."), ""]
    for slot in kind.slots:
        lines += _wrapped(f"- `{slot.name}`: {slot.describe()}; {slot.help}", "  ")
    if bound.params:
        lines += ["", "| hyperparameter | default | search grid | legal | what |", "|---|---|---|---|---|"]
        lines += [_row(param) for param in bound.params]
    return lines


def _row(param: Param) -> str:
    default = f"{spelled(param.default)} {param.unit}".strip()
    grid = ", ".join(map(spelled, param.choices)) or "-"
    cells = (f"`{param.name}` ({param.type})", default, grid, legal_words(param), param.help)
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


def _wrapped(text: str, indent: str = "") -> list[str]:
    return textwrap.wrap(text, WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


def legal_words(param: Param) -> str:
    """What may be typed for a hyperparameter."""
    if param.type == "bool":
        return "true or false"
    if param.allowed:
        return ", ".join(param.allowed)
    if param.low is None or param.high is None:
        return "any"
    return f"{spelled(param.low)} to {spelled(param.high)}"


def spelled(value: Value) -> str:
    """A value as a profile would have it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return f"{value:.0f}" if value.is_integer() and abs(value) < 1e9 else f"{value:g}"
    return str(value) or '""'


def main(words: list[str]) -> int:
    """Print the page, or write it to the file that is named."""
    text = markdown(shipped())
    if not words:
        print(text, end="")
        return 0
    Path(words[0]).write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
