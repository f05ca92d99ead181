"""The same work through lamdatui and through the commands that people use: seconds of each, in one run.

Each round is a lab run (headless, mode auto, a seed of its own), then `trl sft`, `trl dpo`, `mergekit-yaml` and `lm_eval`
that repeat its first trial of each kind: the same model directories, rows, steps, batch, learning rate, seed and threads.
Rounds alternate the two so that a machine's changing load falls on both.

    python bench/overhead.py [--rounds 3] [--trials 6] [--lm-eval PATH] [--json]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from lamdatui.catalogue.fetch import resolve
from lamdatui.inputs.datafiles import read_dataset, read_task_rows
from lamdatui.wire import rundir

KINDS = ("sft", "dpo", "merge_ties")
COMMANDS = {"sft": "trl sft", "dpo": "trl dpo", "merge_ties": "mergekit-yaml", "evaluate": "lm_eval"}
GOAL = 10.0
_TRAIN_RUNTIME = re.compile(r"'train_runtime': '?([0-9.e+-]+)")
LAB = (
    # One architecture, one dataset of a kind and one number of steps: every trial of a kind is the same amount of work.
    'models={llama: {path: "catalogue:lab-bases/llama"}}',
    "actions.sft.max_steps.choices=[40]",
    "actions.dpo.max_steps.choices=[25]",
    "actions.dpo.loss.choices=[sigmoid]",
    "budget.wall_minutes=120",
    "budget.baselines=0",
)
ROWS = {"rows": ("call_replay", 40 * 32), "pairs": ("prefer", 25 * 16)}
"""Name → lab dataset and how many of its rows: what the steps see. Of more, an action takes a random choice before it trains."""


def median(values: list[float]) -> float | None:
    """The median, or None of nothing."""
    return statistics.median(values) if values else None


@dataclass
class Command:
    """A command measured: seconds of each repetition, or why there are none."""

    name: str
    program: str = ""
    seconds: list[float] = field(default_factory=list)
    loops: list[float] = field(default_factory=list)
    note: str = ""

    @property
    def median(self) -> float | None:
        """Median seconds, or None when the command did not run."""
        return median(self.seconds)


@dataclass
class Row:
    """One kind of step: medians over lamdatui's trials, against the command."""

    kind: str
    trials: int
    total: float | None
    work: float
    evaluate: float | None
    overhead: float | None
    loop: float | None
    command: Command

    @property
    def ratio(self) -> float | None:
        """The command's seconds over lamdatui's for the same work, all of lamdatui's overhead counted to the work."""
        return self.command.median / self.work if self.command.median else None

    @property
    def ratio_beside(self) -> float | None:
        """The same for what is not the training loop itself, which no tool can save; None where there is no loop."""
        theirs = median(self.command.loops)
        if self.command.median is None or theirs is None or self.loop is None:
            return None
        return (self.command.median - theirs) / (self.work - self.loop)


def environment(scratch: Path) -> dict[str, str]:
    """One thread, no hub, caches of this bench's own: the same for lamdatui and for the commands."""
    fixed = {
        "OMP_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HOME": str(scratch / "hf"),
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "HF_DATASETS_OFFLINE": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "PYTHONWARNINGS": "ignore",
    }
    return {**os.environ, **fixed}


def beside(name: str) -> str | None:
    """A command of this interpreter's environment, or of PATH."""
    here = Path(sys.executable).with_name(name)
    return str(here) if here.exists() else shutil.which(name)


def say(text: str) -> None:
    """Progress, on stderr."""
    print(f"[load {os.getloadavg()[0]:.1f}] {text}", file=sys.stderr, flush=True)


# --- lamdatui ------------------------------------------------------------------------------------------------------


def _datasets(scratch: Path) -> str:
    """The profile's datasets as `--set` takes them; the files are written once."""
    found = {}
    for name, (source, count) in ROWS.items():
        path = scratch / f"{name}.jsonl"
        lines = (resolve("catalogue:lab-bases") / "data" / f"{source}.jsonl").read_text(encoding="utf-8").splitlines()
        path.write_text("\n".join(lines[:count]) + "\n", encoding="utf-8")
        found[name] = {"path": str(path)}
    return f"datasets={json.dumps(found)}"


