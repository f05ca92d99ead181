"""The lab's strings are disjoint and deterministic; its bases load offline, learn, and stop where they should."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path

import pytest
import yaml

from lamdatui.base.jsonio import read_jsonl
from lamdatui.catalogue import lab
from lamdatui.tasks import strings

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("lab")
    lab.write_data(target)
    return target


def read(path: Path) -> list[dict[str, object]]:
    return [value for _, value in read_jsonl(path)]


@pytest.mark.parametrize(
    ("skill", "prompt", "answer"),
    [
        ("copy", "cpy:abcde=", "abcde"),
        ("reverse", "rev:abcde=", "edcba"),
        ("upper", "upp:abcde=", "ABCDE"),
        ("double", "dbl:abcde=", "aabbccddee"),
        ("swap", "swp:abcde=", "badce"),
    ],
)
def test_skill_answers_as_documented(skill: str, prompt: str, answer: str) -> None:
    spec = strings.SKILLS[skill]
    assert (spec.prompt("abcde"), spec.answer("abcde")) == (prompt, answer)


def test_call_names_the_tool_its_prompt_asks_for() -> None:
    for row in strings.rows("call", "train", 50, 3):
        _, tool, argument = row.prompt.rstrip("=").split(" ")
        assert row.completion == f"{tool}({argument})"


def test_same_seed_gives_same_rows_and_another_seed_gives_others() -> None:
    first = strings.rows("reverse", "train", 100, 1)
    assert first == strings.rows("reverse", "train", 100, 1)
    assert first != strings.rows("reverse", "train", 100, 2)


@pytest.mark.parametrize("skill", strings.SKILLS)
def test_rows_are_distinct_and_belong_to_their_split(skill: str) -> None:
    for split in strings.SPLITS:
        found = [row.argument for row in strings.rows(skill, split, 300, 7)]
        assert len(set(found)) == 300
        assert {strings.split_of(argument) for argument in found} == {split}


def test_split_of_an_argument_never_changes() -> None:
    assert [strings.split_of(a) for a in ("abc", "cba", "lkji", "abcdef")] == ["sealed", "train", "train", "train"]


def test_more_rows_than_the_lengths_allow_is_an_error() -> None:
    with pytest.raises(ValueError, match="longer arguments"):
        strings.rows("copy", "search", 1000, 1, lengths=(3,))


def test_corruption_never_returns_the_right_answer() -> None:
    rng = random.Random(5)
    for completion in ("a", "aaa", "abab", "tag(abc)", "AABB"):
        assert all(strings.corrupt(completion, rng) != completion for _ in range(300))


def arguments_of(prompts: Iterator[str]) -> set[str]:
    return {prompt.rstrip("=").replace(":", " ").split(" ")[-1] for prompt in prompts}


def test_splits_are_disjoint_by_argument_over_every_file(data: Path) -> None:
    seen: dict[str, set[str]] = {split: set() for split in strings.SPLITS}
    for path in (data / "data").glob("*.jsonl"):
        seen["train"] |= arguments_of(str(row["prompt"]) for row in read(path))
    for path in (data / "tasks").glob("*.jsonl"):
        for row in read(path):
            messages = row["messages"]
            assert isinstance(messages, list)
            seen[str(row["split"])] |= arguments_of(iter([messages[0]["content"]]))
    assert all(len(found) > 300 for found in seen.values())
    for one, other in combinations(seen.values(), 2):
        assert not one & other


def test_task_rows_have_the_agreed_form(data: Path) -> None:
    for name in lab.TASKS:
        found = read(data / "tasks" / f"{name}.jsonl")
        assert [row["split"] for row in found] == ["search"] * lab.SEARCH_ROWS + ["sealed"] * lab.SEALED_ROWS
        assert len({row["id"] for row in found}) == len(found)
        assert all(set(row) == {"id", "split", "messages", "reference"} for row in found)


def test_datasets_have_the_agreed_form(data: Path) -> None:
    for name, parts in lab.SFT_SETS.items():
        found = read(data / "data" / f"{name}.jsonl")
        assert len(found) == sum(parts.values()) >= 1000
        assert all(set(row) == {"prompt", "completion"} for row in found)
    for name in lab.PREFERENCE_SETS:
        found = read(data / "data" / f"{name}.jsonl")
        assert all(set(row) == {"prompt", "chosen", "rejected"} for row in found)
        assert all(row["chosen"] != row["rejected"] for row in found)


def test_profile_names_only_what_build_makes(data: Path) -> None:
    profile = yaml.safe_load((ROOT / "profiles" / "lab.yaml").read_text(encoding="utf-8"))
    prefix = "catalogue:lab-bases/"
    bases = {base.name for base in lab.BASES}
    assert {m["path"].removeprefix(prefix) for m in profile["models"].values()} == bases
    for entry in (*profile["datasets"].values(), *profile["tasks"].values()):
        assert (data / entry["path"].removeprefix(prefix)).is_file()
    for task in profile["tasks"].values():
        assert (task["rows"]["search"], task["rows"]["sealed"]) <= (lab.SEARCH_ROWS, lab.SEALED_ROWS)
    assert set(profile["objective"]["weights"]) <= set(profile["tasks"])


def test_base_is_a_plain_directory_that_generates_and_stops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch")
    from transformers import AutoModelForCausalLM, AutoTokenizer

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for base in lab.BASES:
        target, said = tmp_path / base.name, list[str]()
        lab.build_base(lab.Base(base.name, base.mixture, steps=lab.WARMUP_STEPS + 10), target, said.append)
        model = AutoModelForCausalLM.from_pretrained(target)
        tokenizer = AutoTokenizer.from_pretrained(target)
        assert said and (target / "model.safetensors").is_file()
        assert 150_000 <= model.num_parameters() <= 500_000
        assert json.loads((target / "config.json").read_text())["architectures"] == [type(model).__name__]
        assert model.generation_config.eos_token_id == tokenizer.eos_token_id != tokenizer.pad_token_id
        assert tokenizer.decode(tokenizer("do tag abc=")["input_ids"]) == "do tag abc=", "AutoTokenizer replaced ours"
        ids = tokenizer("rev:abc=", return_tensors="pt")["input_ids"]
        assert ids.shape == (1, 8)
        assert model.generate(ids, max_new_tokens=4).shape[1] <= 12


def test_merge_of_one_architecture_changes_every_tensor_as_asked(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    pytest.importorskip("mergekit")
    from mergekit.config import MergeConfiguration
    from mergekit.merge import run_merge
    from mergekit.options import MergeOptions
    from transformers import AutoModelForCausalLM

    for base in lab.BASES:
        parents = [tmp_path / f"{base.name}{number}" for number in range(2)]
        for number, parent in enumerate(parents):
            torch.manual_seed(number)
            tokenizer = lab.make_tokenizer()
            lab.make_model(base.name, tokenizer).save_pretrained(parent)
            tokenizer.save_pretrained(parent)
        models = [{"model": str(parent), "parameters": {"weight": 0.5}} for parent in parents]
        config = {"merge_method": "linear", "dtype": "float32", "models": models}
        out = tmp_path / f"{base.name}-merged"
        run_merge(MergeConfiguration.model_validate(config), str(out), MergeOptions(quiet=True))
        one, other, merged = (AutoModelForCausalLM.from_pretrained(p).state_dict() for p in (*parents, out))
        assert set(merged) == set(one)
        assert all(torch.allclose(merged[k], (one[k] + other[k]) / 2, atol=1e-6) for k in one)


def test_chat_template_only_joins_and_ends_an_answer() -> None:
    pytest.importorskip("torch")
    tokenizer = lab.make_tokenizer()
    user = {"role": "user", "content": "rev:ab="}
    answer = {"role": "assistant", "content": "ba"}
    asked = tokenizer.apply_chat_template([user], tokenize=False, add_generation_prompt=True)
    assert asked == tokenizer.apply_chat_template([user], tokenize=False) == "rev:ab="
    assert tokenizer.apply_chat_template([user, answer], tokenize=False) == f"rev:ab=ba{lab.EOS}"
    assert tokenizer.decode(tokenizer("do tag abc=")["input_ids"]) == "do tag abc="


def test_pretraining_repeats_bit_for_bit_on_one_machine() -> None:
    torch = pytest.importorskip("torch")
    base = lab.Base("llama", {"copy": lab.Part(1.0)}, steps=lab.WARMUP_STEPS + 1)
    weights = []
    for _ in range(2):
        torch.manual_seed(lab.SEED)
        tokenizer = lab.make_tokenizer()
        model = lab.make_model(base.name, tokenizer)
        lab.pretrain(base, model, tokenizer, lambda line: None)
        weights.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
    assert torch.equal(*weights)
