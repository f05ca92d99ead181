"""The questions of a benchmark as lm-evaluation-harness writes them: a process of its own, for its imports are large and it prints as it likes.

Takes a spec as JSON, prints one line: `{"rows", "notes"}`, or `{"error", "fix"}`.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import re
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lamdatui.base.errors import LamdatuiError
from lamdatui.base.network import OFF, fence
from lamdatui.catalogue.lm_eval import Spec, data_file
from lamdatui.tasks.lm_eval import RATED, config_of, judged, package, refuse_code, sandboxed

SHARE = 25
"""Percent of the questions that are of the search split."""
SEED = 1234
"""Of the examples before a question: the harness's own."""


def main(text: str) -> None:
    """Print the rows of a spec."""
    spec = Spec(**json.loads(text))
    with contextlib.redirect_stdout(io.StringIO()):
        try:
            told = _rows(spec)
        except LamdatuiError as error:
            told = {"error": error.what + (f" ({error.where})" if error.where else ""), "fix": error.fix}
        except ConnectionError as error:
            told = {"error": f"can't reach its data: {error}", "fix": "", "unreachable": True}
        except Exception as error:  # noqa: BLE001 (whatever the harness stumbles over is told in one line)
            words = next(iter(str(error).splitlines()), "")
            told = {"error": f"{type(error).__name__}: {words}", "fix": ""}
    print(json.dumps(told))  # in ASCII: a line is a line to whoever reads it


def _rows(spec: Spec) -> dict[str, Any]:
    sandboxed()
    wanted = {"search": spec.search, "sealed": spec.sealed}
    found: dict[str, list[tuple[str, dict[str, Any]]]] = {"search": [], "sealed": []}
    notes, counts = [], defaultdict(int)
    for name, source, task in _tasks(spec):
        metric, chosen = _metric(task, spec, name)
        for row, question in _task_rows(task, name, source, metric, chosen, spec):
            place = hashlib.sha256(f"lm_eval:{' '.join(question.lower().split())}".encode()).digest()
            found["search" if int.from_bytes(place[:8], "big") % 100 < SHARE else "sealed"].append((place.hex(), row))
            counts[name] += 1
        info = next(iter(task.dataset.values())).info
        notes.append(
            f"{name}: {counts[name]} documents, {metric} of {chosen}; licence of the data: {info.license or 'not told'}"
        )
    rows = []
    for split, having in found.items():
        kept = [row for _, row in sorted(having, key=lambda item: item[0])[: wanted[split]]]
        if not kept or (len(kept) < wanted[split] and spec.asked):
            raise LamdatuiError(
                f"{spec.name} has {len(kept)} {split} rows, not {wanted[split]}", fix=f"ask for {split}={len(kept)} or fewer"
            )
        rows += [{**row, "split": split} for row in kept]
    return {"rows": [{"id": place, **row} for place, row in enumerate(rows)], "notes": notes}


def _tasks(spec: Spec) -> Iterator[tuple[str, str | dict[str, Any], Any]]:
    """Name, what the scorer is to know of it, and the task itself."""
    from lm_eval.api.task import ConfigurableTask
    from lm_eval.tasks import TaskManager
    from lm_eval.tasks._yaml_loader import load_yaml

    more = {"num_fewshot": spec.shots} if spec.shots is not None else {}
    if spec.file is not None:
        config = {**load_yaml(spec.file, resolve_func=False), **more}
        refuse_code(config)
        files = (config.get("dataset_kwargs") or {}).get("data_files")
        if isinstance(files, dict):
            config["dataset_kwargs"]["data_files"] = {split: _placed(one, spec.file) for split, one in files.items()}
        elif files is not None:
            config["dataset_kwargs"]["data_files"] = _placed(files, spec.file)
        config.setdefault("task", spec.file.stem)
        kept = {key: config[key] for key in JUDGED if config.get(key) is not None}
        yield config["task"], kept, ConfigurableTask(config=dict(config))
        return
    manager = TaskManager()
    if spec.name not in manager.task_index:
        import difflib

        near = difflib.get_close_matches(spec.name, manager.all_tasks, n=1)
        raise LamdatuiError(
            f"lm-eval has no task {spec.name!r}", fix=f"did you mean {near[0]!r}?" if near else "lm-eval ls tasks lists them"
        )
    for name, task in manager.load([spec.name])["tasks"].items():
        path = manager.task_index[name].yaml_path
        if path is None or type(task) is not ConfigurableTask:
            raise LamdatuiError(f"{name} is a program of lm-eval's, no YAML task: it is not offered")
        if getattr(task, "UNSAFE_CODE", False) or getattr(task, "MULTIMODAL", False):
            raise LamdatuiError(f"{name} runs code that a model wrote, or asks about pictures: it is not offered")
        config_of(str(path.resolve().relative_to(package().resolve())))
        if spec.shots is not None:
            task.set_config("num_fewshot", spec.shots)
        yield name, str(path.resolve().relative_to(package().resolve())), task


JUDGED = (
    "task",
    "output_type",
    "doc_to_text",
    "doc_to_target",
    "doc_to_choice",
    "metric_list",
    "filter_list",
    "target_delimiter",
    "should_decontaminate",
    "doc_to_decontamination_query",
)
"""Of a configuration: what judging an answer may need."""


def _placed(names: Any, task: Path) -> Any:
    return [str(data_file(one, task)) for one in names] if isinstance(names, list) else str(data_file(names, task))


