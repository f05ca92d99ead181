"""What the start screen says of runs, profiles and this machine. Pure: JSON of the commands in, lines out, no textual."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lamdatui.ui.view.format import Line, Mark, Span, fit, hang

Json = dict[str, Any]

STATES: dict[str, Mark] = {
    "running": Mark("▶", "going", "run"),
    "interrupted": Mark("!", "unfinished", "wait"),
    "stopped": Mark("■", "unfinished", "wait"),
    "done": Mark("✓", "done", "good"),
    "failed": Mark("✗", "failed", "bad"),
    "refused": Mark("✗", "refused", "bad"),
    "planner": Mark("✗", "no planner", "bad"),
    "unreadable": Mark("!", "unreadable", "bad"),
}
ORDER = ("going", "unfinished")
FINDINGS: dict[str, Mark] = {
    "ok": Mark("✓", "ok", "good"),
    "info": Mark("·", "optional", "dim"),
    "warn": Mark("!", "attention", "wait"),
    "bad": Mark("✗", "broken", "bad"),
}
NO_RUNS = "No run in this folder yet. Choose a profile below and press enter."
FETCH = "lamdatui models fetch "


@dataclass(frozen=True, slots=True)
class RunRow:
    """One run of the folder."""

    name: str
    path: str
    mark: Mark
    trials: str
    mode: str
    profile: str
    note: str

    @property
    def is_going(self) -> bool:
        """Whether an engine works on it."""
        return self.mark.word == "going"


@dataclass(frozen=True, slots=True)
class ProfileChoice:
    """One profile that can be run by its name."""

    name: str
    origin: str
    summary: str
    replaces: bool = False
    """Whether it is used in place of a builtin one of that name."""


def runs_of(found: Sequence[Json]) -> list[RunRow]:
    """The rows of `lamdatui runs --json`: going first, then unfinished, then the others, the newest first in each."""
    rows = [_run(row) for row in found]
    return sorted(rows, key=lambda run: ORDER.index(run.mark.word) if run.mark.word in ORDER else len(ORDER))


def _run(row: Json) -> RunRow:
    status = str(row.get("status", ""))
    known, limit = row.get("trials", 0), row.get("max_trials")
    note = str(row.get("problem") or "")
    if row.get("winner"):
        beats = row.get("beats_base")
        note = f"winner {row['winner']}"
        if beats is not None:
            note += ", beats the base (sealed)" if beats else ", not told from the base (sealed)"
    return RunRow(
        str(row["run"]),
        str(row["path"]),
        STATES.get(status, Mark("·", status, "plain")),
        f"{known}/{f'{limit:.0f}' if isinstance(limit, int | float) else '?'}",
        str(row.get("mode") or ""),
        str(row.get("profile") or ""),
        note,
    )


def run_line(run: RunRow, width: int) -> Line:
    """`▶ going       lab-2            3/12  ask        lab         winner m3`, cut to `width` cells."""
    name = max(12, min(24, width // 4))
    spans: list[Span] = [
        (f"{run.mark.glyph} {run.mark.word:<11} ", run.mark.tone),
        *fit([(run.name, "strong")], name),
        (f" {run.trials:>7}  ", "plain"),
        (f"{run.mode:<9} ", "dim"),
    ]
    if width >= 70:
        spans += [*fit([(run.profile, "dim")], 12), (" ", "plain")]
    return tuple(fit([*spans, (run.note, "dim")], width))


def profile_line(profile: ProfileChoice, width: int) -> Line:
    """`lab         builtin  the whole loop on one CPU core`, cut to `width` cells."""
    head = [*fit([(profile.name, "strong")], 12 if width < 100 else 20), (f" {profile.origin:<8} ", "dim")]
    if profile.replaces:
        head.append(("in place of lamdatui's own; ", "wait"))
    return tuple(fit([*head, (profile.summary, "plain")], width))


def shown_findings(found: Sequence[Json]) -> list[Json]:
    """What a start screen needs of `lamdatui doctor --json`: every problem, then hardware, planner and models."""
    quiet = {"SQLite", "terminal", "settings", "disk of the cache", "lamdatui"}
    problems = [item for item in found if item["status"] not in ("ok", "info")]
    optional = [item for item in found if item["status"] == "info"]
    # Installed packages are lines of version numbers; they are of interest only when they are missing.
    fine = [item for item in found if item["status"] == "ok" and item["subject"] not in quiet and not _is_version(item)]
    return [*problems, *fine, *optional]


def _is_version(item: Json) -> bool:
    return str(item["detail"])[:1].isdigit() and " " not in str(item["detail"])


def finding_lines(item: Json, width: int) -> list[Line]:
    """A finding with its fix, wrapped to `width` cells."""
    mark = FINDINGS.get(item["status"], FINDINGS["warn"])
    word = "" if item["status"] == "ok" else f" {mark.word}"
    lines: list[Line] = [
        ((f"{mark.glyph}{word} ", mark.tone), (f"{item['subject']}: ", "strong"), (str(item["detail"]), "plain"))
    ]
    if item.get("fix"):
        lines.append((("  fix: ", "wait"), (str(item["fix"]), "plain")))
    return [row for line in lines for row in hang(line, max(12, width), 4)]


def merged(found: Sequence[Json]) -> list[Json]:
    """Findings with one fix as one: the first, and how many more there are."""
    first: dict[tuple[str, str], Json] = {}
    count: dict[tuple[str, str], int] = {}
    for place, item in enumerate(found):
        key = (item["status"], str(item.get("fix") or place))
        first.setdefault(key, item)
        count[key] = count.get(key, 0) + 1
    return [
        item if count[key] == 1 else {**item, "detail": f"{item['detail']} (and {count[key] - 1} more with the same fix)"}
        for key, item in first.items()
    ]


def verdict(found: Sequence[Json]) -> str:
    """One line on the findings of `lamdatui check`."""
    bad = sum(item["status"] == "bad" for item in found)
    warned = sum(item["status"] == "warn" for item in found)
    if not bad and not warned and (made := [item for item in found if item["status"] == "info"]):
        return f"✓ nothing is broken; what is not here yet is {made[0]['detail']}"
    if not bad and not warned:
        return f"✓ {len(found)} checks, nothing is missing"
    parts = [f"{bad} broken"] if bad else []
    parts += [f"{warned} to know about"] if warned else []
    return f"{'✗' if bad else '!'} {len(found)} checks: {', '.join(parts)}"
