"""The same model on the same benchmarks, by lm-evaluation-harness itself and by lamdatui: scores row by row, and seconds.

    python -m bench.lm_eval_scores [--model FOLDER] [--rows N] [--shots K]

The tasks are YAML files of the harness's own kinds (each output type; choices of one letter, of several words, that differ in what stands before them) over
files that are written here.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

NAMES = ("Ada", "Ben", "Cleo", "Dan", "Eve", "Finn", "Gus", "Hana")
THINGS = ("apples", "books", "coins", "pens", "stones", "tickets")
TASKS: dict[str, str] = {
    "generate_until": """task: {name}
dataset_path: json
dataset_kwargs: {{ data_files: {{ train: train.jsonl, test: test.jsonl }} }}
output_type: generate_until
training_split: train
fewshot_split: train
test_split: test
num_fewshot: {shots}
doc_to_text: "Question: {{{{question}}}}\\nAnswer:"
doc_to_target: "{{{{answer}}}}"
generation_kwargs: {{ until: ["Question:", "\\n\\n"], do_sample: false, temperature: 0.0, max_gen_toks: 32 }}
filter_list:
  - name: strict-match
    filter: [{{ function: regex, regex_pattern: "#### (\\\\-?[0-9\\\\.\\\\,]+)" }}, {{ function: take_first }}]
  - name: flexible-extract
    filter: [{{ function: regex, group_select: -1, regex_pattern: "(-?[$0-9.,]{{2,}})|(-?[0-9]+)" }}, {{ function: take_first }}]
metric_list:
  - {{ metric: exact_match, aggregation: mean, higher_is_better: true, ignore_case: true, ignore_punctuation: false, regexes_to_ignore: [",", "\\\\$", "(?s).*#### ", "\\\\.$"] }}
""",
    "multiple_choice_letters": """task: {name}
dataset_path: json
dataset_kwargs: {{ data_files: {{ train: train.jsonl, test: test.jsonl }} }}
output_type: multiple_choice
fewshot_split: train
test_split: test
num_fewshot: {shots}
fewshot_config: {{ sampler: first_n }}
description: "The following are multiple choice questions (with answers).\\n\\n"
doc_to_text: "{{{{question.strip()}}}}\\nA. {{{{choices[0]}}}}\\nB. {{{{choices[1]}}}}\\nC. {{{{choices[2]}}}}\\nD. {{{{choices[3]}}}}\\nAnswer:"
doc_to_choice: ["A", "B", "C", "D"]
doc_to_target: gold
metric_list: [{{ metric: acc, aggregation: mean, higher_is_better: true }}]
""",
    "multiple_choice_texts": """task: {name}
dataset_path: json
dataset_kwargs: {{ data_files: {{ train: train.jsonl, test: test.jsonl }} }}
output_type: multiple_choice
training_split: train
test_split: test
num_fewshot: {shots}
doc_to_text: "Question: {{{{question}}}}\\nAnswer:"
doc_to_choice: "{{{{sentences}}}}"
doc_to_target: gold
metric_list:
  - {{ metric: acc_norm, aggregation: mean, higher_is_better: true }}
  - {{ metric: acc, aggregation: mean, higher_is_better: true }}
""",
    "multiple_choice_contexts": """task: {name}
dataset_path: json
dataset_kwargs: {{ data_files: {{ train: train.jsonl, test: test.jsonl }} }}
output_type: multiple_choice
training_split: train
test_split: test
doc_to_text: "{{{{place}}}}"
doc_to_choice: '{{{{["The answer is " + choices[0] + " and", "The answer is " + choices[1] + " and"]}}}}'
doc_to_target: "that is what {{{{who}}}} said."
metric_list: [{{ metric: acc, aggregation: mean, higher_is_better: true }}]
""",
    "loglikelihood": """task: {name}
dataset_path: json
dataset_kwargs: {{ data_files: {{ train: train.jsonl, test: test.jsonl }} }}
output_type: loglikelihood
test_split: test
doc_to_text: "{{{{story.split(' ')[:-1]|join(' ')}}}}"
doc_to_target: "{{{{' '+story.split(' ')[-1]}}}}"
metric_list: [{{ metric: acc, aggregation: mean, higher_is_better: true }}]
""",
    "loglikelihood_rolling": """task: {name}
