"""Actions that make datasets, in real steps on the lab, and the generation and text comparison below them."""

from __future__ import annotations

import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from lamdatui.config.resources import load_registry
from lamdatui.step import textmatch
from lamdatui.tasks import strings
from tests.steps import Lab

DRAWN = {"samples": 6, "temperature": 1.8, "max_new_tokens": 16, "prompts": 60}


@pytest.fixture
def steps(lab: Path, tmp_path: Path) -> Lab:
    return Lab(lab, tmp_path)


def counts(steps: Lab) -> dict[str, Any]:
    """The newest dataset's provenance."""
    path = steps.store.resolve(steps.pool.datasets[-1].path) / "provenance.json"
    return json.loads(path.read_text())


def text(messages: list[dict[str, str]]) -> str:
    return "".join(message["content"] for message in messages)


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


# --- mix -------------------------------------------------------------------------------------------------------------


def test_a_mix_has_the_shares_and_the_order_that_were_asked_for(steps: Lab) -> None:
    inputs = {"datasets": ["reverse", "copy", "double"]}
    prefixes = ("rev:", "cpy:", "dbl:")
    seen = {}
    for order in ("shuffled", "blocks", "alternate"):
        data = steps.dataset("mix", inputs, share=0.5, rows=101, order=order)
        names = [text(row["prompt"])[:4] for row in steps.rows(data)]
        found = Counter(names)
        assert sum(found.values()) == 101
        assert found["rev:"] in (50, 51)
        assert {found["cpy:"], found["dbl:"]} <= {25, 26}
        assert len({json.dumps(row) for row in steps.rows(data)}) == 101
        seen[order] = names
    assert seen["blocks"] == sorted(seen["blocks"], key=prefixes.index)
    halves = Counter(seen["alternate"][:50])
    assert abs(halves["rev:"] - 25) <= 1
    assert seen["shuffled"] != seen["blocks"]
    assert counts(steps)["rows_in"] == [1200, 1200, 1200]
    assert sum(counts(steps)["rows_taken"]) == 101


def test_a_mix_without_a_number_takes_all_that_the_shares_allow_and_a_seed_decides_which(steps: Lab) -> None:
    inputs = {"datasets": ["call_replay", "copy"]}
    assert steps.dataset("mix", inputs, share=0.75).rows == 2000
    one, other = (steps.dataset("mix", inputs, share=0.5, rows=60, seed=seed) for seed in (1, 2))
    assert steps.rows(one) != steps.rows(other)


def test_what_can_not_be_mixed_is_refused_before(steps: Lab) -> None:
    assert "format" in steps.problems("mix", {"datasets": ["copy", "prefer"]})[0]
    assert "at most 1600" in steps.problems("mix", {"datasets": ["copy", "reverse"]}, share=0.25, rows=1700)[0]
    assert steps.problems("mix", {"datasets": ["copy", "reverse"]}, share=0.25, rows=1600) == []
    assert "nothing is left" in steps.problems("mix", {"datasets": ["copy", "reverse"]}, share=0.01, rows=10)[0]


# --- filter ----------------------------------------------------------------------------------------------------------


def test_a_filter_drops_by_every_reason_and_counts_it(steps: Lab, tmp_path: Path) -> None:
    task = json.loads((steps.lab / "tasks" / "reverse.jsonl").read_text().splitlines()[0])
    long = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen"
    rows = [
        {"prompt": "cpy:abc=", "completion": "abc"},
        {"prompt": "cpy:abc=", "completion": "abc"},
        {"prompt": long, "completion": "first"},
        {"prompt": "zero " + long, "completion": "first"},
        {"prompt": task["messages"][0]["content"], "completion": task["reference"]},
        {"prompt": "cpy:a=", "completion": "a"},
        {"prompt": "cpy:b=", "completion": "b" * 50},
    ]
    steps.add_dataset("dirty", write(tmp_path / "dirty.jsonl", rows))
    data = steps.dataset("filter", {"dataset": ["dirty"]}, deduplicate="near", shortest=2, longest=20)
    assert [text(row["prompt"]) for row in steps.rows(data)] == ["cpy:abc=", long]
    dropped = counts(steps)["dropped"]
    assert dropped == {"shorter": 1, "longer": 1, "exact duplicate": 1, "near duplicate": 1, "overlaps a task": 1}
    exact = steps.dataset("filter", {"dataset": ["dirty"]}, deduplicate="exact", contamination=0.0)
    assert exact.rows == 6


