"""The half of the quickstart data that asks for a form: prompts with verifiable constraints, answers that meet them.

Every topic belongs to one split, and tasks ask in other words than training rows do (`TAUGHT`, `ASKED`): what is measured is that a form is
understood, not that a sentence is known. A training answer is the base model's own answer to the prompt, brought into the asked
form by rules (`repair`) and kept only when the verifier accepts all of it: the words stay the base model's.
"""

from __future__ import annotations

import json
import random
import re
from dataclasses import dataclass
from typing import Any

from lamdatui.tasks.constraints import SEPARATOR, constraints, count_words, satisfied, split_sentences

TOPICS = """
apples|bicycles|rain|chess|coffee|mountains|libraries|soap|honey|trains|the moon|dogs|tea|volcanoes|maps|gardens
glass|salt|swimming|clocks|bread|birds|islands|photography|rice|elephants|cheese|rivers|puppets|oranges|gold
paper|horses|kites|snow|museums|candles|pencils|the desert|shoes|pianos|whales|chocolate|bridges|windmills
butter|penguins|markets|poetry|sleep|tomatoes|astronomy|drums|wool|lighthouses|potatoes|running|cats|forests
mirrors|umbrellas|soup|ants|castles|yoga|lemons|magnets|hats|sailing|spiders|farms|pottery|the telephone|onions
bees|winter|carpets|hiking|wheat|violins|frogs|elevators|blankets|the compass|owls|tennis|cotton|dancing|wolves
ice cream|rockets|cooking|camels|stamps|lakes|painting|steel|rabbits|comets|school buses|garlic|letters
the printing press|tigers|baskets|fishing|clouds|opera|sugar|turtles|bamboo|the radio|robots|picnics|lightning
silk|carrots|planets|basketball|keys|buttons|dolphins|theatres|pepper|the abacus|cactus plants|jam|sandals
waterfalls|crows|helicopters|mushrooms|guitars|tunnels|almonds|foxes|ferries|pancakes|fountains|beetles
notebooks|the wheel|cherries|caves|sculpture|lions|recycling|pasta|thermometers|deer|balloons|tides|sheep
zippers|grapes|orchestras|the telescope|skating|hospitals|sparrows|olives|windows|kangaroos|puzzles|the stapler
pumpkins|subways|jazz|earthquakes|peaches|firefighters|hammers|ducks|coral reefs|origami|scissors|beans
octopuses|bakeries|surfing|the violin case|fog|goats|escalators|walnuts|the harp|parrots|cinemas|ladders
cucumbers|glaciers|tortoises|magazines|the sewing machine|pears|swans|knitting|lanterns|strawberries|sharks
tractors|folk songs|harbours|calendars|bananas|zebras|rope|juggling|beaches|moths|sunflowers|the microscope
sandwiches|donkeys|weather forecasts|wood|cricket|plums|eagles|parks|batteries|spoons|bears|cakes|crayons
jellyfish|skyscrapers|peanuts|the trumpet|postcards|gorillas|oats|canoes|doors|monkeys|roses|the calculator|sand
"""

FORMS = (
    "Write a short text about {topic}.",
    "Describe {topic} to a child.",
    "Explain why people like {topic}.",
    "Give a short introduction to {topic}.",
    "Tell me something interesting about {topic}.",
)

ASKED_FORMS = (
    "Compose a brief passage on the subject of {topic}.",
    "What should a visitor from far away know about {topic}?",
    "In your own words, what makes {topic} worth a thought?",
    "Could you say a few things on {topic}, please?",
    "Imagine a friend wonders about {topic}: what do you say?",
)
"""Questions of the tasks."""

_OPENINGS = ("Here is my answer.", "Good question!", "Let us begin.", "In short:", "Well,")
_ENDINGS = ("That is all.", "Thank you for reading.", "Hope this helps!", "The end.")
_KEYWORDS = ("people", "world", "useful", "time", "many", "different", "great", "important", "history", "enjoy")
_FORBIDDEN = ("very", "also", "because", "important", "popular", "good", "often", "years")