def lab_run(scratch: Path, trials: int, seed: int) -> tuple[dict[str, Any], Path, float]:
    """(what `lamdatui show --json` prints, the run's directory, seconds of the whole `lamdatui run`)."""
    runs_dir = scratch / "runs"
    program = [sys.executable, "-m", "lamdatui"]
    command = [*program, "run", str(_lab_profile(scratch)), "--name", "bench", "--headless", "--mode", "auto"]
    command += ["--runs-dir", str(runs_dir), "--max-trials", str(trials)]
    for text in (*LAB, _datasets(scratch), f"seed={seed}"):
        command += ["--set", text]
    say(f"lamdatui run lab: {trials} trials")
    began = time.monotonic()
    done = subprocess.run(command, env=environment(scratch), stderr=subprocess.PIPE, text=True)
    seconds = time.monotonic() - began
    if done.returncode:
        raise SystemExit(f"lamdatui run ended with {done.returncode}:\n{done.stderr[-2000:]}")
    run_dir = runs_dir / "bench"
    rundir.wait_for_end(run_dir, 60)
    shown = subprocess.run(
        [*program, "show", "bench", "--json", "--runs-dir", str(runs_dir)], stdout=subprocess.PIPE, check=True
    )
    return json.loads(shown.stdout), run_dir, seconds


def _lab_profile(scratch: Path) -> Path:
    """The lab profile without the action types that have no command here."""
    from lamdatui.inputs.profile import find_profile

    profile = yaml.safe_load(find_profile("lab").read_text(encoding="utf-8"))
    profile["actions"] = {kind: profile["actions"][kind] for kind in KINDS}
    path = scratch / "lab.yaml"
    path.write_text(yaml.safe_dump(profile, sort_keys=False), encoding="utf-8")
    return path