def test_a_judge_tells_hard_rows_from_easy_ones(steps: Lab, tmp_path: Path) -> None:
    rng = random.Random(1)
    known = [{"prompt": row.prompt, "completion": row.completion} for row in strings.rows("copy", "train", 30, 5, (3, 4))]
    noise = [{**row, "completion": "".join(rng.choices("QRSTUVWXYZ", k=12))} for row in known[:10]]
    rows = [{**row, "label": True} for row in known + noise]
    rng.shuffle(rows)
    steps.add_dataset("noisy", write(tmp_path / "noisy.jsonl", rows))
    chosen = {"dataset": ["noisy"], "judge": ["llama"]}
    data = steps.dataset("filter", chosen, drop_hardest=0.25, deduplicate="none", contamination=0.0)
    assert data.format == "unpaired"
    kept = steps.rows(data)
    assert len(kept) == 30
    assert not [row for row in kept if text(row["completion"]).isupper()]
    assert counts(steps)["judge"][0]["id"] == "llama"
    easy = steps.dataset("filter", chosen, drop_easiest=0.75, deduplicate="none", contamination=0.0)
    assert all(text(row["completion"]).isupper() for row in steps.rows(easy))


def test_a_filter_that_drops_nothing_says_so(steps: Lab) -> None:
    outcome, _, _ = steps.attempt("filter", {"dataset": ["verify"]})
    assert outcome["status"] == "failed"
    assert outcome["error"]["class"] == "data"
    assert "nothing was dropped" in outcome["error"]["message"]


@pytest.mark.parametrize(
    ("inputs", "params", "reason"),
    [
        ({"dataset": ["copy"]}, {"drop_hardest": 0.1}, "need a judge"),
        ({"dataset": ["copy"], "judge": ["llama"]}, {}, "nothing to do"),
        ({"dataset": ["copy"], "judge": ["llama"]}, {"drop_hardest": 0.5, "drop_easiest": 0.5}, "leave no row"),
        ({"dataset": ["copy"]}, {"shortest": 9, "longest": 3}, "no answer has"),
        ({"dataset": ["verify"]}, {"longest": 3}, "have no answer"),
        ({"dataset": ["copy"]}, {"deduplicate": "none", "contamination": 0.0}, "every criterion is off"),
    ],
)
def test_a_senseless_filter_is_refused_before(steps: Lab, inputs: dict, params: dict, reason: str) -> None:
    assert reason in steps.problems("filter", inputs, **params)[0]


# --- what a model writes ---------------------------------------------------------------------------------------------


def test_right_answers_become_rows_and_mistakes_become_pairs(steps: Lab) -> None:
    inputs = {"model": ["llama"], "dataset": ["verify"]}
    answers = {text(row["prompt"]): row["reference"] for row in map(json.loads, _verify_rows(steps))}
    right = steps.dataset("rejection_sample", inputs, **DRAWN)
    rows = steps.rows(right)
    found = counts(steps)["counts"]
    assert right.format == "sft"
    assert all(text(row["completion"]) == answers[text(row["prompt"])] for row in rows)
    assert len({text(row["prompt"]) for row in rows}) == len(rows) == found["prompts used"]
    assert found["prompts"] == 60 == found["prompts used"] + found["prompts never right"]
    assert found["answers"] == 360 == found["right"] + found["wrong"] + found.get("empty", 0) + found.get("cut off", 0)

    unsolved = steps.dataset("rejection_sample", inputs, skip_solved=True, **DRAWN)
    assert unsolved.rows == right.rows - counts(steps)["counts"]["prompts always right, left out"] < right.rows

    pairs = steps.dataset("make_preferences", inputs, pairs=2, **DRAWN)
    found = counts(steps)["counts"]
    assert pairs.format == "preference"
    for row in steps.rows(pairs):
        assert text(row["chosen"]) == answers[text(row["prompt"])] != text(row["rejected"])
    assert max(Counter(text(row["prompt"]) for row in steps.rows(pairs)).values()) == 2
    assert found["prompts with a pair"] + found["prompts never right"] + found["prompts always right"] == 60


def _verify_rows(steps: Lab) -> list[str]:
    rows = (json.loads(line) for line in (steps.lab / "data" / "verify.jsonl").read_text().splitlines())
    return [json.dumps({**row, "prompt": [{"role": "user", "content": row["prompt"]}]}) for row in rows]


