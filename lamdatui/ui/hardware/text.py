"""The hardware pane as lines for a width and a height: GPUs, this run's processes and strangers', the host. Pure, no textual.

Three levels of detail: compact (a line a GPU), normal (meters and their history), full (every value and every process).
Chosen by the height it is as much as fits, with meters alone between compact and normal. No line is ever wider than the pane.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal

from rich.cells import cell_len, set_cell_size

from lamdatui.base.jsonio import finite
from lamdatui.ui.view.format import Line, Span, _clip, bar, clip_lines, hang, size, sparkline
from lamdatui.ui.view.history import READINGS, share
from lamdatui.ui.view.state import ViewState
from lamdatui.ui.view.training import pace_text

Json = dict[str, Any]
Detail = Literal["auto", "compact", "normal", "full"]
DETAILS: tuple[Detail, ...] = ("auto", "compact", "normal", "full")

PAIR_WIDTH = 56
"""Two meters stand side by side from this width on."""
HOT = 95.0
CORE_CELLS = 11
CHART_ROWS = 8
LEAST_CELLS = 6
"""A column of text is still shown in this many cells; a number in all of its own or not at all."""
STRANGER = "other"
"""The word for a process that is not this run's."""


def hardware_lines(view: ViewState, width: int, height: int, detail: Detail = "auto") -> list[Line]:
    """The pane's lines for a size: the step first, because it is what one waits for."""
    if detail != "auto":
        rest = _readings(view, width, detail)
    else:
        step = len(_step(view, width, 1))
        for level in ("full", "normal", "brief", "compact"):
            rest = _readings(view, width, level)
            if step + len(rest) <= height:
                break
    chart = max(1, min(CHART_ROWS, height - len(rest) - 3))
    return clip_lines([*_step(view, width, chart), *rest], width)


# --- the step ----------------------------------------------------------------------------------------------------


def _step(view: ViewState, width: int, chart: int) -> list[Line]:
    step, progress = view.running_step, view.progress
    if step is None:
        return [(("no step is running", "dim"),)]
    title: Line = (("▶ ", "run"), (f"step {step.key} ", "strong"), (step.purpose, "dim"))
    if progress is None or progress.step != step.key:
        return [title, (("  starting", "dim"),)]
    lines: list[Line] = [title]
    if progress.total:
        tail = f" {progress.done}/{progress.total}"
        lines.append(((bar(progress.done / progress.total, max(4, width - len(tail))), "run"), (tail, "plain")))
    lines.append(((pace_text(progress), "dim"),))
    if progress.losses:
        lines.extend(((text, "run"),) for text in sparkline(progress.losses, width, chart))
    return lines


# --- readings ----------------------------------------------------------------------------------------------------


def _readings(view: ViewState, width: int, level: str) -> list[Line]:
    frame = view.hardware
    if frame is None:
        return [(("no hardware reading yet", "dim"),)]
    lines: list[Line] = []
    if recorded := frame.get("recorded"):
        said: Line = (("recorded: ", "wait"), (f"{recorded}, not this machine", "plain"))
        lines += hang(said, width, 2)
    gpus = [gpu for gpu in frame.get("gpus") or [] if isinstance(gpu, dict)]
    for gpu in gpus:
        lines += _gpu(view, gpu, width, level)
    if not gpus:
        reason = str(frame.get("reason") or "the probe gave no reason")
        lines += hang((("no GPU: ", "strong"), (reason, "dim")), width, 2)
    host: Json = frame.get("host") or {}
    lines += _host(view, host, width, level)
    if level == "full":
        lines += _own_table(host, width)
    elif level == "normal" and not gpus:
        lines += _own_line(host)
    return lines