dataset_path: json
dataset_kwargs: {{ data_files: {{ train: train.jsonl, test: test.jsonl }} }}
output_type: loglikelihood_rolling
test_split: test
doc_to_text: ""
doc_to_target: "{{{{story}}}}"
metric_list: [{{ metric: bits_per_byte }}]
""",
}


def document(number: int) -> dict[str, Any]:
    """A made question with what each kind of task needs of it."""
    rng = random.Random(f"lm-eval/{number}")
    who, other = rng.sample(NAMES, 2)
    thing, a, b = rng.choice(THINGS), rng.randint(2, 60), rng.randint(2, 60)
    gold = rng.randrange(4)
    wrong = rng.sample([n for n in range(4, 130) if n != a + b], 4)
    choices = [str(a + b if place == gold else wrong[place]) for place in range(4)]
    question = f"{who} has {a} {thing} and {other} gives {who} {b} more. How many {thing} does {who} have now? (case {number})"
    story = f"{who} met {other} in the market. {other} carried {a} {thing} and {who} carried {b} {thing}. At last {other} said goodbye to {who}"
    return {
        "question": question,
        "answer": f"{a} and {b} make {a + b}. #### {a + b}",
        "choices": choices,
        "sentences": [f"{who} has {one} {thing} now" for one in choices],
        "gold": gold,
        "place": str(gold % 2),
        "who": who,
        "story": story,
    }


def write_tasks(folder: Path, rows: int, shots: int) -> list[Path]:
    """The YAML files and their data."""
    for name, numbers in (("train", range(rows, rows + 40)), ("test", range(rows))):
        (folder / f"{name}.jsonl").write_text("\n".join(json.dumps(document(number)) for number in numbers) + "\n")
    found = []
    for name, text in TASKS.items():
        found.append(folder / f"{name}.yaml")
        found[-1].write_text(text.format(name=name, shots=shots))
    return found


def by_harness(model: Any, tokenizer: Any, path: Path) -> tuple[dict[str, dict[str, Any]], float]:
    """Document (as JSON) → the harness's metrics of each filter; seconds of the whole evaluation."""
    from lm_eval.evaluator import simple_evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager
    from lm_eval.tasks._yaml_loader import load_yaml

    config = load_yaml(path)
    files = config["dataset_kwargs"]["data_files"]
    config["dataset_kwargs"]["data_files"] = {split: str(path.parent / one) for split, one in files.items()}
    manager = TaskManager(include_defaults=False)  # reading the harness's own 14,000 files is no work of the model
    began = time.monotonic()
    make: Any = HFLM
    lm = make(pretrained=model, tokenizer=tokenizer, batch_size=16, max_length=model.config.max_position_embeddings)
    told: Any = simple_evaluate(model=lm, tasks=[config], log_samples=True, bootstrap_iters=0, task_manager=manager)
    seconds = time.monotonic() - began
    found: dict[str, dict[str, Any]] = {}
    for sample in told["samples"][config["task"]]:
        found.setdefault(json.dumps(sample["doc"], sort_keys=True), {})[sample["filter"]] = sample
    return found, seconds


def by_lamdatui(
    model: Any, tokenizer: Any, path: Path, batch_tokens: int = 8192
) -> tuple[list[tuple[dict[str, Any], dict[str, Any]]], float]:
    """(task row, scored row) of both splits; seconds of the evaluation."""
    from lamdatui.catalogue.lm_eval import build
    from lamdatui.inputs.taskfiles import load_task
    from lamdatui.step.evaluate import evaluate
    from lamdatui.step.generators import TransformersGenerator

    task = load_task(path.stem, build(f"lm_eval:{path}"), "lm_eval", 32, {})
    generator = TransformersGenerator(model, tokenizer, batch_tokens)
    found = []
    began = time.monotonic()
    for split in ("search", "sealed"):
        held = model.config.max_position_embeddings
        value = evaluate(generator, tokenizer, task.request("k", split), lambda **_: None, positions=held)
        found += list(zip(task.rows[split], value["rows"], strict=True))
    return found, time.monotonic() - began


def compare(model: Any, tokenizer: Any, path: Path) -> dict[str, Any]:
    """Both on one task: means, rows that differ, seconds."""
    from lamdatui.tasks.lm_eval import scaled

    ours, our_seconds = by_lamdatui(model, tokenizer, path)
    theirs, their_seconds = by_harness(model, tokenizer, path)
    pairs = []
    for row, scored in ours:
        reference = row["reference"]
        sample = theirs[json.dumps(reference["doc"], sort_keys=True)][reference["filter"]]
        pairs.append((scored["score"], scaled(sample[reference["metric"]], str(reference["task"]["output_type"]))))
    return {
        "task": path.stem,
        "n": len(pairs),
        "ours": sum(one for one, _ in pairs) / len(pairs),
        "theirs": sum(other for _, other in pairs) / len(pairs),
        "differ": sum(abs(one - other) > 1e-5 for one, other in pairs),
        "our_seconds": our_seconds,
        "their_seconds": their_seconds,
    }


def main() -> None:
    """Print a line a task."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default="")
    parser.add_argument("--rows", type=int, default=60)
    parser.add_argument("--shots", type=int, default=5)
    options = parser.parse_args()
    os.environ |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "TQDM_DISABLE": "1", "LMEVAL_LOG_LEVEL": "ERROR"}
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from lamdatui.inputs.workspace import locate

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    folder = str(locate(options.model or "catalogue:smollm2-135m"))
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    with tempfile.TemporaryDirectory() as scratch:
        for path in write_tasks(Path(scratch), options.rows, options.shots):
            one = compare(model, tokenizer, path)
            sys.stdout.write(
                f"{one['task']:26} n {one['n']:4}  lamdatui {one['ours']:.4f}  lm-eval {one['theirs']:.4f}  rows that differ {one['differ']}  "
                f"seconds {one['our_seconds']:.1f} / {one['their_seconds']:.1f} = {one['our_seconds'] / one['their_seconds']:.2f}\n"
            )
            sys.stdout.flush()


if __name__ == "__main__":
    main()