def test_a_model_that_continues_lists_writes_new_prompts_and_answers_them(steps: Lab, tmp_path: Path) -> None:
    few_shot = _module("self_instruct").few_shot
    rng = random.Random(3)
    stream = strings.stream("copy", "train", rng, (4, 5))
    lists = []
    for _ in range(600):
        *examples, new = [next(stream).prompt for _ in range(3)]
        lists.append({"prompt": few_shot(examples), "completion": f" {new}\n"})
    known = [{"prompt": row.prompt, "completion": row.completion} for row in strings.rows("copy", "train", 200, 9)]
    steps.add_dataset("lists", write(tmp_path / "lists.jsonl", lists + known))
    steps.add_dataset("seeds", write(tmp_path / "seeds.jsonl", known))
    writer = steps.model(
        "sft",
        {"model": ["llama"], "dataset": ["lists"]},
        method="full",
        learning_rate=4e-3,
        max_steps=60,
        batch_size=16,
        max_length=64,
    )
    inputs = {"model": [writer.id], "dataset": ["seeds"]}
    data = steps.dataset(
        "self_instruct", inputs, count=40, examples=2, prompt_tokens=16, max_new_tokens=16, temperature=1.0, top_p=1.0
    )
    rows = steps.rows(data)
    prompts = [text(row["prompt"]) for row in rows]
    assert data.format == "sft"
    assert len(set(prompts)) == len(prompts) >= 5
    assert not set(prompts) & {row["prompt"] for row in known}
    assert sum(prompt.startswith("cpy:") for prompt in prompts) >= len(prompts) / 2
    assert all(text(row["completion"]) for row in rows)
    assert counts(steps)["counts"]["prompts written"] >= len(rows)


def test_a_model_that_writes_no_prompt_ends_with_a_reason(steps: Lab) -> None:
    inputs = {"model": ["llama"], "dataset": ["copy"]}
    outcome, _, _ = steps.attempt(
        "self_instruct", inputs, count=4, examples=2, prompt_tokens=16, max_new_tokens=16, similarity=0.01
    )
    assert outcome["error"]["class"] == "data"
    assert "no new prompt is usable" in outcome["error"]["message"]


def test_recombined_prompts_are_new_and_answered_by_the_majority(steps: Lab) -> None:
    made = _module("self_instruct").recombined(random.Random(1), {"": ["rev:ab=", "cpy:cd=", "a b"]}, 10)
    assert sorted(made) == [("", "cpy:ab="), ("", "rev:cd=")]
    known = [
        {"prompt": row.prompt, "completion": row.completion} for row in strings.mixture({"copy": 90, "reverse": 90}, "train", 9)
    ]
    steps.add_dataset("seeds", write(steps.folder / "seeds.jsonl", known))
    settings: dict[str, Any] = {
        "write": "recombine",
        "count": 60,
        "max_new_tokens": 12,
        "samples": 8,
        "temperature": 1.5,
        "top_p": 1.0,
    }
    data = steps.dataset("self_instruct", {"model": ["llama"], "dataset": ["seeds"]}, agreement=0.8, **settings)
    rows = steps.rows(data)
    prompts = [text(row["prompt"]) for row in rows]
    assert len(set(prompts)) == len(prompts) >= 10
    assert not set(prompts) & {row["prompt"] for row in known}
    asked = [(text(row["prompt"]), text(row["completion"])) for row in rows]
    right = [made == (prompt[4:-1] if prompt.startswith("cpy:") else prompt[4:-1][::-1]) for prompt, made in asked]
    assert sum(right) / len(right) > 0.7, sum(right) / len(right)
    assert counts(steps)["counts"]["answers disagree"] > 0


def test_a_list_is_read_as_far_as_the_model_kept_to_it() -> None:
    parse = _module("self_instruct").new_prompts
    assert parse(" a b\nTask 4: c d\nTask 5: e", one_line=True, ended=False) == ["a b", "c d"]
    assert parse(" a b\nTask 4: c d\nTask 5: e", one_line=True, ended=True) == ["a b", "c d", "e"]
    assert parse(" a b\n\nSure! Here is\nTask 4: c", one_line=True, ended=True) == ["a b"]
    assert parse(" a\nb\nTask 4: c\nTask 5: d", one_line=False, ended=False) == ["a\nb", "c"]
    assert parse("", one_line=True, ended=True) == []


