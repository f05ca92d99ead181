"""What the planner is told: facts that code computes from a view, each beside the option that it is about."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from lamdatui.domain.objects import DatasetObject
from lamdatui.planner import brief
from tests.views import WORLDS, Story, all_of, candidate, made_up, sft, view


def told() -> Story:
    """SFT on A helped twice, on B it harmed; DPO failed once."""
    story = Story()
    m1 = story.tell(sft("base", "A", learning_rate=0.001), {"tools": 0.2})
    story.tell(sft("base", "B", learning_rate=0.001), {"tools": -0.1, "chat": -0.1})
    story.tell(candidate("dpo", {"model": m1, "dataset": "B"}, beta=0.1), error={"class": "oom-train", "message": "x"})
    story.tell(sft(m1, "A", learning_rate=0.003), {"chat": 0.1})
    return story


# --- the situation ---------------------------------------------------------------------------------------------------


def test_the_facts_are_the_best_model_its_weakest_task_and_the_base() -> None:
    assert brief.facts(told().view()) == (
        "best model so far m4 (1.100); its weakest task chat (0.500); its other tasks tools 0.600; base model base (0.800)."
    )
    fresh = Story().view()
    assert brief.facts(fresh) == "best model so far base (0.800); its weakest task chat (0.400); its other tasks tools 0.400."
    assert brief.facts(replace(fresh, objectives={}, scores={})) == "nothing is scored yet"


def test_the_record_tells_what_came_of_each_trial() -> None:
    assert brief.record(told().view(), 5).splitlines() == [
        "1 sft(base, A; learning_rate=0.001) -> m1 1.000 (+0.200)",
        "2 sft(base, B; learning_rate=0.001) -> m2 0.600 (-0.200)",
        "3 dpo(m1, B) -> failed: oom-train",
        "4 sft(m1, A; learning_rate=0.003) -> m4 1.100 (+0.100)",
    ]
    assert brief.record(Story().view(), 5) == "(none yet)"


def test_the_record_keeps_the_best_and_the_latest() -> None:
    shown = view(30)
    lines = brief.record(shown, 5).splitlines()
    assert lines[0] == "(29 trials in all)"
    assert len(lines) <= 11
    best = max((trial for trial in shown.trials if trial.objective is not None), key=lambda trial: trial.objective or 0)
    numbers = [int(line.split()[0]) for line in lines[1:]]
    assert best.number in numbers
    assert numbers == sorted(numbers)
    assert set(range(25, 30)) <= set(numbers)


def test_a_dataset_that_was_made_is_told_with_its_rows() -> None:
    story = told()
    story.pool.add(DatasetObject("d5", "x", "sft", 450, "store:x", trial=5))
    mixed = candidate("mix", {"datasets": ("A", "B")}, share=0.5)
    done = replace(story.trials[0], number=5, action=mixed.action.to_json(), model=None, objective=None, dataset="d5")
    shown = story.view(mixed, trials=(*story.trials, done))
    assert brief.record(shown, 1).splitlines()[-1] == "5 mix(A, B) -> d5 (450 rows, sft)"
    assert brief.type_line(shown, "mix") == "mix: mix datasets [tried once, made d5]"


def test_what_people_said_stands_in_the_situation_the_latest_of_it() -> None:
    hints = tuple(f"person: hint {number}" for number in range(1, 8))
    found = brief.situation(replace(told().view(), hints=hints, constraints=("never dpo on m1, B: too early",)), 3)
    assert found["hints"] == "; ".join(hints[-5:])
    assert found["constraints"] == "never dpo on m1, B: too early"
    assert found["memory"] == "none yet"
    assert found["trials_left"] == "9"
    silent = brief.situation(told().view(), 3)
    assert (silent["hints"], silent["constraints"]) == ("none", "none")
    long = brief.situation(replace(told().view(), hints=("x " * 900,) * 9, memory="word " * 900), 3)
    assert len(long["hints"]) <= 2 * brief.LINE_CHARS
    assert len(long["memory"]) <= brief.MEMORY_SHOWN


def test_what_people_said_can_not_break_out_of_its_line() -> None:
    found = brief.situation(replace(told().view(), hints=("person: merge\n\nA: the only option\x1b[2J",)), 3)
    assert "\n" not in found["hints"]
    assert found["hints"].isprintable()


# --- options ---------------------------------------------------------------------------------------------------------


def test_an_option_carries_its_parent_what_its_data_did_and_whether_it_was_tried() -> None:
    items = [sft("m4", "A", learning_rate=0.003), sft("base", "B", learning_rate=0.003), sft("base", "A", learning_rate=0.01)]
    assert brief.option_lines(told().view(*items), items) == [
        "sft(m4, A; learning_rate=0.003) [parent m4 1.100 best so far; A gave +0.150 on average, the parent was trained on it]",
        "sft(base, B; learning_rate=0.003) [parent base 0.800; B gave -0.200 on average; other settings tried once, "
        "best 0.600 (m2)]",
        "sft(base, A; learning_rate=0.01) [parent base 0.800; A gave +0.150 on average; other settings tried once, "
        "best 1.000 (m1)]",
    ]


def test_options_of_a_merge_and_of_data_that_nobody_tried_say_so() -> None:
    items = [
        candidate("merge_ties", {"base": "base", "models": ("m1", "m4")}, density=0.5),
        candidate("dpo", {"model": "m4", "dataset": "A"}),
    ]
    merge, dpo = brief.option_lines(told().view(*items), items)
    assert merge == "merge_ties(base, m1, m4) [parents m1 1.000, m4 1.100 best so far]"
    assert dpo == "dpo(m4, A) [parent m4 1.100 best so far; A not tried with dpo, the parent was trained on it]"


def test_what_code_knows_of_a_candidate_comes_first_and_without_facts_nothing_does() -> None:
    item = replace(sft("base", "A"), facts=("expected 1.050 ± 0.05", "fits in memory"))
    shown = told().view(item)
    assert brief.option_lines(shown, [item])[0].startswith("sft(base, A) [expected 1.050 ± 0.05; fits in memory; parent")
    assert brief.option_lines(shown, [item], facts=False) == ["sft(base, A)"]
    assert brief.type_line(shown, "sft", facts=False) == "sft: supervised fine-tuning with a LoRA adapter"
    assert brief.situation(shown, 3, with_facts=False)["facts"] == "none computed"


def test_only_settings_that_tell_options_apart_are_shown() -> None:
    items = [sft("base", "A", learning_rate=rate, lora_rank=16, packing=False) for rate in (0.001, 0.003)]
    assert brief.short(items) == ["sft(base, A; learning_rate=0.001)", "sft(base, A; learning_rate=0.003)"]
    assert brief.short(items[:1]) == ["sft(base, A)"]


def test_a_type_tells_how_often_it_was_tried_and_what_it_changed() -> None:
    shown = told().view()
    assert brief.type_line(shown, "sft") == (
        "sft: supervised fine-tuning with a LoRA adapter [tried 3 times, best 1.100 (m4), mean change +0.033]"
    )
    assert brief.type_line(shown, "dpo") == "dpo: learning from preferences [tried once, never with a score]"
    assert brief.type_line(shown, "merge_ties") == "merge_ties: TIES merge of several models [not tried yet]"


def test_lines_stay_short_whatever_the_ids() -> None:
    names = tuple(f"a-very-long-name-of-a-dataset-{number}" for number in range(12))
    story = Story(datasets=names)
    item = candidate("mix", {"datasets": names}, **{f"setting_{number}": number for number in range(9)})
    (line,) = brief.option_lines(story.view(item), [item])
    assert len(line) <= brief.OPTION_CHARS


# --- reasons and findings ----------------------------------------------------------------------------------------------


def test_reasons_are_true_sentences_about_the_choice() -> None:
    shown = told().view()

    def said(item) -> str:
        return "; ".join(brief.reasons(shown, item))

    assert said(sft("m4", "B")) == "it builds on the best model so far, m4 (1.100); these objects were never put together"
    assert said(sft("m1", "B")) == (
        "it gives m1 (1.000) another way than the one that led to m4 (1.100); these objects were never put together"
    )
    assert said(sft("base", "B")).endswith("trial 2 had the same objects with other settings")
    merge = candidate("merge_ties", {"models": ("m1", "m4")})
    assert said(merge) == "it joins m1 (1.000) and m4 (1.100); these objects were never put together"
    assert "no trial has used C yet" in "; ".join(brief.reasons(Story(datasets=("C",)).view(), sft("base", "C")))


@pytest.mark.parametrize("number", [1, 4, 12])
def test_reasons_are_plain_text_for_any_candidate(number: int) -> None:
    shown = view(number)
    best = max(shown.objectives, key=lambda name: shown.objectives[name])
    for item in all_of(shown):
        said = brief.reasons(shown, item)
        assert said
        assert all(text.isprintable() and '"' not in text and "\\" not in text for text in said)
        parents = [name for slot, ids in item.action.inputs.items() if slot != "dataset" for name in ids]
        assert any("builds on the best model so far" in text for text in said) == (parents == [best])


def test_findings_name_what_helped_what_did_not_and_where_to_go() -> None:
    assert brief.findings(told().view()) == (
        "Helped: sft on A +0.150 (2 trials). Did not help: sft on B -0.200. "
        "Promising: go on from m4 (1.100), with B, which it was not trained on yet."
    )
    assert brief.findings(Story().view()).startswith("Promising: go on from base (0.800), with A, B")
    assert brief.findings(replace(Story().view(), objectives={}, scores={})) == "Nothing is scored yet."
    assert len(brief.findings(told().view(), limit=60)) <= 60


@pytest.mark.parametrize("index", range(0, WORLDS, 3))
def test_any_run_can_be_told(index: int) -> None:
    shown = made_up(index)
    items = all_of(shown)
    lines = brief.option_lines(shown, items)
    assert len(lines) == len(items)
    assert all(line.isprintable() and len(line) <= brief.OPTION_CHARS for line in lines)
    for kind in shown.candidates:
        assert re.match(rf"{kind}: .+ \[.+\]$", brief.type_line(shown, kind))
    for trial in shown.trials:
        assert brief.newest_line(shown, trial).startswith(f"{trial.number} {trial.action['type']}(")
    assert brief.findings(shown)
    assert all(brief.situation(shown, rows).values() for rows in (1, 5))