def _gpu(view: ViewState, gpu: Json, width: int, level: str) -> list[Line]:
    index, util = gpu.get("index", "?"), finite(gpu.get("util"))
    used, total = finite(gpu.get("memory_used")), finite(gpu.get("memory_total"))
    memory = f"{size(used, '?').removesuffix(' GB')}/{size(total, '?')}"
    name: list[Span] = [(f"GPU {index} ", "strong"), (str(gpu.get("name") or "unnamed"), "plain")]
    values = _values(gpu, level)
    if level == "compact":
        told = [_percent(util), memory, *values[:2]]
        return [_ends([(f"GPU {index} ", "strong")], " · ".join(told), width)]
    percent = share(used, total)
    lines: list[Line] = []
    if level == "full":
        lines.append(tuple(name))
        lines += hang(((" · ".join(values) or "the driver gives no more values", "dim"),), width, 0)
    else:
        lines.append(_ends(name, " · ".join(values[:2]), width))
    meters = [("util", util, _percent(util)), ("mem", percent, memory)]
    pasts = [view.history.util.get(index, ()), view.history.memory.get(index, ())] if isinstance(index, int) else [(), ()]
    lines += _meters(meters, pasts, width, {"full": 2, "normal": 1}.get(level, 0))
    if isinstance(gpu.get("mig"), int):
        lines += hang(
            ((f"MIG: cut into {gpu['mig']} instances; the driver gives no utilisation of the whole", "wait"),), width, 2
        )
    processes = [item for item in gpu.get("processes") or [] if isinstance(item, dict)]
    if level == "brief":
        return lines
    return [*lines, *(_process_table(processes, width) if level == "full" else _process_line(processes))]


def _values(gpu: Json, level: str) -> list[str]:
    """What the driver gives beside utilisation and memory, the most telling first."""
    found: list[str] = []
    power, limit = finite(gpu.get("power_w")), finite(gpu.get("power_limit_w"))
    if power is not None:
        found.append(f"{power:.0f}/{limit:.0f} W" if limit else f"{power:.0f} W")
    if (heat := finite(gpu.get("temperature_c"))) is not None:
        found.append(f"{heat:.0f} °C")
    if level != "full":
        return found
    for label, field in (("SM", "sm_clock_mhz"), ("memory", "memory_clock_mhz")):
        if (clock := finite(gpu.get(field))) is not None:
            found.append(f"{label} {clock:.0f} MHz")
    if (fan := finite(gpu.get("fan_percent"))) is not None:
        found.append(f"fan {fan:.0f}%")
    return found


def _line(*spans: Span) -> list[Span]:
    return list(spans)


def _percent(value: float | None) -> str:
    return "?" if value is None else f"{value:.0f}%"


def _ends(left: Sequence[Span], right: str, width: int) -> Line:
    """`left`, cut where it has to be, and `right` at the right edge."""
    room = width - cell_len(right) - 1
    shown = _clip(tuple(left), max(0, room))
    gap = room - sum(cell_len(text) for text, _ in shown)
    return (*shown, (" " * (gap + 1), "plain"), (right, "dim"))


def _meter(label: str, percent: float | None, text: str, width: int) -> list[Span]:
    """`util ████░░ 97%` in exactly `width` cells, where they are enough."""
    room = max(2, width - len(label) - cell_len(text) - 2)
    cells = bar(percent / 100, room) if percent is not None else f"{'?':<{room}}"
    hot = percent is not None and percent > HOT
    return [(f"{label} ", "dim"), (cells, "wait" if hot else "run"), (f" {text}", "plain")]