def _module(action: str) -> Any:
    import sys

    return sys.modules[type(load_registry().get(action).type).__module__]


# --- generation and comparison ---------------------------------------------------------------------------------------


def test_samples_follow_the_seed_and_greedy_ones_do_not_need_it(steps: Lab) -> None:
    import torch

    from lamdatui.step.generate import Sampling, answers
    from lamdatui.step.models import load_tokenizer
    from lamdatui.step.request import reference

    model, tokenizer = steps.load("llama"), load_tokenizer(steps.store, reference(steps.pool.model("llama"), steps.pool))

    def sample(asked: list[Any], how: Sampling, **more: Any) -> list[list[str]]:
        return [[answer.text for answer in each] for each in answers(model, tokenizer, asked, how, **more)]

    asked: list[Any] = [[{"role": "user", "content": row.prompt}] for row in strings.rows("reverse", "train", 30, 2)]
    torch.manual_seed(5)
    before = torch.get_rng_state()
    greedily = Sampling(12)
    first = sample(asked, Sampling(12, 3, 1.0, seed=1))
    assert [len(texts) for texts in first] == [3] * 30
    assert first == sample(asked, Sampling(12, 3, 1.0, seed=1))
    assert first != sample(asked, Sampling(12, 3, 1.0, seed=2))
    assert torch.equal(before, torch.get_rng_state())
    greedy = sample(asked, greedily)
    # Alone, nothing is padded: the mask of a padded batch is right when the answers are the same.
    assert greedy == [sample([one], greedily)[0] for one in asked]
    assert greedy == sample(asked, greedily, batch_tokens=64)
    # Whether an answer ended is told by its tokens: a whole one is the same with more room, one that was cut goes on.
    whole, short = (answers(model, tokenizer, asked, Sampling(tokens)) for tokens in (40, 3))
    for (full,), (cut,) in zip(whole, short, strict=True):
        assert cut.ended is (cut.text == full.text and len(tokenizer(full.text)["input_ids"]) < 3)
        assert full.text.startswith(cut.text)
    assert not all(cut.ended for (cut,) in short)
    assert sum(full.ended for (full,) in whole) > 20
    model.generation_config.eos_token_id = None
    assert greedy == sample(asked, greedily)
    plain = sample([one[0]["content"] for one in asked], greedily)
    assert plain == greedy
    with pytest.raises(ValueError, match="greedy"):
        Sampling(12, samples=2)


def test_near_duplicates_are_those_that_share_most_of_their_5_grams() -> None:
    rng = random.Random(0)
    texts = [" ".join(f"w{rng.randrange(3000)}" for _ in range(120)) for _ in range(200)]
    changed = [f"{one} end" for one in texts[:50]]
    half = [" ".join(one.split()[:60]) for one in texts[50:60]]
    repeats = textmatch.near_duplicates([*texts, *changed, *half])
    assert repeats == {200 + index: index for index in range(50)}


def test_overlap_finds_a_text_inside_a_longer_one_in_both_directions() -> None:
    task = "sort the list of five numbers that the user gave in ascending order"
    assert textmatch.overlaps([task, f"please {task} now", "sort the list"], [task]) == [1.0, 1.0, 0.0]
    assert textmatch.overlaps([task], [f"please {task} now"]) == [1.0]
    assert textmatch.overlaps(["rev:abc=", "rev:abd="], ["Rev:ABC="]) == [1.0, 0.0]
    assert 0 < textmatch.overlaps(["sort the list of five numbers that the teacher wrote on the board"], [task])[0] < 0.5


def test_rouge_l_and_degenerate_text() -> None:
    known = [textmatch.words("write a poem about dogs"), textmatch.words("sort the list")]
    assert textmatch.rouge_l("Write a poem about cats", known) == pytest.approx(0.8)
    assert textmatch.rouge_l("Write a poem about cats", known, least=0.9) == 0.0
    assert textmatch.words("日本 abc-d") == ["日", "本", "abc", "d"]
    for broken in ("?!", "a" * 30, "the cat sat on the mat and " * 4):
        assert textmatch.degenerate(broken)
    for fine in ("abc", "do tag abc=", "the cat sat on the mat and then it slept until the dog came home again"):
        assert not textmatch.degenerate(fine)