FORM_KINDS = (
    "sentences",
    "end_with",
    "title",
    "bullets",
    "lowercase",
    "quoted",
    "paragraphs",
    "start_with",
    "two_responses",
    "uppercase",
    "postscript",
    "placeholders",
    "repeat",
    "json",
)
CONTENT_KINDS = ("max_words", "include", "no_commas", "forbid", "min_words", "frequency")


@dataclass(frozen=True)
class Prompt:
    """One instruction: its topic, the plain question, the whole text, and the constraints in the scorer's spelling."""

    id: str
    topic: str
    text: str
    constraints: tuple[dict[str, Any], ...]

    @property
    def messages(self) -> list[dict[str, str]]:
        """The prompt as chat messages; no system message, so the model's own default one applies."""
        return [{"role": "user", "content": self.text}]

    @property
    def reference(self) -> dict[str, Any]:
        """What the scorer `constraints` needs."""
        return {"constraints": list(self.constraints)}


def topics() -> list[str]:
    """All topics, each once, in a fixed order."""
    return list(dict.fromkeys(part.strip() for line in TOPICS.strip().splitlines() for part in line.split("|")))


TAUGHT = {
    "sentences": "Answer in exactly {count} sentences.",
    "bullets": "Answer with exactly {count} bullet points, each on its own line and starting with *.",
    "paragraphs": "Write exactly 2 short paragraphs, separated by a blank line.",
    "placeholders": "Use at least {count} placeholders in square brackets, such as [name].",
    "start_with": "Start your answer with the words: {phrase}",
    "end_with": "End your answer with exactly this phrase: {phrase}",
    "repeat": "First repeat the request above word for word, then answer it.",
    "title": "Put a title in double angle brackets first, such as <<Title>>.",
    "lowercase": "Use only lowercase letters.",
    "uppercase": "Use only capital letters.",
    "quoted": "Put your whole answer in double quotation marks.",
    "two_responses": "Give two different short answers, separated by {separator}.",
    "postscript": "Add a postscript at the end that starts with P.S.",
    "json": "Answer with a JSON object only.",
    "max_words": "Use at most {count} words.",
    "min_words": "Use at least {count} words.",
    "include": 'Use the word "{word}".',
    "forbid": 'Do not use the words "{word}" or "{other}".',
    "frequency": 'Use the word "{word}" at least twice.',
    "no_commas": "Do not use any commas.",
}
"""Kind of constraint → how training rows ask for it."""
ASKED = {
    "sentences": "Your reply has to consist of {count} sentences, no more and no fewer.",
    "bullets": "Make it a list of {count} bullets, nothing less or more, with a * at the head of every line.",
    "paragraphs": "Split the text into two paragraphs with an empty line in between.",
    "placeholders": "There have to be {count} or more gaps for me to fill in, in brackets like [address].",
    "start_with": "The first words of the reply must be: {phrase}",
    "end_with": "Finish with these very words and nothing after them: {phrase}",
    "repeat": "Before you reply, copy my question exactly as it stands.",
    "title": "Give the text a heading that is wrapped like this: <<Heading>>.",
    "lowercase": "No capital letters may appear anywhere.",
    "uppercase": "EVERY LETTER HAS TO BE A CAPITAL.",
    "quoted": 'Wrap the entire reply in quotation marks (").',
    "two_responses": "I want two replies that differ from one another, with {separator} between them.",
    "postscript": "After the main text, append a note that begins with P.S.",
    "json": "The whole reply must be one valid JSON object.",
    "max_words": "Keep it to {count} words or fewer.",
    "min_words": "It should be no shorter than {count} words.",
    "include": 'Somewhere the word "{word}" has to appear.',
    "forbid": 'The words "{word}" and "{other}" must not appear.',
    "frequency": 'Let the word "{word}" appear two times or more.',
    "no_commas": "Leave out commas altogether.",
}
"""The same of the tasks' rows, search and sealed."""


