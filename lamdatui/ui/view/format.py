"""How values read on the screen: one place for glyphs, state words, durations, sizes and scores. No textual."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from rich.cells import cell_len, chop_cells, set_cell_size

from lamdatui.base.jsonio import finite
from lamdatui.domain.state import RunState
from lamdatui.domain.trials import Trial

if TYPE_CHECKING:
    pass

LABEL = 11

Tone = Literal["plain", "dim", "good", "bad", "wait", "run", "strong"]
Span = tuple[str, Tone]
Line = tuple[Span, ...]


class Mark(NamedTuple):
    """A state as glyph, word and tone: colour is never the only signal."""

    glyph: str
    word: str
    tone: Tone


MARKS: dict[str, Mark] = {
    "proposing": Mark("·", "proposing", "dim"),
    "awaiting": Mark("?", "awaiting you", "wait"),
    "approved": Mark("·", "approved", "run"),
    "running": Mark("▶", "running", "run"),
    "done": Mark("✓", "done", "good"),
    "failed": Mark("✗", "failed", "bad"),
    "vetoed": Mark("⊘", "vetoed", "dim"),
    "veto": Mark("⊘", "vetoed", "dim"),
    "rejected": Mark("⊘", "rejected", "dim"),
    "skipped": Mark("↷", "skipped", "dim"),
    "skip": Mark("↷", "skipped", "dim"),
    "stopped": Mark("■", "stopped", "dim"),
    "stop": Mark("■", "stopped", "dim"),
    "killed": Mark("■", "killed", "bad"),
    "cached": Mark("=", "cached", "good"),
    "paused": Mark("‖", "paused", "wait"),
    "interrupted": Mark("!", "interrupted", "bad"),
}

MODE_BADGES = {"read-only": "READ-ONLY", "ask": "ASK", "ask-risky": "ASK-RISKY", "auto": "AUTO"}


def mark(status: str) -> Mark:
    """The mark of a status; an unknown one is shown as its own word."""
    return MARKS.get(status, Mark("·", status, "plain"))


def duration(seconds: float | None) -> str:
    """`0.4 s`, `38 s`, `12 min`, `3 h 05 min`; unknown is said out loud."""
    if (seconds := finite(seconds)) is None:
        return "unknown time"
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 120:
        return f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def size(count: float | None, unknown: str = "unknown") -> str:
    """Bytes in the largest unit that keeps the number above one."""
    if (value := finite(count)) is None:
        return unknown
    for unit in ("B", "KB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if value >= 10 or unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"


def number(value: Any) -> str:
    """A hyperparameter as a person would type it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return f"{value:g}" if isinstance(value, float) else str(value)


def count(value: float | None) -> str:
    """`812`, `12.3k`, `1.2M`; a dash for what no float holds."""
    if (value := finite(value)) is None:
        return "–"
    for limit, unit in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if value >= limit:
            return f"{value / limit:.1f}{unit}"
    return f"{value:.0f}"


def score(value: Any) -> str:
    """A score in [0, 1] with two decimals; a dash where there is none."""
    return "–" if (value := finite(value)) is None else f"{value:.2f}"


def signed(value: Any) -> str:
    """A difference of scores, with its sign."""
    return "–" if (value := finite(value)) is None else f"{value:+.2f}"


def interval(value: Any, sign: bool = False) -> str:
    """`[0.31, 0.53]`, or nothing when there is none."""
    if not (isinstance(value, Sequence) and len(value) == 2 and all(finite(end) is not None for end in value)):
        return ""
    low, high = (f"{end:+.2f}" if sign else f"{end:.2f}" for end in value)
    return f"[{low}, {high}]"


def inputs_text(action: Mapping[str, Any]) -> str:
    """The objects of an action in slot order: `m1+m3, mix`."""
    return ", ".join("+".join(map(str, ids)) for ids in action.get("inputs", {}).values() if ids)


def call_text(action: Mapping[str, Any] | None) -> str:
    """`sft(base, mix)`."""
    return f"{action.get('type', '?')}({inputs_text(action)})" if action else "an action"


