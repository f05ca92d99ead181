"""What is trained of a row, decoded: the model's own turn with the token that ends it, for chat templates of current families and every method.

Templates are those of the packages trl and mergekit; tokens of all families are in one byte-level tokenizer, models are tiny and real.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from lamdatui.base.jsonio import write_json
from lamdatui.inputs.namedtemplates import names
from lamdatui.inputs.rowshapes import read_row
from lamdatui.inputs.templates import read_template
from lamdatui.step.context import StepContext
from lamdatui.step.encoding import Encoder
from tests.steps import Lab

Row = dict[str, Any]


class Family(NamedTuple):
    """The token that ends an answer, what the template has the model say before an answer (in an earlier turn, and in the last one) and after it,
    and whether it writes tools."""

    end: str
    earlier: str = ""
    last: str = ""
    tools: bool = False
    close: str = ""


THOUGHT = "<think>\n\n</think>\n\n"
FAMILIES = {
    "chatml": Family("<|im_end|>"),
    "mistral": Family("</s>", " ", " "),
    "qwen2_5": Family("<|im_end|>", tools=True),
    "qwen3": Family("<|im_end|>", THOUGHT, THOUGHT, tools=True),
    "qwen3_instruct_2507": Family("<|im_end|>", tools=True),
    "llama3": Family("<|eot_id|>"),
    "llama3_1": Family("<|eot_id|>", tools=True),
    "gemma": Family("<end_of_turn>"),
    "gemma3": Family("<end_of_turn>"),
    "phi3": Family("<|end|>"),
    "phi3_5": Family("<|end|>"),
    "glm4moe": Family("<|user|>", "\n<think></think>\n", "\n<think></think>\n", tools=True),
    "deepseekv3": Family("<｜end▁of▁sentence｜>"),
    "deepseek_r1_distill": Family("<｜end▁of▁sentence｜>"),
    "cohere2": Family("<|END_OF_TURN_TOKEN|>", close="<|END_RESPONSE|>"),
    "lfm2_v2": Family("<|im_end|>", tools=True),
    "gemma4": Family("<turn|>", tools=True),
    "gptoss": Family("<|return|>", "<|channel|>final<|message|>", "<|channel|>final<|message|>", tools=True),
    "nemotron_3_nano": Family("<|im_end|>", "</think>", "</think>", tools=True),
}
MARKS = re.compile(r"<[|｜][^>|｜ ]{1,30}[|｜]>|<(?:start|end)_of_turn>|<sop>|<\|?(?:turn|tool_call|channel)\|?>")
"""Tokens of their own that templates write."""


@pytest.fixture(scope="module")
def bodies(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A model directory for each family."""
    texts = {name: names()[name].read_text(encoding="utf-8") for name in FAMILIES}
    ends = [family.end for family in FAMILIES.values()]
    marks = sorted({"<s>", *ends, *itertools.chain.from_iterable(MARKS.findall(text) for text in texts.values())})
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    core = Tokenizer(BPE({sign: at for at, sign in enumerate(alphabet)}, []))
    core.pre_tokenizer, core.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    core.add_special_tokens([AddedToken(mark, normalized=False, special=True) for mark in marks])
    config = LlamaConfig(
        vocab_size=core.get_vocab_size(),
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=8192,
    )
    model = LlamaForCausalLM(config)
    found = {}
    for name, text in texts.items():
        folder = tmp_path_factory.mktemp(name)
        end = FAMILIES[name].end
        tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, bos_token="<s>", eos_token=end)
        tokenizer.chat_template = text
        tokenizer.save_pretrained(folder)
        model.save_pretrained(folder)
        write_json(folder / "generation_config.json", {"eos_token_id": core.token_to_id(end)})
        found[name] = folder
    return found


def turn(role: str, content: str, **more: Any) -> Row:
    return {"role": role, "content": content, **more}


CHAT = [turn("user", "ask one"), turn("assistant", "say one"), turn("user", "ask two"), turn("assistant", "say two")]
PAIRS = [{"prompt": CHAT[:3], "chosen": [turn("assistant", "say good")], "rejected": [turn("assistant", "say bad")]}] * 4
DATA: dict[str, list[Row]] = {
    "sft": [{"messages": CHAT}] * 4,
    "distill": [{"messages": CHAT}] * 8,
    "grpo": [{"prompt": CHAT[:3], "scorer": "exact", "reference": "say two"}] * 4,
    **dict.fromkeys(("dpo", "kto", "orpo", "simpo"), PAIRS),
}


class Captured(Exception):
    """The trainer is ready: nothing has to be trained."""


