"""The reducer, without an event loop."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from lamdatui.ui.console.result import result_lines
from lamdatui.ui.view.format import bar, count, duration, hang, interval, score, signed, size, sparkline
from lamdatui.ui.view.reduce import reduce
from lamdatui.ui.view.state import ViewState
from lamdatui.ui.view.training import Progress
from tests.ui import script
from tests.ui.fake_engine import FakeEngine

Json = dict[str, Any]


def play(engine: FakeEngine, view: ViewState | None = None) -> ViewState:
    """Everything a console gets when it attaches."""
    view = view or ViewState()
    reduce(view, {"type": "hello", "protocol": 1, "run": "lab", "pid": 1, "seq": len(engine.events)})
    for event in engine.events:
        reduce(view, {"type": "event", "event": event.to_json()})
    reduce(view, {"type": "live"})
    for frame in engine.extra:
        reduce(view, frame)
    return view


@pytest.fixture
def history(engine: FakeEngine) -> FakeEngine:
    script.add_history(engine)
    return engine


def test_connection_goes_from_connecting_over_catching_up_to_live(history: FakeEngine) -> None:
    view = ViewState()
    assert view.connection == "connecting"
    reduce(view, {"type": "hello", "protocol": 1, "run": "lab", "pid": 1, "seq": 3})
    assert view.connection == "catching-up"
    reduce(view, {"type": "live"})
    assert view.connection == "live"
    reduce(view, {"type": "link", "status": "lost", "detail": "gone"})
    assert view.connection == "lost"


def test_a_replay_after_a_reconnect_changes_nothing(history: FakeEngine) -> None:
    view = play(history)
    rows, trials = list(view.activity), dict(view.run.trials)
    reduce(view, {"type": "link", "status": "lost", "detail": ""})
    play(history, view)
    assert list(view.activity) == rows
    assert view.run.trials == trials


def test_a_shorter_journal_starts_over(history: FakeEngine, tmp_path: Path) -> None:
    view = play(history)
    other = FakeEngine(tmp_path)
    script.add_base(other)
    play(other, view)
    assert not view.run.trials


def test_the_waiting_proposal_is_known_only_while_live(history: FakeEngine) -> None:
    script.add_waiting(history)
    view = play(history)
    assert view.waiting and view.waiting.number == 7
    reduce(view, {"type": "link", "status": "lost", "detail": "gone"})
    assert view.waiting is None


def test_a_decision_ends_the_waiting(history: FakeEngine) -> None:
    offered = script.add_waiting(history)
    history.add("trial.decided", number=7, verdict="veto", by="console", reason="no", action=offered["action"])
    assert play(history).waiting is None


def test_reasons_decisions_and_results_are_in_the_activity(history: FakeEngine) -> None:
    text = "\n".join(f"{row.glyph} {row.head} {row.text}" for row in play(history).activity)
    assert "Supervised tuning on tool calls should lift" in text
    assert "⊘ trial 4 vetoed by console: too slow for now" in text
    assert "✗ trial 3 failed: oom-train: out of memory" in text
    assert "✓ trial 2 done, gain +0.12 [+0.06, +0.18], objective 0.39" in text


def test_an_edit_names_what_was_changed(history: FakeEngine) -> None:
    script.add_waiting(history)
    history.add(
        "trial.decided", number=7, verdict="edit", by="console", reason="", action=script.sft("m6", learning_rate=0.01, rank=16)
    )
    assert "learning_rate 0.0003 → 0.01" in play(history).activity[-1].text


def test_an_edit_to_another_action_names_it(engine: FakeEngine) -> None:
    script.add_waiting(engine)
    view = play(engine)
    other = script.action("dpo", {"model": ["m1"], "dataset": ["preferences"]}, {"beta": 0.1})
    engine.add("trial.decided", number=7, verdict="edit", by="person", reason="", action=other)
    view = play(engine, view)
    assert "edited and approved by person: dpo(m1, preferences) instead" in [row.text for row in view.activity]


def test_orders_of_a_person_are_queued_withdrawn_and_taken(history: FakeEngine) -> None:
    script.answer_orders(history)
    order = {"type": "sft", "inputs": {"model": ["m1"], "dataset": ["tool-calls"]}, "params": {}, "note": "once more"}
    for number, command in enumerate(
        (("propose", order), ("propose", order), ("withdraw", {"id": "q1"}), ("more", {"trials": 3}))
    ):
        name, args = command
        history.commands.append((name, args))
        result = history.answers[name](args)
        assert name != "propose" or (result["id"], result["trials_left"]) == (f"q{number + 1}", 5)
    view = play(history)
    assert list(view.run.queue) == ["q2"]
    assert view.run.max_trials == 15
    texts = [f"{row.head} {row.text}" for row in view.activity]
    assert texts.count("queued sft(m1, tool-calls) (by person): once more") == 2
    assert "withdrawn sft(m1, tool-calls) (by person)" in texts
    assert "budget up to 15 trials, by person" in texts
    taken = script.proposal(7, script.sft("m1"), "once more", "person", queued="q2")
    history.add("trial.opened", number=7)
    history.add("trial.proposed", number=7, proposal=taken)
    assert play(history, view).run.queue == {}


def test_the_end_names_the_winner_and_both_gains(history: FakeEngine) -> None:
    gains = {split: {"objective": script.gain(mean), "tasks": {}} for split, mean in (("search", 0.135), ("sealed", 0.1))}
    history.add("run.ended", status="done", reason="6 trials", winner="m6", beats_base=True, gain=gains)
    view = play(history)
    text = "\n".join(f"{row.head} {row.text}" for row in view.activity)
    assert "winner m6: beats the base on the sealed split" in text
    assert "gain +0.14 [+0.07, +0.20] on search (the rows that picked it)" in text
    assert "gain +0.10 [+0.04, +0.16] on sealed" in text
    assert view.waiting is None


def test_the_result_names_winner_and_baselines_and_what_is_missing(history: FakeEngine) -> None:
    assert result_lines(play(history).run) == []
    script.add_end(history)
    view = play(history)
    text = script.text_of(result_lines(view.run))
    assert "★ m6 +0.10 [+0.04, +0.16] it beats the base on the sealed split" in text
    assert "sft_all          +0.25 [+0.19, +0.31]   winner -0.15 [-0.21, -0.09]" in text
    assert "1 of 4 settings tried; trained for 60% of the search's training time" in text
    assert "best_merge       – no trial merged models" in text
    assert "the winner is worse than sft_all; not told from best_single_step; better than few_shot" in text
    tones = {line[0][0].split()[0]: line[3][1] for line in result_lines(view.run)[1:-1] if len(line) > 2}
    assert tones == {"few_shot": "good", "sft_all": "bad", "best_single_step": "plain"}
    rows = [f"{row.head} {row.text}" for row in view.activity]
    assert sum(row.startswith("winner m6") for row in rows) == 1, "told once, when the search ends"
    assert any("baseline no best_merge: no trial merged models" in row for row in rows)


def test_the_result_tells_other_seeds_of_the_winner_and_what_it_lost(history: FakeEngine) -> None:
    report = {"objective": script.gain(0.08), "tasks": {}, "each": [0.1, 0.06]}
    seeds = {"made": [], "gain": {"search": report, "sealed": report}}
    history.add("replicates.recorded", model="m6", replicates=seeds)
    history.add("replicates.recorded", model="m4", replicates=seeds)
    history.add("replicates.missing", model="m4", reason="it takes about 60 s, and 5 s are left for it")
    worse = {"objective": script.gain(0.1), "tasks": {"copy": script.gain(-0.2)}}
    history.add("run.ended", status="done", reason="", winner="m6", beats_base=True, gain={"sealed": worse})
    view = play(history)
    text = script.text_of(result_lines(view.run))
    assert "over 2 seeds     +0.08" in text and "its seeds +0.10, +0.06" in text and text.count("seeds") == 2
    assert "worse than the base on copy: -0.200" in text
    rows = [f"{row.head} {row.text}" for row in view.activity]
    assert any(row.startswith("seeds over 2 seeds: +0.08") and "the pipeline of m6" in row for row in rows)
    assert any(row.startswith("seeds no more of m4: it takes about 60 s") for row in rows)


def test_a_second_winner_on_the_sealed_rows_is_a_second_look(history: FakeEngine) -> None:
    gains = {split: {"objective": script.gain(0.07), "tasks": {}} for split in ("search", "sealed")}
    for winner in ("m4", "m6"):
        history.add("run.ended", status="done", reason="", winner=winner, beats_base=True, gain=gains)
    assert "(look 2 at it)" in script.text_of(result_lines(play(history).run))


def test_every_row_is_one_line(history: FakeEngine) -> None:
    history.add("memory.updated", text="first\nsecond\x1b[2J", by="lamdagent")
    assert all("\n" not in row.text and "\x1b" not in row.text for row in play(history).activity)


def test_metrics_make_progress_and_an_eta() -> None:
    view = ViewState()
    for step in range(31):
        reduce(view, {"type": "metric", "step": "3/1", "metric": {"step": step, "max_steps": 60, "loss": 1.0, "seconds": step}})
    assert view.progress and (view.progress.done, view.progress.total, len(view.progress.losses)) == (30, 60, 31)
    assert view.progress.eta == pytest.approx(30.0)
    reduce(
        view, {"type": "metric", "step": "3/1", "metric": {"phase": "evaluate", "task": "tool_use", "done": 20, "total": 48}}
    )
    assert (view.progress.phase, view.progress.done, view.progress.eta) == ("evaluate", 20, None)


def test_metrics_that_come_twice_are_counted_once() -> None:
    progress = Progress("1/1")
    for step in (1, 2, 3, 2, 3, 4):
        progress.take({"step": step, "max_steps": 9, "loss": float(step)})
    assert progress.losses == [1.0, 2.0, 3.0, 4.0]


def test_the_first_metric_announces_the_steps() -> None:
    progress = Progress("1/1")
    progress.take({"phase": "train", "step": 0, "max_steps": 30})
    assert (progress.done, progress.total) == (0, 30)


def test_nan_losses_are_not_drawn() -> None:
    progress = Progress("1/1")
    progress.take({"step": 1, "loss": float("nan")})
    progress.take({"step": 2, "loss": float("inf")})
    assert progress.losses == []


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


# What takes long on a busy machine is making the data.
@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.sampled_from(["hello", "live", "event", "hardware", "metric", "link", "snapshot", "past", "reply", "?"]),
    st.dictionaries(
        st.sampled_from(["seq", "event", "step", "metric", "status", "gpus", "host", "part", "run", "fields", "trials"]), JSON
    ),
)
def test_no_frame_can_raise(kind: str, fields: Json) -> None:
    view = ViewState()
    reduce(view, {"type": kind, **fields})


def test_an_event_that_lacks_fields_becomes_a_visible_problem(history: FakeEngine) -> None:
    view = play(history)
    reduce(view, {"type": "event", "event": {"seq": 999, "kind": "trial.closed", "wall": 0.0, "mono": 0.0, "data": {}}})
    assert view.activity[-1].head == "problem"
    reduce(view, {"type": "event", "event": {"seq": 1000, "kind": "run.paused", "wall": 0.0, "mono": 0.0, "data": {"by": "x"}}})
    assert view.run.paused


@given(st.lists(st.floats(-1e6, 1e6), max_size=200), st.integers(1, 50), st.integers(1, 5))
def test_a_sparkline_fits_its_box(values: list[float], width: int, height: int) -> None:
    rows = sparkline(values, width, height)
    assert len(rows) in (0, height)
    assert all(len(text) <= width for text in rows)


@given(st.floats(-1, 2), st.integers(1, 60))
def test_a_bar_has_its_width(fraction: float, width: int) -> None:
    assert len(bar(fraction, width)) == width


@given(st.lists(st.text("ab 数", max_size=30), max_size=4), st.integers(8, 40), st.integers(0, 5))
def test_wrapping_loses_no_character(texts: list[str], width: int, indent: int) -> None:
    rows = hang(tuple((text, "plain") for text in texts), width, indent)
    joined = "".join(text for line in rows for text, _ in line)
    assert joined.replace(" ", "") == "".join(texts).replace(" ", "")


def test_a_name_is_not_parted_from_its_value() -> None:
    line = (
        ("params ", "dim"),
        ("warmup_ratio\xa0", "dim"),
        ("0.1", "plain"),
        ("  ", "plain"),
        ("rank\xa0", "dim"),
        ("8", "strong"),
    )
    assert ["".join(text for text, _ in row).strip() for row in hang(line, 20, 4)] == [
        "params",
        "warmup_ratio\xa00.1",
        "rank\xa08",
    ]


def test_unknown_costs_are_said_out_loud() -> None:
    assert (duration(None), size(None)) == ("unknown time", "unknown")
    assert (duration(38), duration(3900), size(2_100_000_000)) == ("38 s", "65 min", "2.1 GB")


@pytest.mark.parametrize("width", [-1, 0, 1, 2, 3, 5])
def test_wide_characters_in_a_narrow_place_are_wrapped_and_not_lost(width: int) -> None:
    text = "no GPU: \uff21\u4e2d[on \u6587e"
    rows = hang(((text, "plain"),), width, 2)
    assert "".join(part for row in rows for part, _ in row).replace(" ", "") == text.replace(" ", "")


@given(st.floats() | st.integers(-(10**400), 10**400) | st.none())
@example(float("inf"))
@example(10**400)
def test_every_number_has_a_form(value: float | None) -> None:
    """Sums of times that no clock has, and counts that no float holds, ended the console."""
    for form in (duration, size, count, score, signed):
        assert "inf" not in form(value) and "nan" not in form(value)
    assert "inf" not in interval([value, value])