def _meters(
    meters: Sequence[tuple[str, float | None, str]], pasts: Sequence[Iterable[float | None]], width: int, rows: int
) -> list[Line]:
    """Meters with `rows` rows of history below each, side by side where there is room."""
    blocks: list[list[list[Span]]] = []
    beside = width >= PAIR_WIDTH and len(meters) > 1
    widths = [(width - 2) // 2, width - 2 - (width - 2) // 2] if beside else [width] * len(meters)
    for (label, percent, text), past, wide in zip(meters, pasts, widths, strict=False):
        block = [_meter(label, percent, text, wide)]
        known = list(past)
        if rows and any(value is not None for value in known):
            indent = len(label) + 1
            for row in past_rows(known, wide - indent, rows):
                block.append([(" " * indent, "plain"), (row, "run")])
        blocks.append(block)
    if not beside:
        return [tuple(line) for block in blocks for line in block]
    height = max(len(block) for block in blocks)
    for block, wide in zip(blocks, widths, strict=True):
        block.extend([(" " * wide, "plain")] for _ in range(height - len(block)))
    return [(*left, ("  ", "plain"), *right) for left, right in zip(*blocks, strict=True)]


def past_rows(percents: Sequence[float | None], width: int, height: int) -> list[str]:
    """The newest `width` percentages as `height` rows of blocks from 0 to 100, the newest at the right; a gap is `·`."""
    if width < 1:
        return []
    shown = list(percents)[-width:]
    rows = []
    for row in reversed(range(height)):
        cells = [_block(value, row, height) for value in shown]
        rows.append(" " * (width - len(shown)) + "".join(cells))
    return rows


def _block(value: float | None, row: int, height: int) -> str:
    if value is None:
        return "·" if row == 0 else " "
    eighths = max(1, round(min(100.0, max(0.0, value)) / 100 * 8 * height))
    return " ▁▂▃▄▅▆▇█"[max(0, min(8, eighths - 8 * row))]


# --- processes ---------------------------------------------------------------------------------------------------


def _who(item: Json) -> str:
    return str(item.get("owner") or STRANGER)


def _by_memory(processes: Iterable[Json]) -> list[Json]:
    return sorted(processes, key=lambda item: -(finite(item.get("memory")) or 0.0))


def _process_line(processes: list[Json]) -> list[Line]:
    """`step 3/1 66 GB · other vllm 68 GB`: ours by their part in the run, strangers' by name."""
    if not processes:
        return []
    spans: list[Span] = []
    for place, item in enumerate(_by_memory(processes)):
        if place:
            spans.append((" · ", "dim"))
        ours = bool(item.get("owner"))
        text = _who(item) if ours else f"{STRANGER} {item.get('name') or item.get('pid', '?')}"
        spans += _line((text, "run" if ours else "plain"), (f" {size(finite(item.get('memory')), '?')}", "dim"))
    return [tuple(spans)]


Column = tuple[str, int, Callable[[Json], str], bool]
"""Title, cells, text of an item, whether it is a number (to the right)."""

GPU_COLUMNS: tuple[Column, ...] = (
    ("who", 12, _who, False),
    ("memory", 8, lambda item: size(finite(item.get("memory")), "?"), True),
    ("name", 16, lambda item: str(item.get("name") or "?"), False),
    ("pid", 8, lambda item: str(item.get("pid", "?")), True),
    ("user", 10, lambda item: str(item.get("user") or "?"), False),
    ("kind", 8, lambda item: str(item.get("kind") or "?"), False),
)
OWN_COLUMNS: tuple[Column, ...] = (
    ("this run", 12, _who, False),
    ("memory", 8, lambda item: size(finite(item.get("memory")), "?"), True),
    ("CPU", 6, lambda item: _percent(finite(item.get("cpu_percent"))), True),
    ("pid", 8, lambda item: str(item.get("pid", "?")), True),
    ("name", 16, lambda item: str(item.get("name") or "?"), False),
)
"""The most telling first: columns that do not fit are left out from the right."""


def _table(columns: Sequence[Column], rows: Sequence[Json], width: int) -> list[Line]:
    fitting: list[Column] = []
    used = 0
    for column in columns:
        if fitting and used + column[1] + 1 > width:
            if (rest := width - used - 1) >= LEAST_CELLS and not column[3]:
                fitting.append((column[0], rest, column[2], False))
            break
        fitting.append(column)
        used += column[1] + 1
    lines: list[Line] = [tuple((_cell(title, cells, right), "dim") for title, cells, _, right in fitting)]
    for item in rows:
        tone = "run" if item.get("owner") else "plain"
        texts = [_cell(read(item), cells, right) for _, cells, read, right in fitting]
        lines.append(((texts[0], tone), *((text, "plain") for text in texts[1:])))
    return lines


def _cell(text: str, cells: int, right: bool) -> str:
    if cell_len(text) > cells:
        text = f"{set_cell_size(text, cells - 1)}…"
    space = " " * (cells - cell_len(text))
    return f"{space}{text} " if right else f"{text}{space} "


def _process_table(processes: list[Json], width: int) -> list[Line]:
    if not processes:
        return [(("no process is listed", "dim"),)]
    return _table(GPU_COLUMNS, _by_memory(processes), width)


def _own(host: Json) -> list[Json]:
    return _by_memory(item for item in host.get("processes") or [] if isinstance(item, dict))


def _own_table(host: Json, width: int) -> list[Line]:
    return _table(OWN_COLUMNS, own, width) if (own := _own(host)) else []


def _own_line(host: Json) -> list[Line]:
    """`step 3/1 2.3 GB 197% · engine 90 MB 2%`: what this run takes of the host."""
    spans: list[Span] = []
    for item in _own(host):
        if spans:
            spans.append((" · ", "dim"))
        taken = f" {size(finite(item.get('memory')), '?')} {_percent(finite(item.get('cpu_percent')))}"
        spans += _line((_who(item), "run"), (taken, "dim"))
    return [tuple(spans)] if spans else []


# --- the host ----------------------------------------------------------------------------------------------------


def _host(view: ViewState, host: Json, width: int, level: str) -> list[Line]:
    cores = [value for core in host.get("cpu_percent") or [] if (value := finite(core)) is not None]
    cpu = sum(cores) / len(cores) if cores else None
    used, total = finite(host.get("memory_used")), finite(host.get("memory_total"))
    meters: list[tuple[str, float | None, str]] = []
    pasts: list[Iterable[float | None]] = []
    if cores:
        meters.append(("CPU", cpu, f"{_percent(cpu)} of {len(cores)}"))
        pasts.append(view.history.cpu)
    if total:
        meters.append(("RAM", share(used, total), f"{size(used, '?').removesuffix(' GB')}/{size(total)}"))
        pasts.append(view.history.ram)
    lines = _meters(meters, pasts, width, 2 if level == "full" else 0)
    if level == "compact" and meters:
        told: Line = ((" · ".join(f"{label} {text}" for label, _, text in meters), "plain"),)
        lines = [told]
    if level == "full" and cores:
        lines += _cores(cores, width)
    lines += _storage(host, width, level)
    if level == "full":
        seconds = sum(value is not None for value in view.history.cpu)
        lines.append(((f"history: the newest at the right, one a second, at most {READINGS}; {seconds} so far", "dim"),))
    return lines


def _cores(cores: Sequence[float], width: int) -> list[Line]:
    """A small meter a core in columns; one character a core where there are very many."""
    across = max(1, (width + 1) // (CORE_CELLS + 1))
    if len(cores) > 8 * across:
        room = max(1, width - 6)
        text = "".join(_block(value, 0, 1) for value in cores)
        lines: list[Line] = []
        for start in range(0, len(text), room):
            lines.append((("cores " if not start else "      ", "dim"), (text[start : start + room], "run")))
        return lines
    lines = []
    for start in range(0, len(cores), across):
        spans: list[Span] = []
        for place, value in enumerate(cores[start : start + across], start):
            spans += _line((f"{place:>3} ", "dim"), (bar(value / 100, 3), "run"), (f"{value:3.0f}% ", "plain"))
        lines.append(tuple(spans))
    return lines


def _storage(host: Json, width: int, level: str) -> list[Line]:
    lines: list[Line] = []
    swap, swap_total = finite(host.get("swap_used")), finite(host.get("swap_total"))
    if swap and swap_total:
        text = f"{size(swap).removesuffix(' GB')}/{size(swap_total)}"
        lines.append(tuple(_meter("swap", 100 * swap / swap_total, text, width)))
    free, total = finite(host.get("disk_free")), finite(host.get("disk_total"))
    load = " ".join(f"{value:.2f}" for one in host.get("load") or [] if (value := finite(one)) is not None)
    second: list[Span] = [("load ", "dim"), (load, "plain")]
    if free is not None and total:
        beside = level != "compact" and width >= PAIR_WIDTH and bool(load)
        wide = (width - 2) // 2 if beside else width
        disk = _line(("disk ", "dim"), (f"{size(free)} free of {size(total)}", "plain"))
        if level != "compact":
            disk = _meter("disk", 100 * (1 - free / total), f"{size(free)} free", wide)
        lines.append((*disk, ("  ", "plain"), *second) if beside else tuple(disk))
        if load and not beside and level != "compact":
            lines.append(tuple(second))
    elif load:
        lines.append(tuple(second))
    if error := host.get("error"):
        lines += hang((("host: ", "strong"), (str(error), "bad")), width, 2)
    if (late := finite(host.get("late_seconds"))) is not None:
        lines += hang(((f"the host's readings are {late:.0f} s late: a file system may hang", "wait"),), width, 2)
    return lines