def _draw_form(kind: str, question: str, rng: random.Random, wording: dict[str, str]) -> tuple[dict[str, Any], str]:
    count = rng.choice((2, 3))
    opening, ending = rng.choice(_OPENINGS), rng.choice(_ENDINGS)
    arguments: dict[str, dict[str, Any]] = {
        "sentences": {"count": count},
        "bullets": {"count": count},
        "paragraphs": {"count": 2},
        "placeholders": {"count": count},
        "start_with": {"phrase": opening},
        "end_with": {"phrase": ending},
        "repeat": {"text": question},
    }
    wanted = {"kind": kind, **arguments.get(kind, {})}
    return wanted, wording[kind].format(separator=SEPARATOR, **wanted)


def _keyword(answer: str | None, rng: random.Random) -> str:
    """A word to ask for: a common one, or, where the answer is already there, a long word of that answer."""
    if answer is None:
        return rng.choice(_KEYWORDS)
    words = sorted({word for word in re.findall(r"[a-z]{5,}", answer)}) or list(_KEYWORDS)
    return rng.choice([word for word in _KEYWORDS if word in words] or words)


def _draw_content(
    kind: str, topic: str, answer: str | None, rng: random.Random, wording: dict[str, str]
) -> tuple[dict[str, Any], str]:
    keyword, forbidden = _keyword(answer, rng), rng.sample(_FORBIDDEN, 2)
    most, least = rng.choice((30, 40, 50)), rng.choice((20, 30, 40))
    word = topic.removeprefix("the ")
    arguments: dict[str, dict[str, Any]] = {
        "max_words": {"count": most},
        "min_words": {"count": least},
        "include": {"words": [keyword]},
        "forbid": {"words": forbidden},
        "frequency": {"word": word, "count": 2},
        "no_commas": {},
    }
    wanted = {"kind": kind, **arguments[kind]}
    named = wanted.get("words", [wanted.get("word", "")])
    return wanted, wording[kind].format(count=wanted.get("count"), word=named[0], other=named[-1])


def _make(identity: str, topic: str, question: str, number: int, rng: random.Random, answer: str | None = None) -> Prompt:
    """Prompt `number` of a split: kinds go round, so that each split has every kind about equally often.

    A training row has the base's `answer` already, and is worded as `TAUGHT` has it.
    """
    wording = ASKED if answer is None else TAUGHT
    form, form_text = _draw_form(FORM_KINDS[number % len(FORM_KINDS)], question, rng, wording)
    rounds = number // len(FORM_KINDS)
    kind = CONTENT_KINDS[(number + rounds) % len(CONTENT_KINDS)]
    content, content_text = _draw_content(kind, topic, answer, rng, wording)
    return Prompt(identity, topic, f"{question} {form_text} {content_text}", (form, content))


def split_topics(sizes: dict[str, int], seed: int) -> dict[str, list[tuple[str, str]]]:
    """(topic, question) pairs of each split of `sizes` and, all others, of "train"."""
    rng = random.Random(seed)
    pool = [(topic, rng.randrange(len(FORMS))) for topic in topics()]
    rng.shuffle(pool)
    splits: dict[str, list[tuple[str, str]]] = {}
    for name, size in sizes.items():
        held, pool = pool[:size], pool[size:]
        splits[name] = [(topic, ASKED_FORMS[form].format(topic=topic)) for topic, form in held]
    return {**splits, "train": [(topic, FORMS[form].format(topic=topic)) for topic, form in pool]}


def task_prompts(split: str, pairs: list[tuple[str, str]], seed: int) -> list[Prompt]:
    """One prompt for each (topic, question) of an evaluation split."""
    rng = random.Random(f"{seed} {split}")
    return [_make(f"{split}_{number}", topic, question, number, rng) for number, (topic, question) in enumerate(pairs)]


def plain_request(question: str) -> list[dict[str, str]]:
    """What the base model is asked, to get an answer that the rules can bring into a form."""
    return [{"role": "user", "content": f"{question} Answer in three or four short sentences."}]


