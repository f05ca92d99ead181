"""The scorer `lm_eval`: lm-evaluation-harness judges an answer by its own filters and metrics, so that a score is comparable with what others publish.

A row holds its document and says which task's rules judge it; no dataset is loaded for that. Templates of a task are rendered in jinja2's sandbox: a row
is data, and must not run code.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import json
import math
import random
import re
from pathlib import Path
from typing import Any

from lamdatui.base.errors import LamdatuiError
from lamdatui.tasks.choice import ratings

FIX = "pip install 'lamdatui[lm-eval]'"
RATED = ("multiple_choice", "loglikelihood", "loglikelihood_rolling")
"""Output types whose answers are log-likelihoods."""
KEYS = ("function", "class", "use_prompt", "custom_dataset", "process_docs", "process_results", "doc_to_image", "doc_to_audio")
"""Keys that a task of one's own can't have: they are code, or not text."""
SPLIT = "test"


def package() -> Path:
    """The folder of the package's tasks. Raises LamdatuiError that says how to install it."""
    found = importlib.util.find_spec("lm_eval")
    if found is None or found.origin is None:
        raise LamdatuiError("the package lm-eval is not installed", fix=FIX)
    return Path(found.origin).parent / "tasks"


def sandboxed() -> None:
    """Have the package render templates in a sandbox."""
    from jinja2 import StrictUndefined
    from jinja2.exceptions import SecurityError
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Sandbox(ImmutableSandboxedEnvironment):
        intercepted_binops = frozenset(("**",))

        def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
            # Of two large numbers it takes hours, in one call that no signal ends.
            raise SecurityError(f"a template can't compute {operator}")

    package()
    utils = importlib.import_module("lm_eval.utils")
    if not isinstance(utils.env, ImmutableSandboxedEnvironment):
        env = Sandbox(undefined=StrictUndefined, keep_trailing_newline=True)
        env.filters.update(utils.env.filters)
        vars(utils)["env"] = env


def settled() -> None:
    """Have a text's language told the same each time: langdetect, which IFEval's verifiers ask, draws otherwise."""
    if importlib.util.find_spec("langdetect"):
        importlib.import_module("langdetect").DetectorFactory.seed = 0


def config_of(source: str | dict[str, Any]) -> dict[str, Any]:
    """A task's configuration: one of the package's files by its path within the package's tasks, or a configuration itself, which can't hold code.

    Raises LamdatuiError.
    """
    if isinstance(source, dict):
        refuse_code(source)
        return dict(source)
    folder = package()
    path = (folder / source).resolve()
    if not path.is_relative_to(folder.resolve()) or not path.is_file():
        raise LamdatuiError(
            f"lm-eval has no task file {source}", where=str(folder), fix="make the rows again: lm-eval was changed"
        )
    read = importlib.import_module("lm_eval.tasks._yaml_loader").load_yaml
    plain = read(path, resolve_func=False)
    if plain.get("unsafe_code") or plain.get("class"):
        raise LamdatuiError(f"{source} runs code that a model wrote, or is a program: it is not offered", where=str(path))
    for module in _modules(plain, folder.resolve()):
        if found := _EVALUATES.search(module.read_text(encoding="utf-8", errors="replace")):
            raise LamdatuiError(
                f"{source} is not offered: {module.name} has {found[0].strip()!r}, which may run what is in an answer or in this folder",
                where=str(module),
            )
    if plain.get("process_results") is None:
        _refuse_metrics(plain)
    try:
        return read(path)
    except ImportError as error:
        raise LamdatuiError(
            f"{source} needs more than is installed: {error}"[:500], where=str(path), fix="install what it names"
        ) from error


_EVALUATES = re.compile(
    r"(?<![\w.])(?:eval|exec|compile|__import__)\s*\(|\bimport evaluate\b|\bfrom evaluate\b|parse_expr|sympify|\bsubprocess\.|os\.system|pickle\.loads?\("
)


def _modules(config: Any, folder: Path) -> list[Path]:
    """The Python files of the folders in which the functions are that a configuration names (`/folder/utils.function`), and of those
    that they import from."""
    found: set[Path] = set()

    def take(place: Path) -> None:
        for module in sorted(place.rglob("*.py")) if place.is_dir() and place != folder else []:
            if module not in found:
                found.add(module)
                for name in re.findall(r"lm_eval\.tasks\.(\w+)", module.read_text(encoding="utf-8", errors="replace")):
                    take(folder / name)

    def look(value: Any) -> None:
        if isinstance(value, dict):
            for one in value.values():
                look(one)
        elif isinstance(value, list):
            for one in value:
                look(one)
        elif isinstance(value, str) and value.startswith("/") and len(value) < 4096 and "\n" not in value:
            place = Path(value).with_suffix("").parent
            if place.is_relative_to(folder):
                take(place)

    look(config)
    return sorted(found)


def _refuse_metrics(config: dict[str, Any]) -> None:
    """Raises LamdatuiError for a metric that is not the harness's own: it would be looked for on a hub, or in this folder."""
    importlib.import_module("lm_eval.api.metrics")  # which fills the registry
    known = importlib.import_module("lm_eval.api.registry").METRIC_REGISTRY
    for metric in config.get("metric_list") or []:
        name = metric.get("metric")
        if metric.get("hf_evaluate") or not isinstance(name, str) or (name not in known and not name.startswith("/")):
            raise LamdatuiError(f"{name!r} is no metric of lm-eval itself", fix=f"one of: {', '.join(sorted(known))}")


