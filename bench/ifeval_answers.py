"""Rows of the form of IFEval's, and answers to them: ones made to follow each instruction, near misses, and texts around them. See `bench.ifeval_verdicts`."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

Args = dict[str, Any]
WORDS = ("river", "bread", "copper", "lantern", "market", "garden", "winter", "letter", "bridge", "island", "c++", "well-known")
SENTENCES = (
    "The old market opens before the sun comes up.",
    "Dr. Smith sells 3.5 kilos of bread there every day.",
    "Who would walk past such a smell?",
    "A river runs behind the stalls and the children throw stones into it.",
    "Nobody hurries in winter!",
    "The garden on the island is closed until the bridge is mended.",
    "She wrote a long letter about copper and never sent it.",
    "At night a lantern burns on every door.",
)
LANGUAGES = {
    "en": "The weather is lovely today and the children are playing in the garden with their friends.",
    "de": "Das Wetter ist heute wunderschön, und die Kinder spielen mit ihren Freunden im Garten.",
    "fr": "Il fait très beau aujourd'hui, et les enfants jouent dans le jardin avec leurs amis.",
    "es": "Hoy hace muy buen tiempo y los niños juegan en el jardín con sus amigos.",
    "pt": "Hoje o tempo está muito bom e as crianças brincam no jardim com os seus amigos.",
    "it": "Oggi il tempo è bellissimo e i bambini giocano in giardino con i loro amici.",
    "ru": "Сегодня прекрасная погода, и дети играют в саду со своими друзьями.",
    "hi": "आज मौसम बहुत अच्छा है और बच्चे अपने दोस्तों के साथ बगीचे में खेल रहे हैं।",
    "ko": "오늘은 날씨가 아주 좋아서 아이들이 친구들과 함께 정원에서 놀고 있습니다.",
    "zh-cn": "今天天气很好，孩子们和朋友们在花园里玩耍。",
}
RELATIONS = ("less than", "at least")

ARGUMENTS: dict[str, Callable[[random.Random], Args]] = {
    "language:response_language": lambda rng: {"language": rng.choice([one for one in LANGUAGES if one != "zh-cn"])},
    "detectable_format:constrained_response": lambda rng: {},
    "length_constraints:number_sentences": lambda rng: {"num_sentences": rng.randint(2, 9), "relation": rng.choice(RELATIONS)},
    "length_constraints:number_words": lambda rng: {"num_words": rng.randint(20, 120), "relation": rng.choice(RELATIONS)},
    "length_constraints:number_paragraphs": lambda rng: {"num_paragraphs": rng.randint(1, 5)},
    "length_constraints:nth_paragraph_first_word": lambda rng: {
        "num_paragraphs": (many := rng.randint(1, 4)),
        "nth_paragraph": rng.randint(1, many),
        "first_word": rng.choice(WORDS[:-2]),
    },
    "detectable_format:multiple_sections": lambda rng: {
        "section_spliter": rng.choice(("Section", "SECTION", "Day", "PARAGRAPH")),
        "num_sections": rng.randint(1, 5),
    },
    "keywords:existence": lambda rng: {"keywords": rng.sample(WORDS[:-2], rng.randint(1, 3))},
    "keywords:frequency": lambda rng: {
        "keyword": rng.choice(WORDS[:-2]),
        "frequency": rng.randint(1, 4),
        "relation": rng.choice(RELATIONS),
    },
    "keywords:forbidden_words": lambda rng: {"forbidden_words": rng.sample(WORDS[:-2], rng.randint(1, 3))},
    "keywords:letter_frequency": lambda rng: {
        "letter": rng.choice("aeqtz"),
        "let_frequency": rng.randint(1, 20),
        "let_relation": rng.choice(RELATIONS),
    },
    "detectable_content:number_placeholders": lambda rng: {"num_placeholders": rng.randint(1, 4)},
    "detectable_format:number_bullet_lists": lambda rng: {"num_bullets": rng.randint(1, 5)},
    "detectable_format:number_highlighted_sections": lambda rng: {"num_highlights": rng.randint(1, 4)},
    "change_case:capital_word_frequency": lambda rng: {
        "capital_frequency": rng.randint(1, 6),
        "capital_relation": rng.choice(RELATIONS),
    },
    "detectable_content:postscript": lambda rng: {"postscript_marker": rng.choice(("P.S.", "P.P.S"))},
    "combination:two_responses": lambda rng: {},
    "startend:end_checker": lambda rng: {"end_phrase": rng.choice(("Any other questions?", "That is all, folks."))},
    "combination:repeat_prompt": lambda rng: {"prompt_to_repeat": f"Write about the {rng.choice(WORDS[:-2])}."},
    "detectable_format:title": lambda rng: {},
    "change_case:english_capital": lambda rng: {},
    "change_case:english_lowercase": lambda rng: {},
    "punctuation:no_comma": lambda rng: {},
    "detectable_format:json_format": lambda rng: {},
    "startend:quotation": lambda rng: {},
}
"""Arguments of each instruction; in the order in which an answer is changed to follow them."""


def _cut_words(text: str, most: int) -> str:
    return " ".join(text.split()[:most])


def _removed(text: str, words: list[str]) -> str:
    return re.sub("|".join(map(re.escape, words)), "thing", text, flags=re.IGNORECASE)


def _pieces(text: str, many: int) -> list[str]:
    lines = text.split(". ") or [text]
    return [lines[at % len(lines)].strip(". ") + "." for at in range(many)]


def _at_least(args: Args, key: str = "relation") -> bool:
    return args[key] == "at least"


FOLLOW: dict[str, Callable[[str, Args], str]] = {
    "language:response_language": lambda text, args: LANGUAGES[args["language"]],
    "detectable_format:constrained_response": lambda text, args: "My answer is maybe.",
    "length_constraints:number_sentences": lambda text, args: (
        text + " It is so." * args["num_sentences"]
        if _at_least(args)
        else " ".join(f"It is day {n}." for n in range(args["num_sentences"] - 1))
    ),
    "length_constraints:number_words": lambda text, args: (
        text + " and so on" * args["num_words"] if _at_least(args) else _cut_words(text, args["num_words"] * 2 // 3)
    ),
    "length_constraints:number_paragraphs": lambda text, args: "\n***\n".join(_pieces(text, args["num_paragraphs"])),
    "length_constraints:nth_paragraph_first_word": lambda text, args: "\n\n".join(
        (args["first_word"].title() + ", " if at == args["nth_paragraph"] else "") + piece
        for at, piece in enumerate(_pieces(text, args["num_paragraphs"]), 1)
    ),
    "detectable_format:multiple_sections": lambda text, args: "\n".join(
        f"{args['section_spliter']} {at}\n{piece}" for at, piece in enumerate(_pieces(text, args["num_sections"]), 1)
    ),
    "keywords:existence": lambda text, args: f"{text} {' '.join(args['keywords'])}.",
    "keywords:frequency": lambda text, args: (
        text + f" The {args['keyword']}." * args["frequency"] if _at_least(args) else _removed(text, [args["keyword"]])
    ),
    "keywords:forbidden_words": lambda text, args: _removed(text, args["forbidden_words"]),
    "keywords:letter_frequency": lambda text, args: (
        f"{text} {args['letter'] * args['let_frequency']}"
        if _at_least(args, "let_relation")
        else re.sub(args["letter"], "", text, flags=re.IGNORECASE)
    ),
    "detectable_content:number_placeholders": lambda text, args: text + " [name]" * args["num_placeholders"],
    "detectable_format:number_bullet_lists": lambda text, args: text + "\n* a point" * args["num_bullets"],
    "detectable_format:number_highlighted_sections": lambda text, args: text + " *a part*" * args["num_highlights"],
    "change_case:capital_word_frequency": lambda text, args: (
        text + " LOUD" * args["capital_frequency"] if _at_least(args, "capital_relation") else text.lower()
    ),
    "detectable_content:postscript": lambda text, args: f"{text}\n\n{args['postscript_marker']} Bring bread.",
    "combination:two_responses": lambda text, args: f"{text}\n******\nAnother one: {text}",
    "startend:end_checker": lambda text, args: f"{text}\n{args['end_phrase']}",
    "combination:repeat_prompt": lambda text, args: f"{args['prompt_to_repeat']}\n{text}",
    "detectable_format:title": lambda text, args: f"<<A day at the market>>\n{text}",
    "change_case:english_capital": lambda text, args: text.upper(),
    "change_case:english_lowercase": lambda text, args: text.lower(),
    "punctuation:no_comma": lambda text, args: text.replace(",", ""),
    "detectable_format:json_format": lambda text, args: json.dumps({"answer": text}, indent=2),
    "startend:quotation": lambda text, args: f'"{text}"',
}

CHANGES: dict[str, Callable[[str], str]] = {
    "the last word cut": lambda text: text.rpartition(" ")[0],
    "the first line cut": lambda text: text.partition("\n")[2],
    "the last line cut": lambda text: text.rpartition("\n")[0],
    "half of it": lambda text: text[: len(text) // 2],
    "twice": lambda text: f"{text}\n\n{text}",
    "a preface": lambda text: f"Sure! Here you are:\n\n{text}",
    "a closing line": lambda text: f"{text}\n\nI hope that this helps, friend!",
    "a word more": lambda text: f"{text} bridge",
    "a sentence more": lambda text: f"{text} It is so, after all.",
    "a paragraph more": lambda text: f"{text}\n\nIt is so.",
    "upper case": str.upper,
    "lower case": str.lower,
    "title case": str.title,
    "in bold": lambda text: f"**{text}**",
    "bold lines": lambda text: "\n".join(f"**{line}**" for line in text.split("\n")),
    "no asterisks": lambda text: text.replace("*", ""),
    "asterisks doubled": lambda text: text.replace("*", "**"),
    "other bullets": lambda text: text.replace("\n* ", "\n  - ").replace("\n", "\n• ", 1),
    "a list of dashes": lambda text: "- " + text.replace("\n", "\n- "),
    "a code fence": lambda text: f"```\n{text}\n```",
    "a fence of JSON": lambda text: f"```json\n{text}\n```",
    "a fence without end": lambda text: f"```JSON\n{text}",
    "as JSON": lambda text: json.dumps({"text": text}),
    "as a text of JSON": json.dumps,
    "a number": lambda text: "42",
    "in quotes": lambda text: f'"{text}"',
    "in curly quotes": lambda text: f"“{text}”",
    "in single quotes": lambda text: f"'{text}'",
    "in brackets": lambda text: f"[{text}]",
    "empty brackets": lambda text: f"{text} [] << >> ** **",
    "brackets over lines": lambda text: f"{text} [a\nb] <<a\nb>> *a\nb*",
    "spaces around": lambda text: f"\n  {text} \t\n",
    "lines doubled": lambda text: text.replace("\n", "\n\n"),
    "lines joined": lambda text: text.replace("\n", " "),
    "ends of lines of Windows": lambda text: text.replace("\n", "\r\n"),
    "no full stops": lambda text: text.replace(".", ""),
    "more full stops": lambda text: text.replace(".", "..."),
    "commas of other scripts": lambda text: text.replace(",", "") + "、 ， ؛",
    "a comma more": lambda text: f"{text},",
    "words joined": lambda text: text.replace(" ", "-"),
    "a word within a word": lambda text: re.sub(r"\b(river|bread|copper|garden|letter)\b", r"\1s", text),
    "divider at the ends": lambda text: f"***\n{text}\n***",
    "divider in the middle": lambda text: f"{text}\n***\n***\n{text}",
    "six asterisks": lambda text: f"{text}\n******\n{text}",
    "a postscript inside": lambda text: f"p. s. well\n{text}\np.p.s. so",
    "signs alone": lambda text: "*** ... !!! [] <<>>",
    "one sign": lambda text: "x",
    "zero width": lambda text: text.replace(" ", " \u200b"),
    "no-break spaces": lambda text: text.replace(" ", "\u00a0"),
    "accents": lambda text: text.replace("e", "é"),
    "a table": lambda text: f"| a | b |\n|---|---|\n| {text[:40]} | 1 |",
    "a heading": lambda text: f"# Market\n\n## Section 1\n{text}",
    "no spaces at the ends": str.strip,
    **{f"in {name}": lambda text, other=other: other for name, other in LANGUAGES.items()},
    "two languages": lambda text: f"{text} {LANGUAGES['de']}",
}
"""What is done to an answer that was made to follow all instructions."""


class Case(NamedTuple):
    """An answer as a model writes it; `said` is what of it is no thought."""

    kind: str
    answer: str
    said: str


class Row(NamedTuple):
    """A document as the benchmark has it, and answers to it."""

    doc: dict[str, Any]
    cases: list[Case]


def made(wanted: dict[str, Args], base: str) -> str:
    """A text that follows instructions, as far as one can be had."""
    for name, args in wanted.items():
        base = FOLLOW[name](base, args)
    return base


def _off_by_one(wanted: dict[str, Args], by: int) -> dict[str, Args]:
    return {
        name: {
            key: max(value + by, 1) if type(value) is int and key != "nth_paragraph" else value for key, value in args.items()
        }
        for name, args in wanted.items()
    }


def cases_of(wanted: dict[str, Args], rng: random.Random, changes: int) -> Iterator[Case]:
    """Answers to a row: `changes` of `CHANGES` among them."""
    base = " ".join(rng.sample(SENTENCES, rng.randint(3, 6)))
    right = made(wanted, base)
    yield Case("as made", right, right)
    yield Case("none followed", base, base)
    for name in wanted if len(wanted) > 1 else ():
        text = made({other: args for other, args in wanted.items() if other != name}, base)
        yield Case("one not followed", text, text)
    for by in (-1, 1):
        text = made(_off_by_one(wanted, by), base)
        yield Case("numbers off by one", text, text)
    thought = "Well, I need FIVE words, [x], *y*.\n\n* a point\n******\nP.S. so"
    yield Case("a thought before", f"<think>\n{thought}\n</think>\n\n{right}", right.lstrip())
    yield Case("an empty thought before", f"<think>\n\n</think>\n\n{right}", right.lstrip())
    yield rng.choice(
        (
            Case("a thought's end alone", f"{thought}\n</think>\n\n{right}", right.lstrip()),
            Case("a thought without end", f"<think>\n{right}", ""),
            Case("all in a thought", f"<think>{right}</think>", ""),
        )
    )
    yield rng.choice((Case("empty", "", ""), Case("blank", " \n\t", " \n\t")))
    for kind in rng.sample(sorted(CHANGES), changes):
        text = CHANGES[kind](right)
        yield Case(kind, text, text)


def rows_of(registry: Any, each: int, combined: int, changes: int, rng: random.Random) -> list[Row]:
    """`each` rows of every instruction of the official registry, `combined` of two and of three that don't conflict there."""
    conflicts = registry.conflict_make({name: set(others) for name, others in registry.INSTRUCTION_CONFLICTS.items()})
    names = [name for name in ARGUMENTS if name in registry.INSTRUCTION_DICT]
    chosen = [(name,) for name in names for _ in range(each)]
    for many in (2, 3):
        found: list[tuple[str, ...]] = []
        while len(found) < combined:
            some = tuple(sorted(rng.sample(names, many), key=names.index))
            if not any(other in conflicts[one] for one in some for other in some if one != other):
                found.append(some)
        chosen += found
    rows = []
    for number, some in enumerate(chosen):
        wanted = {name: ARGUMENTS[name](rng) for name in some}
        told = []
        for name, args in wanted.items():
            one = registry.INSTRUCTION_DICT[name](name)
            told.append(one.build_description(**args))
            assert (one.get_instruction_args() or {}).keys() == args.keys(), name
        prompt = " ".join((f"Case {number}: write about the {rng.choice(WORDS)}.", *told))
        doc = {"key": number, "prompt": prompt, "instruction_id_list": list(some), "kwargs": list(wanted.values())}
        rows.append(Row(doc, list(cases_of(wanted, rng, changes))))
    return rows