def trials_of(found: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    """Trials of a kind that did their own work."""
    return [t for t in found["trials"] if t["status"] == "done" and not t["cached"] and t["action"]["type"] == kind]


# --- the same work by the commands ---------------------------------------------------------------------------------


class Peers:
    """Builds the command that repeats a trial, from the trial's own request, and times it."""

    def __init__(self, scratch: Path, run_dir: Path, commands: dict[str, Command]) -> None:
        self.scratch = scratch
        self.run_dir = run_dir
        self.store = run_dir.parent / "store"
        self.commands = commands

    def request(self, trial: dict[str, Any]) -> dict[str, Any]:
        """The trial's action.json."""
        return json.loads((self.run_dir / "steps" / str(trial["number"]) / "1" / "action.json").read_text())

    def directory(self, reference: dict[str, Any]) -> Path:
        """A model's directory of full weights."""
        if reference["adapters"]:
            raise SystemExit(f"{reference['id']} is not stored as full weights: the commands can't read it")
        weights: str = reference["weights"]
        return self.store / "objects" / weights.removeprefix("store:") if weights.startswith("store:") else Path(weights)

    def result(self, trial: dict[str, Any]) -> Path:
        """The model that lamdatui's trial published."""
        return self.store / "objects" / trial["action"]["digest"]

    def loop(self, trial: dict[str, Any]) -> float | None:
        """Seconds of the trial's training loop, or None when it has none."""
        path = self.run_dir / "steps" / str(trial["number"]) / "1" / "metrics.jsonl"
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        stamps = [line["seconds"] for line in lines if line["phase"] == "train"]
        return stamps[-1] - stamps[0] if stamps else None

    def measure(self, kind: str, arguments: list[str]) -> bool:
        """Run a kind's command once and keep its seconds; False when it fails."""
        command = self.commands[kind]
        began = time.monotonic()
        done = subprocess.run(
            arguments, env=environment(self.scratch), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        seconds = time.monotonic() - began
        say(f"{command.name}: {seconds:.1f} s, status {done.returncode}")
        if done.returncode:
            command.note = f"failed with {done.returncode}: {' '.join(done.stdout.split())[-300:]}"
            return False
        command.seconds.append(round(seconds, 3))
        command.loops += [float(found) for found in _TRAIN_RUNTIME.findall(done.stdout)]
        return True

    def train(self, kind: str, trial: dict[str, Any]) -> None:
        """`trl sft` or `trl dpo` on what the trial trained on."""
        request = self.request(trial)
        params = request["action"]["params"]
        rows, out = self.scratch / f"{kind}-rows", self.scratch / f"{kind}-out"
        rows.mkdir()
        with (rows / "train.jsonl").open("w", encoding="utf-8") as handle:
            for row in read_dataset(Path(request["datasets"]["dataset"][0]["path"])):
                handle.write(json.dumps(row) + "\n")
        model = self.directory(request["models"]["model"][0])
        places = ["--model_name_or_path", str(model), "--dataset_name", str(rows), "--output_dir", str(out)]
        options = [*_shared_options(params, request["action"]["seed"]), *_KIND_OPTIONS[kind](params)]
        if self.measure(kind, [self.commands[kind].program, kind, *places, *options]):
            self.commands[kind].note = difference(self.result(trial), out)

    def merge(self, kind: str, trial: dict[str, Any]) -> None:
        """`mergekit-yaml` on the models of the trial."""
        request = self.request(trial)
        params, parts = request["action"]["params"], request["models"]["models"]
        rest = (1.0 - params["weight"]) / (len(parts) - 1)
        shares = [params["weight"], *[rest] * (len(parts) - 1)]
        entries = [
            {"model": str(self.directory(part)), "parameters": {"weight": share, "density": params["density"]}}
            for part, share in zip(parts, shares, strict=True)
        ]
        config = {
            "merge_method": "ties",
            "models": entries,
            "base_model": str(self.directory(request["models"]["base"][0])),
            "parameters": {"normalize": True},
            "dtype": request["dtype"],
        }
        path, out = self.scratch / "merge.yaml", self.scratch / "merge-out"
        path.write_text(yaml.safe_dump(config), encoding="utf-8")
        options = ["--quiet", "--no-write-model-card", "--random-seed", str(request["action"]["seed"])]
        if self.measure(kind, [self.commands[kind].program, str(path), str(out), *options]):
            self.commands[kind].note = difference(self.result(trial), out)

    def evaluate(self, kind: str, trial: dict[str, Any]) -> None:
        """`lm_eval` on the rows that the trial was evaluated on, and the scores that it finds."""
        request = self.request(trial)
        folder, out = self.scratch / "lm-eval-tasks", self.scratch / "lm-eval-out"
        folder.mkdir()
        for task in request["evaluations"]:
            _lm_eval_task(folder, task)
        tasks = [task["task"] for task in request["evaluations"]]
        model = f"pretrained={self.result(trial)},dtype={request['dtype']}"
        arguments = [self.commands[kind].program, "run", "--model", "hf", "--model_args", model]
        arguments += ["--tasks", ",".join(f"bench_{name}" for name in tasks), "--include_path", str(folder)]
        arguments += ["--device", "cpu", "--batch_size", "100", "--apply_chat_template", "--output_path", str(out)]
        if self.measure(kind, arguments):
            self.commands[kind].note = _lm_eval_scores(out, tasks, trial)


def _shared_options(params: dict[str, Any], seed: int) -> list[str]:
    values = {
        "learning_rate": params["learning_rate"],
        "max_steps": params["max_steps"],
        "per_device_train_batch_size": params["batch_size"],
        "max_length": params["max_length"],
        "seed": seed,
        "data_seed": seed,
        "dtype": "float32",
        # TRL's own default is bf16, on a CPU too: other work than an fp32 step.
        "bf16": False,
        "use_cpu": True,
        "lr_scheduler_type": "cosine",
        "gradient_checkpointing": False,
        "report_to": "none",
        "save_strategy": "no",
        "logging_steps": 1,
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
    }
    return [part for key, value in values.items() for part in (f"--{key}", str(value))]


def _sft_options(params: dict[str, Any]) -> list[str]:
    warmup = int(params["warmup_ratio"] * params["max_steps"])
    loss = ["--completion_only_loss", "True"]
    return ["--warmup_steps", str(warmup), "--weight_decay", str(params["weight_decay"]), *loss]


def _dpo_options(params: dict[str, Any]) -> list[str]:
    weight, warmup = params["sft_weight"], int(params["warmup_ratio"] * params["max_steps"])
    loss = ["--loss_type", "sigmoid", "sft", "--loss_weights", "1.0", str(weight)] if weight else ["--loss_type", "sigmoid"]
    return ["--beta", str(params["beta"]), "--warmup_steps", str(warmup), *loss]


_KIND_OPTIONS: dict[str, Callable[[dict[str, Any]], list[str]]] = {"sft": _sft_options, "dpo": _dpo_options}


def _lm_eval_task(folder: Path, task: dict[str, Any]) -> None:
    rows = [row for row in read_task_rows(Path(task["path"])) if row["split"] == task["split"]][: task["rows"]]
    data = folder / f"{task['task']}.jsonl"
    with data.open("w", encoding="utf-8") as handle:
        for row in rows:
            handle.write(json.dumps({"question": row["messages"][-1]["content"], "answer": row["reference"]}) + "\n")
    config = {
        "task": f"bench_{task['task']}",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(data)}},
        "test_split": "test",
        "output_type": "generate_until",
        "doc_to_text": "{{question}}",
        "doc_to_target": "{{answer}}",
        "generation_kwargs": {"until": ["<eos>"], "max_gen_toks": task["max_new_tokens"], "do_sample": False},
        "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
    }
    (folder / f"{task['task']}.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")


