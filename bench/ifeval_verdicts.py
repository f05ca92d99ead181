"""Verdicts of `lm_eval:ifeval` and the scorer `lm_eval` against the official verifiers, and of the scorer `constraints` where it checks the same.

    NLTK_DATA=FOLDER python -m bench.ifeval_verdicts [--google PYTHON] [--seed 1] [--each 4] [--combined 50] [--changes 9] [--show 10]

Ours goes the way of a run: the rows are written by `lm_eval:ifeval`, each answer is what a model would have generated, and `lamdatui.step.evaluate` scores it. The
benchmark's questions are on a hub, so that rows of their form are made here (`bench.ifeval_answers`), for each of the 25 instructions. Theirs is
lm-evaluation-harness's `process_results`, called in a process of its own. PYTHON is the interpreter of an environment that has Google's code itself
(`pip install --no-deps if-verifiable==0.1.2`, and langdetect, nltk, immutabledict), a third opinion. FOLDER holds NLTK's `punkt_tab`.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.ifeval_answers import Args, Case, Row, rows_of
from lamdatui.base.errors import LamdatuiError
from lamdatui.catalogue.lm_eval import build
from lamdatui.inputs.taskfiles import load_task
from lamdatui.step.evaluate import evaluate
from lamdatui.step.generate import Answer, Sampling
from lamdatui.tasks.constraints import satisfied

METRICS = ("prompt_level_strict_acc", "prompt_level_loose_acc")
NO_NUMBER = ("inst_level_strict_acc", "inst_level_loose_acc")
"""A list for each row, which no score is."""
REPEATS = 3
HARNESS = r"""
import json, sys
import langdetect
from lm_eval.tasks.ifeval.utils import process_results
given = json.load(sys.stdin)

def told(doc, said):
    found = process_results(given["docs"][doc], [said])
    return [found[name] for name in ("prompt_level_strict_acc", "prompt_level_loose_acc", "inst_level_strict_acc")]

drawn = [[told(*pair) for _ in range(given["repeats"])] for pair in given["pairs"]]
langdetect.DetectorFactory.seed = 0
json.dump({"verdicts": [told(*pair) for pair in given["pairs"]], "vary": [any(one != each[0] for one in each) for each in drawn]}, sys.stdout)
"""
GOOGLE = r"""
import importlib.util, json, sys, types
# The package's own front imports more than the verifiers need.
front = types.ModuleType("if_verifiable")
front.__path__ = list(importlib.util.find_spec("if_verifiable").submodule_search_locations)
sys.modules["if_verifiable"] = front
import langdetect
from if_verifiable.ifeval.instructions_registry import INSTRUCTION_DICT
langdetect.DetectorFactory.seed = 0
given = json.load(sys.stdin)

def told(doc, said):
    row = given["docs"][doc]
    lines = said.split("\n")
    cut = [said, *("\n".join(part).strip() for part in (lines[1:], lines[:-1], lines[1:-1]))]
    texts = [*cut, *(one.replace("*", "") for one in cut)]
    strict, loose = [], []
    for name, args in zip(row["instruction_id_list"], row["kwargs"]):
        one = INSTRUCTION_DICT[name](name)
        one.build_description(**{key: value for key, value in args.items() if value is not None})
        strict.append(bool(said.strip() and one.check_following(said)))
        loose.append(any(bool(text.strip() and one.check_following(text)) for text in texts))
    return [all(strict), all(loose), strict]

json.dump({"verdicts": [told(*pair) for pair in given["pairs"]]}, sys.stdout)
"""


class Canned:
    """Answers that are given beforehand, by question."""

    def __init__(self, answers: dict[str, str]) -> None:
        self.said = answers

    def answers(self, conversations: Sequence[Any], how: Sampling, **_: Any) -> list[list[Answer]]:
        """As `lamdatui.step.generators.Generator`."""
        return [[Answer(self.said[one], True)] for one in conversations]

    def close(self) -> None:
        """Nothing is held."""


def asked(python: str, program: str, sent: dict[str, Any]) -> dict[str, Any]:
    """What a program says to what it is sent. Raises SystemExit with its last words."""
    done = subprocess.run([python, "-c", program], input=json.dumps(sent), capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr[-2000:])
    return json.loads(done.stdout.splitlines()[-1])


def write_questions(rows: list[Row], folder: Path) -> None:
    """A folder that the library datasets takes for the hub's, where it is the working folder."""
    place = folder / "google" / "IFEval"
    place.mkdir(parents=True)
    (place / "train.jsonl").write_text("".join(json.dumps(row.doc) + "\n" for row in rows))


