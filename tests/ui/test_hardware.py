"""The hardware pane: every size, eight GPUs, missing values, no GPU, a driver that hangs, recorded readings."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len

from lamdatui.config.resources import builtin
from lamdatui.ui.hardware.pane import HardwarePane
from lamdatui.ui.hardware.text import DETAILS, hardware_lines, past_rows
from lamdatui.ui.view.format import Line
from lamdatui.ui.view.history import READINGS
from lamdatui.ui.view.reduce import reduce
from lamdatui.ui.view.state import ViewState
from tests.ui import script
from tests.ui.conftest import opened
from tests.ui.fake_engine import FakeEngine

Json = dict[str, Any]
GB = script.GB
OWN = [
    {"pid": 900, "owner": "step 7/1", "name": "python3.11", "cpu_percent": 183.0, "memory": 2.3 * GB},
    {"pid": 880, "owner": "engine", "name": "python3.11", "cpu_percent": 1.0, "memory": 90e6},
]
HOST = {**script.HOST, "swap_used": GB, "swap_total": 8 * GB, "processes": OWN}


def gpu(index: int, **values: Any) -> Json:
    return {
        "index": index, "name": "NVIDIA H100 80GB HBM3", "util": 97, "memory_used": 71 * GB, "memory_total": 86 * GB,
        "power_w": 612.4, "power_limit_w": 700.0, "temperature_c": 71, "sm_clock_mhz": 1980, "memory_clock_mhz": 2619,
        "fan_percent": 40, "mig": None,
        "processes": [
            {"pid": 41210, "memory": 66 * GB, "kind": "compute", "name": "python3", "user": "ada", "owner": "step 7/1"},
            {"pid": 2977, "memory": 4 * GB, "kind": "compute", "name": "vllm", "user": "grace", "owner": ""},
        ],
        **values,
    }  # fmt: skip


def seen(*frames: Json) -> ViewState:
    view = ViewState()
    for frame in frames:
        reduce(view, {"type": "hardware", "reason": "", "host": HOST, **frame})
    return view


def text(lines: list[Line]) -> list[str]:
    return ["".join(part for part, _ in line) for line in lines]


def shown(view: ViewState, width: int = 80, height: int = 60, detail: Any = "auto") -> str:
    return "\n".join(text(hardware_lines(view, width, height, detail)))


@pytest.mark.parametrize("width", range(1, 201))
def test_no_line_is_wider_than_the_pane(width: int) -> None:
    view = seen({"gpus": [gpu(0), gpu(1, name="日本語のGPU" * 9)]}, {"gpus": [], "reason": "a reason " * 30})
    filled = seen({"gpus": [gpu(index) for index in range(8)], "recorded": "a-long-name" * 4})
    for one in (view, filled, seen({"gpus": [gpu(0, mig=7)]})):
        for detail in DETAILS:
            for line in text(hardware_lines(one, width, 24, detail)):
                assert cell_len(line) <= width, (detail, line)


VALUES = st.none() | st.integers(-5, 10**15) | st.floats() | st.booleans() | st.text(max_size=12) | st.just([])
FIELDS = st.fixed_dictionaries(
    {},
    optional={
        name: VALUES
        for name in ("index", "name", "util", "memory_used", "memory_total", "power_w", "power_limit_w", "temperature_c",
                     "sm_clock_mhz", "fan_percent", "mig")
    },
)  # fmt: skip
PROCESSES = st.lists(
    st.fixed_dictionaries({}, optional={name: VALUES for name in ("pid", "name", "user", "memory", "owner", "kind")}),
    max_size=3,
)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(FIELDS, PROCESSES), max_size=8), st.integers(30, 200), st.integers(1, 60), st.sampled_from(DETAILS))
def test_readings_of_any_kind_fit_and_raise_nothing(gpus: list[Any], width: int, height: int, detail: Any) -> None:
    frame = {"gpus": [{**fields, "processes": processes} for fields, processes in gpus]}
    view = seen(frame, frame)
    for line in text(hardware_lines(view, width, height, detail)):
        assert cell_len(line) <= width


def test_full_detail_has_every_value_and_tells_ours_from_strangers() -> None:
    told = shown(seen({"gpus": [gpu(0)]}), detail="full")
    for part in ("612/700 W", "71 °C", "SM 1980 MHz", "memory 2619 MHz", "fan 40%", "97%", "71/86 GB"):
        assert part in told
    ours, stranger = (next(line for line in told.splitlines() if word in line) for word in ("41210", "2977"))
    assert ours.startswith("step 7/1") and "ada" in ours and "66 GB" in ours
    assert stranger.startswith("other") and "grace" in stranger and "vllm" in stranger


def test_as_much_detail_as_fits_is_shown() -> None:
    view = seen({"gpus": [gpu(index) for index in range(8)]})
    heights = {"full": 200, "normal": 45, "compact": 12}
    found = {name: shown(view, 80, height) for name, height in heights.items()}
    assert "SM 1980 MHz" in found["full"] and "SM" not in found["normal"]
    assert "util █" in found["normal"] and "util" not in found["compact"]
    assert len(found["compact"].splitlines()) <= 12
    assert all(f"GPU {index} " in found["compact"] for index in range(8))


def test_missing_values_are_question_marks_not_zeros() -> None:
    empty = {name: None for name in gpu(0) if name not in ("index", "processes")}
    told = shown(seen({"gpus": [gpu(0, **empty)]}), detail="full")
    assert "unnamed" in told and "util ?" in told and "?/?" in told
    assert "0%" not in told.splitlines()[3] and "the driver gives no more values" in told


def test_no_gpu_has_its_reason_and_the_host_all_the_same() -> None:
    told = shown(seen({"gpus": [], "reason": "the NVIDIA driver has not answered for 4 s"}), height=20)
    assert "no GPU: the NVIDIA driver has not answered for 4 s" in told
    assert "11/32 GB" in told and "210 GB free" in told
    assert "step 7/1 2.3 GB 183%" in told or "this run" in told


def test_swap_is_shown_where_it_is_used() -> None:
    assert "swap" in shown(seen({"gpus": []}))
    assert "swap" not in shown(seen({"gpus": [], "host": {**HOST, "swap_used": 0}}))


def test_a_host_that_is_late_or_broken_is_told() -> None:
    told = shown(seen({"gpus": [], "host": {**HOST, "late_seconds": 9, "error": "No such file or directory"}}))
    assert "9 s late" in told and "No such file or directory" in told


def test_mig_is_explained() -> None:
    assert "MIG: cut into 3 instances" in shown(seen({"gpus": [gpu(0, util=None, mig=3)]}))


def test_recorded_readings_say_so() -> None:
    assert "recorded: two-gpus.jsonl, not this machine" in shown(seen({"gpus": [gpu(0)], "recorded": "two-gpus.jsonl"}))
    assert "recorded" not in shown(seen({"gpus": [gpu(0)]}))


def test_history_is_bounded_keeps_gaps_and_starts_at_the_right() -> None:
    view = seen(*({"gpus": [gpu(0, util=value % 101)]} for value in range(READINGS + 40)), {"gpus": []})
    assert len(view.history.util[0]) == READINGS and view.history.util[0][-1] is None
    [row] = past_rows([None, 0.0, 50.0, 100.0], 6, 1)
    assert row == "  ·▁▄█"
    assert past_rows([100.0], 3, 2) == ["  █", "  █"]
    assert past_rows([30.0, 40.0, 100.0], 1, 1) == ["█"]


def test_many_cores_become_one_character_each() -> None:
    view = seen({"gpus": [], "host": {**HOST, "cpu_percent": [50.0] * 192}})
    lines = [line for line in shown(view, 80, 200, "full").splitlines() if line.startswith("cores")]
    assert len(lines) == 1


# --- on the screen -----------------------------------------------------------------------------------------------


def recording() -> list[Json]:
    path = builtin("profiles") / "recordings" / "two-gpus.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()]


async def test_the_pane_has_its_levels_of_detail_on_a_key(engine: FakeEngine) -> None:
    script.add_history(engine)
    engine.extra.append({"type": "hardware", "gpus": [gpu(0), gpu(1)], "reason": "", "host": HOST})
    async with opened(engine, (80, 24)) as console:
        await console.pilot.press("4")
        await console.until(lambda: "NVIDIA H100" in console.text())
        pane = console.app.screen.query_one(HardwarePane)
        await console.until(lambda: pane.has_focus, "focus of the pane")
        assert "SM 1980 MHz" not in console.text()
        for word in ("compact", "normal", "full"):
            await console.pilot.press("v")
            assert word in str(pane.border_title)
        await console.until(lambda: "SM 1980 MHz" in console.text())
        assert pane.max_scroll_y > 0
        await console.pilot.press("j", "j", "j")
        await console.until(lambda: pane.scroll_y > 0, "the scroll")
        await console.pilot.press("v")
        await console.until(lambda: "SM 1980 MHz" not in console.text())


async def test_zoom_gives_the_pane_room_for_everything(engine: FakeEngine) -> None:
    script.add_history(engine)
    engine.extra.append({"type": "hardware", "gpus": [gpu(0)], "reason": "", "host": HOST})
    async with opened(engine, (120, 40)) as console:
        await console.pilot.press("4")
        await console.until(lambda: "NVIDIA H100" in console.text())
        assert "grace" not in console.text()
        await console.pilot.press("z")
        await console.until(lambda: "grace" in console.text(), "the stranger's user")


async def test_resizing_lays_the_pane_out_again(engine: FakeEngine) -> None:
    script.add_history(engine)
    engine.extra += [{"type": "hardware", **frame, "host": HOST, "recorded": "two-gpus.jsonl"} for frame in recording()[:20]]
    async with opened(engine, (200, 60)) as console:
        await console.pilot.press("4")
        for width, height in ((120, 40), (80, 24), (40, 10), (200, 60)):
            await console.pilot.resize_terminal(width, height)
            await console.settle()
            pane = console.app.screen.query_one(HardwarePane)
            assert pane.virtual_size.width <= pane.size.width
        assert "recorded: two-gpus.jsonl" in console.text()