def _lm_eval_scores(target: Path, tasks: list[str], trial: dict[str, Any]) -> str:
    found = json.loads(next(target.rglob("results_*.json")).read_text(encoding="utf-8"))["results"]
    theirs = {task: found[f"bench_{task}"]["exact_match,none"] for task in tasks}
    told = ", ".join(f"{task} {trial['scores'][task]['search']['mean']:.2f} / {theirs[task]:.2f}" for task in tasks)
    return f"scores, lamdatui's / the command's: {told}"


def difference(ours: Path, theirs: Path) -> str:
    """The largest difference between two models' weights, as evidence that the work was the same."""
    from safetensors.numpy import load_file

    try:
        left, right = (load_file(path / "model.safetensors") for path in (ours, theirs))
    except OSError as error:
        return f"weights not compared: {error}"
    if set(left) != set(right):
        return "weights not compared: other tensors"
    largest = max(float(np.abs(left[name].astype(np.float64) - right[name]).max()) for name in left)
    return f"largest difference of a weight from lamdatui's: {largest:.1e}"


# --- the table -----------------------------------------------------------------------------------------------------


def measure(options: argparse.Namespace, scratch: Path) -> tuple[list[Row], dict[str, Any]]:
    """All rows, and the facts that belong beside them."""
    programs = {kind: options.lm_eval if kind == "evaluate" else beside(name.split()[0]) for kind, name in COMMANDS.items()}
    commands = {
        kind: Command(COMMANDS[kind], program or "", note="" if program else "not installed")
        for kind, program in programs.items()
    }
    seconds: dict[str, list[dict[str, float]]] = {kind: [] for kind in KINDS}
    loops: dict[str, list[float]] = {kind: [] for kind in KINDS}
    facts: dict[str, Any] = {"load": [os.getloadavg()[0]], "rounds": options.rounds, "seed": options.seed}
    facts |= {"trials": [], "run_seconds": [], "outside_trials": []}
    for round_ in range(options.rounds):
        folder = scratch / str(round_)
        folder.mkdir()
        found, run_dir, whole = lab_run(folder, options.trials, options.seed + round_)
        facts["trials"].append(len(found["trials"]))
        facts["run_seconds"].append(whole)
        facts["outside_trials"].append(whole - sum(trial["seconds"]["total"] for trial in found["trials"]))
        peers = Peers(folder, run_dir, commands)
        work = {"sft": peers.train, "dpo": peers.train, "merge_ties": peers.merge, "evaluate": peers.evaluate}
        for kind, command in commands.items():
            having = trials_of(found, "sft" if kind == "evaluate" else kind)
            if kind in KINDS:
                seconds[kind] += [trial["seconds"] for trial in having]
                loops[kind] += [value for trial in having if (value := peers.loop(trial)) is not None]
            if having and command.program:
                work[kind](kind, having[0])
        facts["load"].append(os.getloadavg()[0])
    rows = [_row(kind, seconds[kind], median(loops[kind]), commands[kind]) for kind in KINDS if seconds[kind]]
    evaluated = [part["evaluate"] for parts in seconds.values() for part in parts if part["evaluate"]]
    rows.append(Row("evaluate", len(evaluated), None, median(evaluated) or 0.0, None, None, None, commands["evaluate"]))
    return rows, facts


def _row(kind: str, seconds: list[dict[str, float]], loop: float | None, command: Command) -> Row:
    work = statistics.median(part["total"] - part["evaluate"] for part in seconds)
    total, evaluate, overhead = (
        statistics.median(part[name] for part in seconds) for name in ("total", "evaluate", "overhead")
    )
    return Row(kind, len(seconds), total, work, evaluate, overhead, loop, command)


def _list(values: list[float]) -> str:
    return ", ".join(f"{value:.1f}" for value in values)