def ours(rows: list[Row], metric: str) -> dict[tuple[int, int], float]:
    """(row, answer) → the score that a run would give."""
    task = load_task("ifeval", build(f"lm_eval:ifeval?metric={metric}"), "lm_eval", 1280, {})
    having = {row.doc["key"]: row for row in rows}
    found: dict[tuple[int, int], float] = {}
    for turn in range(max(len(row.cases) for row in rows)):
        answers = {row.doc["prompt"]: row.cases[min(turn, len(row.cases) - 1)].answer for row in rows}
        for split, asked_for in task.rows.items():
            # No row needs a tokenizer: all are asked in plain text.
            value = evaluate(Canned(answers), None, task.request("k", split), lambda **_: None)
            for row, scored in zip(asked_for, value["rows"], strict=True):
                key = row["reference"]["doc"]["key"]
                if turn < len(having[key].cases):
                    found[key, turn] = scored["score"]
    return found


def refused(metric: str) -> bool:
    """Whether a metric is refused before anything is generated."""
    try:
        build(f"lm_eval:ifeval?metric={metric}")
    except LamdatuiError as error:
        return "no score of one row" in error.what
    return False


def counterparts(name: str, args: Args) -> list[tuple[dict[str, Any], list[tuple[str, Args]]]]:
    """Constraints of the scorer `constraints` that ask what an instruction asks, with all that has to hold of IFEval's."""
    kind, same = name.partition(":")[2], [(name, args)]
    if kind == "number_words":
        most = args["num_words"]
        at_least, less = [(name, {"num_words": n, "relation": how}) for n, how in ((most, "at least"), (most + 1, "less than"))]
        return [({"kind": "min_words", "count": most}, [at_least]), ({"kind": "max_words", "count": most}, [less])]
    if kind == "number_sentences":
        most = args["num_sentences"]
        both = [(name, {"num_sentences": n, "relation": how}) for n, how in ((most, "at least"), (most + 1, "less than"))]
        return [({"kind": "sentences", "count": most}, both)]
    if kind == "frequency":
        least = {**args, "relation": "at least"}
        return [({"kind": "frequency", "word": args["keyword"], "count": args["frequency"]}, [(name, least)])]
    simple: dict[str, dict[str, Any]] = {
        "number_bullet_lists": {"kind": "bullets", "count": args.get("num_bullets")},
        "existence": {"kind": "include", "words": args.get("keywords")},
        "forbidden_words": {"kind": "forbid", "words": args.get("forbidden_words")},
        "end_checker": {"kind": "end_with", "phrase": args.get("end_phrase")},
        "english_lowercase": {"kind": "lowercase"},
        "english_capital": {"kind": "uppercase"},
        "no_comma": {"kind": "no_commas"},
        "quotation": {"kind": "quoted"},
        "json_format": {"kind": "json"},
        "title": {"kind": "title"},
        "repeat_prompt": {"kind": "repeat", "text": args.get("prompt_to_repeat")},
        "two_responses": {"kind": "two_responses"},
        "number_placeholders": {"kind": "placeholders", "count": args.get("num_placeholders")},
    }
    if kind == "postscript" and args["postscript_marker"] == "P.S.":
        return [({"kind": "postscript"}, same)]
    return [(simple[kind], same)] if kind in simple else []


def own_constraints(rows: list[Row], show: int) -> None:
    """The scorer `constraints` against the harness's verifiers, by kind of constraint: on the answers to all rows of the instruction."""
    docs, pairs, wanted = [], [], []
    for row in rows:
        for name, args in zip(row.doc["instruction_id_list"], row.doc["kwargs"], strict=True):
            for constraint, others in counterparts(name, args):
                docs.append(
                    {
                        "key": 0,
                        "prompt": "",
                        "instruction_id_list": [one for one, _ in others],
                        "kwargs": [given for _, given in others],
                    }
                )
                for case in row.cases:
                    pairs.append((len(docs) - 1, case.said))
                    wanted.append((constraint, case))
    theirs = asked(sys.executable, HARNESS, {"docs": docs, "pairs": pairs, "repeats": 0})["verdicts"]
    counts: dict[str, Counter[str]] = {}
    apart: dict[str, list[str]] = {}
    for (constraint, case), (strict, _, _) in zip(wanted, theirs, strict=True):
        ours_says = satisfied(constraint, case.said)
        counts.setdefault(constraint["kind"], Counter()).update(
            n=1, agree=ours_says == strict, ours=ours_says and not strict, theirs=strict and not ours_says
        )
        if ours_says != strict:
            args = {key: value for key, value in constraint.items() if key != "kind"}
            text = f"ours {ours_says}, {case.kind}, {args}: {case.said[:120]!r}"
            apart.setdefault(constraint["kind"], []).append(text)
    print(f"\n{'constraint':16} {'n':>6} {'agree':>6} {'ours alone':>10} {'theirs alone':>12}")
    for kind, count in [*sorted(counts.items()), ("all", sum(counts.values(), Counter()))]:
        print(f"{kind:16} {count['n']:6} {count['agree']:6} {count['ours']:10} {count['theirs']:12}")
    for kind, texts in sorted(apart.items()):
        for text in texts[:show]:
            print(f"  {kind}: {text}")