def refuse_code(config: dict[str, Any]) -> None:
    """Raises LamdatuiError where a configuration of one's own would run code."""
    for key in KEYS:
        if config.get(key) is not None:
            raise LamdatuiError(f"a task of one's own can't have {key}: it is code, or not text", fix="write it as templates")
    if config.get("unsafe_code"):
        raise LamdatuiError("the task runs code that a model wrote: lamdatui does not")
    _refuse_metrics(config)
    if any(str(metric.get("metric")).startswith("/") for metric in config.get("metric_list") or []):
        raise LamdatuiError("a task of one's own can't name functions", fix="write it as templates")
    if "!function" in json.dumps(config, default=str):
        raise LamdatuiError("a task of one's own can't name functions", fix="write it as templates")


def lm_eval(reference: dict[str, Any], completion: str) -> float:
    """The metric of one document, in [0, 1]: `reference` is what `lamdatui.catalogue.lm_eval` wrote.

    Of a text's log-likelihood (`loglikelihood_rolling`) it is the probability of a byte or word, in the geometric mean. Raises LamdatuiError without the package, ValueError where the harness stumbles over the answer.
    """
    rated = _judge_of(reference).OUTPUT_TYPE in RATED
    try:
        return judged(reference, ratings(completion) if rated else completion)
    except LamdatuiError:
        raise
    except RecursionError:
        return 0.0  # JSON that is nested so deeply is an answer gone astray, and no reason to lose the others
    except Exception as error:
        raise ValueError(f"lm-eval can't judge this answer: {type(error).__name__}: {error}") from error


def _judge_of(reference: dict[str, Any]) -> Any:
    return _judge(json.dumps(reference["task"], sort_keys=True), json.dumps(reference["shape"]))


def judged(reference: dict[str, Any], answer: str | list[tuple[str, float, bool]]) -> float:
    """The score of an answer: a text, or rated choices. Raises LamdatuiError, ValueError, and whatever the harness raises."""
    judge = _judge_of(reference)
    values = None if isinstance(answer, str) else answer
    instance = importlib.import_module("lm_eval.api.instance").Instance
    # What the harness hands on: of a text that is rated, the log-likelihood alone.
    if values is None:
        given: list[Any] = [answer]
    elif judge.OUTPUT_TYPE == "loglikelihood_rolling":
        given = [value for _, value, _ in values]
    else:
        given = [(value, greedy) for _, value, greedy in values]
    doc = reference["doc"]
    judge.features = list(doc)
    asked = [
        instance(
            request_type="generate_until" if values is None else "loglikelihood",
            doc=doc,
            arguments=("", {}),
            idx=place,
            resps=[one],
        )
        for place, one in enumerate(given)
    ]
    state = random.getstate()
    for each in judge._filters:
        if each.name == reference["filter"]:
            each.apply(asked)
    metrics = judge.process_results(doc, [one.filtered_resps[reference["filter"]] for one in asked])
    random.setstate(state)
    return scaled(metrics[reference["metric"]], judge.OUTPUT_TYPE)


def scaled(value: Any, output: str) -> float:
    """A metric of one row as a score. Raises ValueError where it is none in [0, 1]."""
    if isinstance(value, tuple) and output == "loglikelihood_rolling":
        # A sum of log-likelihoods, and over how many bytes or words.
        total, count = map(float, value)
        return math.exp(total / count) if count else 0.0
    number: Any = value
    found = float(number)
    if not 0 <= found <= 1:
        raise ValueError(f"{found} is no score from 0 to 1")
    return found


def lm_eval_problem(reference: Any) -> str | None:
    """What is wrong with a reference, or None: its keys alone are looked at, for the package takes a second to import."""
    keys = ("task", "doc", "metric", "filter", "shape")
    if not isinstance(reference, dict) or any(key not in reference for key in keys):
        return "it is a row that lm_eval: makes, with task, doc, metric, filter and shape"
    good = isinstance(reference["doc"], dict) and isinstance(reference["task"], (str, dict))
    return None if good and re.fullmatch(r"[\w@./-]+", str(reference["metric"])) else "task, doc or metric is of another kind"


@functools.lru_cache(maxsize=128)
def _judge(source: str, shape: str) -> Any:
    return judge_of(json.loads(source), *json.loads(shape))


def judge_of(source: str | dict[str, Any], multiple_input: int = 0, multiple_target: int = 0) -> Any:
    """The harness's task without a dataset: its filters and metrics. `multiple_…`: what it would have found in its first document."""
    config = config_of(source)
    sandboxed()
    settled()
    kind = importlib.import_module("lm_eval.api.task").ConfigurableTask
    rows = importlib.import_module("datasets").Dataset

    class Judge(kind):
        def download(self, *_: Any, **__: Any) -> None:
            self.dataset = {SPLIT: rows.from_list([{"none": ""}])}

    # Neither data nor prompts are needed.
    empty = {
        "dataset_path": None,
        "dataset_kwargs": None,
        "training_split": None,
        "validation_split": None,
        "fewshot_split": None,
    }
    empty |= {"fewshot_config": None, "num_fewshot": 0, "process_docs": None, "custom_dataset": None, "test_split": SPLIT}
    templates = {name: config.get(name) for name in ("doc_to_text", "doc_to_target", "doc_to_choice")}
    plain = {"doc_to_text": "a", "doc_to_target": "a", "doc_to_choice": None}
    judge = Judge(config={**config, **empty, **plain})
    for name, value in templates.items():
        judge.set_config(name, value)
    judge.multiple_input, judge.multiple_target = multiple_input, multiple_target
    return judge