def _number(value: float | None, form: str = ".2f") -> str:
    return "-" if value is None else format(value, form)


HEAD = (
    ("step", "|", "n", "trial s", "eval s", "overhead s", "overhead", "work s", "loop s"),
    ("command", "n", "command s", "loop s", "ratio", "beside loop"),
)


def _cells(row: Row) -> tuple[str, ...]:
    share = f"{row.overhead / row.total:.1%}" if row.overhead is not None and row.total else "-"
    mine = (row.kind, "|", str(row.trials), _number(row.total), _number(row.evaluate), _number(row.overhead), share)
    theirs = (row.command.name, str(len(row.command.seconds)), _number(row.command.median), _number(median(row.command.loops)))
    ratios = tuple(f"{value:.1f}x" if value else "-" for value in (row.ratio, row.ratio_beside))
    return (*mine, _number(row.work), _number(row.loop), *theirs, *ratios)


def table(rows: list[Row], facts: dict[str, Any]) -> str:
    """The measured table, what it counts, and whether the goal is met."""
    body = [(*HEAD[0], *HEAD[1]), *(_cells(row) for row in rows)]
    widths = [max(len(line[at]) for line in body) for at in range(len(body[0]))]
    lines = ["  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in body]
    lines += [
        "",
        "medians; left n: trials of all rounds, right n: runs of the command, one a round",
        "work = the whole trial (planning, decision, step, journal) without its evaluation; ratio = command / work",
        "overhead = the trial without planning, waiting, executing and evaluating; its share is of the whole trial",
        "loop = the training loop itself, the same in both; beside loop = the ratio of all the rest",
        "evaluate = three tasks of 100 rows: the time inside the step, which has the model in memory already",
        f"one thread each, seeds {facts['seed']} to {facts['seed'] + facts['rounds'] - 1}, {len(os.sched_getaffinity(0))} cores, "
        f"{platform.machine()}; load average before each round and at the end: {_list(facts['load'])}",
        f"a whole `lamdatui run` of {facts['trials'][0]} trials: {_list(facts['run_seconds'])} s; of it outside trials, once a run "
        f"(start, imports, base and sealed evaluation): {_list(facts['outside_trials'])} s",
    ]
    lines += _whole(rows)
    lines += [f"{row.command.name}: {row.command.note}" for row in rows if row.command.note]
    return "\n".join([*lines, _verdict("a step", rows, "ratio"), _verdict("what is beside the loop", rows, "ratio_beside")])


def _verdict(what: str, rows: list[Row], name: str) -> str:
    ratios = {row.kind: getattr(row, name) for row in rows}
    below = [f"{kind} ({value:.1f}x)" for kind, value in ratios.items() if value is not None and value < GOAL]
    met = [kind for kind, value in ratios.items() if value is not None and value >= GOAL]
    absent = [kind for kind, value in ratios.items() if value is None]
    told = [
        f"{word} {', '.join(kinds)}"
        for word, kinds in (("met by", met), ("missed by", below), ("no figure for", absent))
        if kinds
    ]
    return f"goal, {what} at least {GOAL:g}x faster: {'; '.join(told)}"


def _whole(rows: list[Row]) -> list[str]:
    """A whole trial, evaluation and overhead and all, against its two commands one after the other."""
    scoring = rows[-1].command.median
    if scoring is None:
        return []
    told = [
        f"{row.kind} {(row.command.median + scoring) / row.total:.1f}x" for row in rows[:-1] if row.command.median and row.total
    ]
    return [f"whole trial against its command and lm_eval together: {', '.join(told)}"] if told else []


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="lamdatui runs, and repetitions of each command")
    parser.add_argument("--trials", type=int, default=6, help="trials of each lamdatui run (at least 3)")
    parser.add_argument("--seed", type=int, default=1, help="the first round's seed")
    parser.add_argument("--lm-eval", default=beside("lm_eval"), help="the lm_eval command, when it is in another environment")
    parser.add_argument("--json", action="store_true", help="JSON on stdout")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="lamdatui-bench-") as folder:
        rows, facts = measure(options, Path(folder))
    if options.json:
        found = [{**asdict(row), "command_median": row.command.median, "ratio": row.ratio} for row in rows]
        print(json.dumps({"rows": found, **facts}, indent=1))
        return
    print(table(rows, facts))


if __name__ == "__main__":
    main()
