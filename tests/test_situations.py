"""The planner's self-test: its situations, its arithmetic, and `lamdatui planner check` on the real embedded model."""

from __future__ import annotations

import json

import pytest

from lamdatui.inputs.workspace import locate
from lamdatui.planner import brief
from lamdatui.planner.situations import SituationScore, from_json, score, shipped, to_json
from tests.conftest import Commands


def test_every_shipped_situation_has_a_clearly_best_option():
    found = shipped()
    assert len(found) >= 90
    for one in found:
        ranked = sorted(one.values, reverse=True)
        assert len(ranked) == 4
        assert ranked[0] - ranked[1] >= 0.08 - 1e-9
        assert one.worth(one.best) == pytest.approx(1.0)
        lines = brief.option_lines(one.view, one.candidates)
        assert len(set(lines)) == 4
        assert all("expected" in line for line in lines)


def test_a_situation_survives_being_written():
    one = shipped()[0]
    again = from_json(json.loads(json.dumps(to_json(one.view, one.candidates, one.values, one.expected))))
    assert again.candidates == one.candidates
    assert again.values == one.values
    assert brief.option_lines(again.view, again.candidates) == brief.option_lines(one.view, one.candidates)


def test_the_score_tells_a_perfect_planner_from_a_blind_one():
    found = shipped()
    perfect = score(found, [one.best for one in found])
    assert (perfect.right, perfect.worth, perfect.verdict) == (1.0, 1.0, "better than chance")
    blind = score(found, [place % 4 for place in range(len(found))])
    assert blind.chance == 0.25
    assert blind.right_interval[0] <= 0.25 <= blind.right_interval[1]
    assert blind.verdict == "not distinguishable from chance"
    worst = score(found, [min(range(4), key=lambda at, one=one: one.values[at]) for one in found])
    assert worst.verdict == "worse than chance"
    assert worst.worth < 0


def test_the_best_option_has_no_favourite_place():
    places = [one.best for one in shipped()]
    assert all(places.count(place) >= len(places) // 8 for place in range(4))


def test_planner_check_tries_the_embedded_planner(cli: Commands) -> None:
    done = cli("planner", "check", "--situations", "3", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["style"] == "yes-no"
    assert found["parameters"] == 134_515_008
    assert found["prompt_speed"] > 0
    assert found["answer_speed"] > 0
    assert found["forms"]["grammar"] is True
    assert found["forms"]["logprobs"] is True
    assert found["score"]["n"] == 3
    assert found["verdict"] == SituationScore(**found["score"]).verdict


def test_planner_check_says_what_is_wrong(cli: Commands) -> None:
    nobody = cli("planner", "check", "quickstart", "--set", "planner={backend: openai, url: 'http://127.0.0.1:9'}")
    assert nobody.returncode == 4
    assert "no planner answers" in nobody.stderr
    assert "Traceback" not in nobody.stderr
    none = cli("planner", "check", "lab")
    assert none.returncode == 2
    assert "has no planner" in none.stderr


def test_few_situations_make_a_wide_interval():
    found = shipped()
    few, many = (score(part, [one.best if n % 2 else 0 for n, one in enumerate(part)]) for part in (found[:8], found))
    assert few.right_interval[1] - few.right_interval[0] > many.right_interval[1] - many.right_interval[0]


@pytest.mark.slow
def test_the_shipped_adapter_is_small_and_goes_with_the_quickstart(cli: Commands) -> None:
    adapter = locate("builtin:smollm2-135m-decisions.gguf")
    assert adapter.stat().st_size <= 8 * 2**20
    plain = cli("planner", "check", "--situations", "2", "--set", "planner.adapter=''", "--json")
    adapted = cli("planner", "check", "--situations", "2", "--json")
    assert plain.returncode == adapted.returncode == 0, plain.stderr + adapted.stderr
    assert "--adapter" not in json.loads(plain.stdout)["command"]
    assert str(adapter) in json.loads(adapted.stdout)["command"]