def training_rows(pairs: list[tuple[str, str]], answers: list[str], per_topic: int, seed: int) -> list[tuple[Prompt, str]]:
    """(prompt, right answer): `per_topic` different instructions for each topic, all met by the base's own words.

    answers: what the base model said to `plain_request` of each pair. Where the rules can't meet an instruction, that
    row is left out.
    """
    rng = random.Random(f"{seed} train")
    rows: list[tuple[Prompt, str]] = []
    for round_ in range(per_topic):
        for place, ((topic, question), answer) in enumerate(zip(pairs, answers, strict=True)):
            number = round_ * len(pairs) + place
            prompt = _make(f"train_{number}", topic, question, number, rng, answer)
            repaired = repair(prompt, answer)
            if repaired is not None:
                rows.append((prompt, repaired))
    return rows


def body_of(answer: str) -> list[str]:
    """The answer's whole sentences as plain prose: no marks, no list, no repeated sentence, nothing cut off."""
    text = re.sub(r"[*\"{}<>#\[\]]", " ", answer.replace("\n", " "))
    sentences = split_sentences(" ".join(text.split()))
    return list(dict.fromkeys(one for one in sentences if one[-1] in ".!?" and count_words(one) > 2))


def _repair_content(body: list[str], wanted: dict[str, Any], form: str) -> list[str]:
    kind = wanted["kind"]
    if kind == "forbid":
        return [one for one in body if satisfied(wanted, one)]
    if kind == "no_commas":
        return [one.replace(",", "") for one in body]
    room = wanted["count"] - 12 if kind == "max_words" and form in ("repeat", "end_with", "start_with") else 60
    if kind == "max_words":
        room = min(room, wanted["count"] - 4)
    kept: list[str] = []
    for sentence in body:
        enough = kind not in ("min_words", "include", "frequency") or satisfied(wanted, " ".join(kept) or "-")
        if count_words(" ".join([*kept, sentence])) > room or (len(kept) >= 3 and enough):
            break
        kept.append(sentence)
    return kept


def _halves(body: list[str], glue: str) -> str:
    middle = (len(body) + 1) // 2
    return glue.join((" ".join(body[:middle]), " ".join(body[middle:])))


def _title_of(topic: str) -> str:
    return topic[0].upper() + topic[1:]


def _repair_form(body: list[str], wanted: dict[str, Any], topic: str) -> str:
    text, count = " ".join(body), wanted.get("count", 0)
    match wanted["kind"]:
        case "sentences":
            return " ".join(body[:count])
        case "bullets":
            return "\n".join(f"* {one}" for one in body[:count])
        case "paragraphs":
            return _halves(body, "\n\n")
        case "two_responses":
            return _halves(body, f"\n{SEPARATOR}\n")
        case "placeholders":
            return f"Dear [name], {text}" + " Yours, [sender]" + (" at [address]" if count > 2 else "")
        case "start_with":
            return f"{wanted['phrase']} {text}"
        case "end_with":
            return f"{text} {wanted['phrase']}"
        case "repeat":
            return f"{wanted['text']}\n{text}"
        case "title":
            return f"<<{_title_of(topic)}>>\n{text}"
        case "lowercase":
            return text.lower()
        case "uppercase":
            return text.upper()
        case "quoted":
            return f'"{text}"'
        case "postscript":
            return f"{' '.join(body[:-1])}\nP.S. {body[-1]}"
        case _:
            return json.dumps({"answer": text}, ensure_ascii=False)


def repair(prompt: Prompt, answer: str) -> str | None:
    """The base model's answer in the asked form, or None when the rules can't make it satisfy every constraint."""
    form, content = prompt.constraints
    body = _repair_content(body_of(answer), content, form["kind"])
    if not body:
        return None
    text = _repair_form(body, form, prompt.topic)
    if content["kind"] == "no_commas":
        text = text.replace(",", "")
    return text if constraints(prompt.reference, text) == 1.0 else None