def _metric(task: Any, spec: Spec, name: str) -> tuple[str, str]:
    """The metric and the filter that a row's score is."""
    metrics, filters = list(task._metric_fn_list), [each.name for each in task._filters]
    for asked, known, what in ((spec.metric, metrics, "metric"), (spec.filter, filters, "filter")):
        if asked and asked not in known:
            raise LamdatuiError(f"{name} has no {what} {asked!r}", fix=f"it has: {', '.join(known)}")
    metric = spec.metric or metrics[0]
    if task._higher_is_better.get(metric) is False and task.OUTPUT_TYPE != "loglikelihood_rolling":
        raise LamdatuiError(
            f"{metric} of {name} is the better the lower it is: a score is not", fix=f"name another: metric={'|'.join(metrics)}"
        )
    return metric, spec.filter or filters[0]


def _task_rows(
    task: Any, name: str, source: str | dict[str, Any], metric: str, chosen: str, spec: Spec
) -> Iterator[tuple[dict[str, Any], str]]:
    """Rows without id and split, each with its question's text."""
    task.set_fewshot_seed(SEED)
    # The conversation itself, in place of the text that a model's template makes of it.
    chat = {"apply_chat_template": True, "fewshot_as_multiturn": True, "chat_template": _as_text} if spec.chat else {}
    task.build_all_requests(**chat)
    by_doc: dict[int, list[Any]] = defaultdict(list)
    for instance in task.instances:
        by_doc[instance.doc_id].append(instance)
    shape = [task.multiple_input, task.multiple_target]
    is_tried, by_code = False, task.config.process_results is not None
    for doc_id in sorted(by_doc):
        asked = sorted(by_doc[doc_id], key=lambda instance: instance.idx)
        doc = json.loads(json.dumps(asked[0].doc, default=str))
        text = task.doc_to_text(asked[0].doc)
        question = text if isinstance(text, str) and text.strip() else json.dumps(doc, ensure_ascii=False)
        reference = {"task": source, "doc": doc, "metric": metric, "filter": chosen, "shape": shape, "name": name}
        reference["target"] = _target(task, asked[0].doc)
        if by_code or not is_tried:
            _try(reference, task, len(asked), first=not is_tried)
            is_tried = True
        yield {**_put(task.OUTPUT_TYPE, [one.args for one in asked], question, spec), "reference": reference}, question


def _try(reference: dict[str, Any], task: Any, count: int, *, first: bool) -> None:
    """Score a made answer: a metric that is no number of one row (the `first` tells), or a check that lacks its data, is refused before anything is
    generated. Raises LamdatuiError."""
    answer: Any = [("", -1.0 - place, False) for place in range(count)] if task.OUTPUT_TYPE in RATED else reference["target"]
    try:
        judged(reference, answer)
    except LamdatuiError:
        raise
    except Exception as error:
        if missing := _NLTK.search(str(error)):
            raise LamdatuiError(
                f"{reference['name']} needs NLTK's {missing[1]}, which is not on this machine",
                fix=f"python -m nltk.downloader {missing[1]}",
            ) from error
        if not first:
            return
        told = f"{reference['metric']} of {reference['name']} is no score of one row: {type(error).__name__}: {error}"
        raise LamdatuiError(told[:500], fix="name another: metric=…") from error


_NLTK = re.compile(r"Resource (?:\x1b\[\d+m)?(\w+)(?:\x1b\[0m)? not found")
"""What NLTK says of data that it lacks; an import that could not fetch it is silent."""


def _target(task: Any, doc: Any) -> str:
    """The right answer, for people."""
    found = task.doc_to_target(doc)
    if task.multiple_input:
        found = task.doc_to_text(doc)
    if task.config.doc_to_choice is not None and type(found) is int:
        choices = task.doc_to_choice(doc)
        return str(choices[found]) if 0 <= found < len(choices) else str(found)
    return found if isinstance(found, str) else json.dumps(found, default=str, ensure_ascii=False)


def _as_text(messages: list[dict[str, str]], **_: Any) -> str:
    return json.dumps(messages)


def _put(kind: str, arguments: list[tuple[Any, ...]], question: str, spec: Spec) -> dict[str, Any]:
    """How a document is put to a model: `messages`, and `asking` (`lamdatui.inputs.asking`)."""
    shown = [{"role": "user", "content": question}]
    if kind == "loglikelihood_rolling":
        text = arguments[0][0]
        return {"messages": [{"role": "user", "content": text}], "asking": {"plain": text, "rolling": True}}
    contexts = [one[0] for one in arguments]
    if spec.chat:
        conversations = [json.loads(one) for one in contexts]
        if any(one != conversations[0] for one in conversations) or any(
            turn["role"] == "assistant" for turn in conversations[0][-1:]
        ):
            raise LamdatuiError("this task can't be asked as a conversation", fix="leave out chat")
        shown, asking = conversations[0], {}
    else:
        asking: dict[str, Any] = {"plain": contexts[0]}
    if kind in RATED:
        asking["choices"] = [one[1] for one in arguments]
        if any(one != contexts[0] for one in contexts):
            asking = {"choices": asking["choices"], "contexts": contexts}
    else:
        stops = arguments[0][1].get("until") or []
        asking["until"] = [one for one in ([stops] if isinstance(stops, str) else stops) if one]
    return {"messages": shown, "asking": {key: value for key, value in asking.items() if value}}


if __name__ == "__main__":
    if sys.argv[2] == OFF:
        fence()
    main(sys.argv[1])