@pytest.fixture
def trainers(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    found: list[Any] = []

    def train(_: StepContext, trainer: Any, *held: Any) -> None:
        found.append(trainer)
        raise Captured

    monkeypatch.setattr(StepContext, "train", train)
    return found


def trained(kind: str, trainer: Any) -> Iterator[tuple[str, str]]:
    """Decoded: what is read before an answer, and what of it is trained."""
    tokenizer = trainer.processing_class

    def decode(ids: Any) -> str:
        return tokenizer.decode(list(ids), skip_special_tokens=False)

    for row in trainer.train_dataset:
        if kind == "sft":
            at = next(at for at, label in enumerate(row["labels"]) if label != -100)
            assert all(label == token for label, token in zip(row["labels"][at:], row["input_ids"][at:], strict=True))
            yield decode(row["input_ids"][:at]), decode(row["input_ids"][at:])
        elif kind in ("dpo", "kto"):
            for name in ("chosen_ids", "rejected_ids", "completion_ids"):
                if name in row:
                    yield decode(row["prompt_ids"]), decode(row[name])
        elif kind in ("orpo", "simpo"):
            for name in ("chosen", "rejected"):
                labels, ids = row[f"{name}_labels"], row[f"{name}_input_ids"]
                at = next(at for at, label in enumerate(labels) if label != -100)
                yield decode(ids[:at]), decode(labels[at:])
        else:
            (ids,), _, _ = trainer._tokenize_prompts([row["prompt"]])
            yield decode(ids), decode(row.get("answer", []))


@pytest.mark.parametrize("name", FAMILIES)
def test_an_answer_is_trained_with_its_end_and_nothing_else(
    name: str, bodies: dict[str, Path], trainers: list[Any], lab: Path, tmp_path: Path
) -> None:
    family, steps = FAMILIES[name], Lab(lab, tmp_path)
    steps.add_model("m", bodies[name])
    template = read_template(bodies[name])
    asked = {text: template.render(CHAT[:at], asks=True) for at, text in ((1, "say one"), (3, "say two"))}
    asked |= dict.fromkeys(("say good", "say bad"), asked["say two"])
    seen = 0
    for kind, rows in DATA.items():
        path = tmp_path / f"{kind}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        steps.add_dataset(kind, path)
        inputs = {"model": ["m"], "dataset": [kind]} | ({"teacher": ["llama"]} if kind == "distill" else {})
        params: Row = {"method": "full", "max_steps": 2, "batch_size": 4}
        if kind == "distill":
            steps.add_model("teacher", bodies[name])
            inputs["teacher"] = ["teacher"]
            params["method"] = "lora"
        params |= {"grpo": {"samples": 2}, "distill": {}}.get(kind, {"max_length": 0})
        outcome, _, _ = attempt(steps, kind, inputs, params)
        assert "Captured" in outcome["error"]["message"], outcome["error"]
        for before, after in trained(kind, trainers.pop()):
            seen += 1
            said = next((text for text in asked if text in after), "")
            if kind == "grpo":
                assert before == asked["say two"]
                continue
            lead = family.earlier if said == "say one" else family.last
            assert after == f"{lead}{said}{family.close}{family.end}", kind
            assert before == asked[said] or asked[said].startswith(before), kind
    assert seen == 8 + 16 + 4 + 8 * 4


def attempt(steps: Lab, kind: str, inputs: Row, params: Row) -> Any:
    """An action without its check: a teacher that is the student itself is good enough here."""
    bound = steps.registry.get(kind)
    kept, type(bound).problems = type(bound).problems, lambda *_: []  # type: ignore[method-assign]
    try:
        return steps.attempt(kind, inputs, **params)
    finally:
        type(bound).problems = kept  # type: ignore[method-assign]


# --- any conversation ------------------------------------------------------------------------------------------------

TOOL = {
    "type": "function",
    "function": {
        "name": "look_up",
        "description": "d",
        "parameters": {"type": "object", "properties": {"at": {"type": "string"}}},
    },
}


@st.composite
def conversations(draw: st.DrawFn) -> Row:
    """Turns whose words are all different, so that each can be told in a text; with tools, calls, results, thoughts and a system turn, or without."""
    word = map("w{:03d}z".format, itertools.count())
    turns, tools = [], draw(st.booleans())
    if draw(st.booleans()):
        turns.append(turn("system", next(word)))
    for _ in range(draw(st.integers(1, 3))):
        turns.append(turn("user", next(word)))
        if tools and draw(st.booleans()):
            call = {"type": "function", "id": "call00001", "function": {"name": "look_up", "arguments": {"at": next(word)}}}
            turns.append({"role": "assistant", "content": "", "tool_calls": [call]})
            turns.append(turn("tool", next(word), tool_call_id="call00001", name="look_up"))
        thought = {"reasoning_content": next(word)} if draw(st.booleans()) else {}
        turns.append(turn("assistant", next(word), **thought))
    return {"messages": turns, **({"tools": [TOOL]} if tools else {})}


def words_of(message: Row) -> tuple[set[str], set[str]]:
    """What an answer has to hold, and what it may."""
    must = set(re.findall(r"w\d{3}z", json.dumps([message["content"], message.get("tool_calls")])))
    return must, must | set(re.findall(r"w\d{3}z", message.get("reasoning_content", "")))


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(row=conversations())
def test_of_any_conversation_the_answers_alone_are_trained(
    row: Row, bodies: dict[str, Path], encoders: dict[str, Encoder]
) -> None:
    taken = 0
    for name, encoder in encoders.items():
        if "tools" in row and not FAMILIES[name].tools:
            continue
        for each in read_row(row).answers:
            try:
                encoder.template.ask(each)
            except ValueError:  # a template that takes no system turn, or not these roles in this order
                continue
            taken += 1
            ids, start = encoder.encode(each)
            before, after = (encoder.tokenizer.decode(part) for part in (ids[:start], ids[start:]))
            must, may = words_of(each["completion"][0])
            found = set(re.findall(r"w\d{3}z", after))
            assert must <= found <= may, name
            assert not must & set(re.findall(r"w\d{3}z", before)), name
            ends = {FAMILIES[name].end, "<|observation|>", "<|eom_id|>", "<|call|>"}
            assert any(after.endswith(end) for end in ends) and sum(after.count(end) for end in ends) == 1, (name, after)
            assert before.startswith(encoder.ask(each)) or encoder.ask(each).startswith(before), name
    assert taken


@pytest.fixture(scope="module")
def encoders(bodies: dict[str, Path]) -> dict[str, Encoder]:
    return {name: Encoder(AutoTokenizer.from_pretrained(folder)) for name, folder in bodies.items()}