def hang(line: Line, width: int, indent: int) -> list[Line]:
    """A line wrapped at spaces to `width` cells; what goes on does so `indent` cells in.

    A word may run over several spans: only a space parts it, and a no-break space does not.
    """
    rows: list[list[Span]] = [[]]
    used = 0
    for word in _words(line):
        if used + sum(cell_len(text) for text, _ in word) > width and used > indent:
            rows.append([(" " * indent, "plain")])
            used = indent
            word[0] = (word[0][0].lstrip(" "), word[0][1])
        for text, tone in word:
            rest = text
            while cell_len(rest) > max(1, width - used):
                # A wide character goes on even where there is one cell.
                part = chop_cells(rest, max(1, width - used))[0] or rest[0]
                rows[-1].append((part, tone))
                rows.append([(" " * indent, "plain")])
                used, rest = indent, rest[len(part) :]
            rows[-1].append((rest, tone))
            used += cell_len(rest)
    return [tuple(row) for row in rows]


def _words(line: Line) -> list[list[Span]]:
    words: list[list[Span]] = []
    for text, tone in line:
        for piece in re.findall(r" *[^ ]+| +", text):
            if words and not piece.startswith(" ") and not words[-1][-1][0].endswith(" "):
                words[-1].append((piece, tone))
            else:
                words.append([(piece, tone)])
    return words


def sparkline(values: Sequence[float], width: int, height: int = 1) -> list[str]:
    """`values` as `height` rows of `width` block characters, resampled by mean, top row first."""
    if not values or width < 1:
        return []
    buckets = min(width, len(values))
    means = []
    for index in range(buckets):
        part = values[index * len(values) // buckets : (index + 1) * len(values) // buckets]
        means.append(sum(part) / len(part))
    low, high = min(means), max(means)
    levels = [1 + round((value - low) / (high - low) * (8 * height - 1)) if high > low else 4 for value in means]
    rows = []
    for row in reversed(range(height)):
        rows.append("".join(" ▁▂▃▄▅▆▇█"[max(0, min(8, level - 8 * row))] for level in levels))
    return rows


def bar(fraction: float, width: int) -> str:
    """A bar of `width` cells, filled from the left in eighths."""
    eighths = round(max(0.0, min(1.0, fraction)) * width * 8)
    full, rest = divmod(eighths, 8)
    text = "█" * full + (" ▏▎▍▌▋▊▉"[rest] if rest else "")
    return text + "░" * (width - len(text))


def labelled(label: str, *spans: Span) -> Line:
    """A line that starts with its name."""
    return ((f"{label[: LABEL - 1]:<{LABEL}}", "dim"), *spans)


def cost_of(trial: Trial) -> float | None:
    """Seconds of work: training and evaluation, without waiting for a person."""
    seconds = trial.seconds or {}
    parts = [value for name in ("execute", "evaluate") if (value := finite(seconds.get(name))) is not None]
    return sum(parts) if parts else finite(seconds.get("total"))


def fit(spans: list[Span], width: int) -> list[Span]:
    """`spans` cut with an ellipsis, or padded, to `width` cells."""
    kept: list[Span] = []
    room = max(0, width)
    for text, tone in spans:
        if cell_len(text) > room:
            kept.append((set_cell_size(text, room - 1) + "…" if room > 0 else "", tone))
            room = 0
            break
        kept.append((text, tone))
        room -= cell_len(text)
    return [*kept, (" " * room, "plain")] if room else kept


def clip_lines(lines: Iterable[Line], width: int) -> list[Line]:
    """Lines of at most `width` cells; what is cut ends in an ellipsis."""
    return [_clip(line, width) for line in lines]


def _clip(line: Line, width: int) -> Line:
    if sum(cell_len(text) for text, _ in line) <= width:
        return line
    kept: list[Span] = []
    room = max(0, width)
    for text, tone in line:
        if cell_len(text) > room:
            # A wide character that is cut in two becomes a space.
            kept.append((f"{set_cell_size(text, room - 1)}…" if room else "", tone))
            break
        kept.append((text, tone))
        room -= cell_len(text)
        if room == 0:
            # Something follows: the last cell says so.
            last, last_tone = kept[-1]
            kept[-1] = (f"{set_cell_size(last, cell_len(last) - 1)}…", last_tone)
            break
    return tuple(kept)


def budget_text(state: RunState) -> str:
    """What mode auto may use without asking."""
    left = max(0, state.max_trials - len([t for t in state.trials.values() if not t.is_open and t.status != "stopped"]))
    parts = [f"{left} more trial{'s' if left != 1 else ''}"]
    if state.wall_seconds:
        parts.append(f"{duration(max(0.0, state.wall_seconds - state.used_seconds))} of wall time")
    return " and ".join(parts)