def main() -> int:
    """Print the tables; 1 when a verdict is another."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--google", metavar="PYTHON", default="")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--each", type=int, default=4, help="rows of each instruction")
    parser.add_argument("--combined", type=int, default=50, help="rows of two instructions, and of three")
    parser.add_argument("--changes", type=int, default=9, help="changes of an answer that follows, a row")
    parser.add_argument("--show", type=int, default=10, help="disagreements to print")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        os.environ |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "LAMDATUI_HOME": scratch, "HF_HOME": scratch}
        os.chdir(scratch)
        return compare(options, Path(scratch))


def compare(options: argparse.Namespace, folder: Path) -> int:
    """The bench itself, in a folder of its own."""
    from lm_eval.tasks.ifeval import instructions_registry

    rows = rows_of(instructions_registry, options.each, options.combined, options.changes, random.Random(options.seed))
    write_questions(rows, folder)
    places = [(row.doc["key"], at) for row in rows for at in range(len(row.cases))]
    cases: list[Case] = [case for row in rows for case in row.cases]
    pairs = [(key, rows[key].cases[at].said) for key, at in places]
    sent = {"docs": [row.doc for row in rows], "pairs": pairs, "repeats": REPEATS}
    theirs = asked(sys.executable, HARNESS, sent)
    google = asked(options.google, GOOGLE, sent)["verdicts"] if options.google else []
    by_metric = [ours(rows, metric) for metric in METRICS]
    counts: dict[str, Counter[str]] = {}
    instructions: dict[str, Counter[str]] = {}
    shown = 0
    for at, (place, case) in enumerate(zip(places, cases, strict=True)):
        told = theirs["verdicts"][at]
        mine = [found[place] == 1.0 for found in by_metric]
        agree = mine == told[:2]
        third = not google or google[at] == told
        counts.setdefault(case.kind, Counter()).update(
            n=1, agree=agree, strict=told[0], loose=told[1], third=bool(google) and third, vary=theirs["vary"][at]
        )
        for name, followed in zip(rows[place[0]].doc["instruction_id_list"], told[2], strict=True):
            instructions.setdefault(name, Counter()).update(n=1, followed=followed)
        if not (agree and third) and shown < options.show:
            shown += 1
            print(
                f"row {place[0]} {rows[place[0]].doc['instruction_id_list']}, {case.kind}: ours {mine}, theirs {told}, {case.said[:200]!r}"
            )
    print(f"{'answer':28} {'n':>6} {'agree':>6} {'google':>6} {'strict':>6} {'loose':>6} {'vary':>5}")
    total = sum(counts.values(), Counter())
    for kind, count in [*counts.items(), ("all", total)]:
        print(
            f"{kind:28} "
            + " ".join(f"{count[name]:6}" for name in ("n", "agree", "third", "strict", "loose"))
            + f" {count['vary']:5}"
        )
    print(f"\n{'instruction':44} {'n':>6} {'followed':>8}")
    for name, count in sorted(instructions.items()):
        print(f"{name:44} {count['n']:6} {count['followed']:8}")
    print(f"rows {len(rows)}, pairs {total['n']}, agreeing {total['agree']}, disagreements {total['n'] - total['agree']}")
    asked_google = f"{total['third']} of {total['n']} as the harness" if google else "not asked"
    print(f"Google's own code: {asked_google}")
    print(f"the harness's verdicts that vary between {REPEATS} calls, without a seed: {total['vary']}")
    print(f"metrics refused, for they are lists: {', '.join(name for name in NO_NUMBER if refused(name)) or 'none'}")
    own_constraints(rows, options.show)
    return 0 if total["agree"] == total["n"] and (not google or total["third"] == total["n"]) else 1


if __name__ == "__main__":
    sys.exit(main())
