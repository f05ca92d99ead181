"""Mutants: small faults that are put into a copy of the checkout, one at a time; the tests that stand for the place have to fail.

    python -m tests.mutants           a seeded sample over the modules of mutants.toml, made by cosmic-ray's operators and one of our own
    python -m tests.mutants --named   the faults that mutants.toml spells out

Exit code 1 when a mutant survives that mutants.toml does not explain, or when what it says no longer fits the code.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import os
import queue
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import tomllib
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.operators.operator import Operator
from cosmic_ray.plugins import get_operator, operator_names
from parso.python.tree import Keyword

CHECKOUT = Path(__file__).parent.parent
TABLE = CHECKOUT / "tests" / "mutants.toml"
PYTEST = [sys.executable, "-m", "pytest", "-x", "-q", "--assert=plain", "-p", "no:cacheprovider", "-p", "no:xdist"]
PYTEST += ["-p", "no:textual-snapshot"]
LEAST_SECONDS = 60.0
"""A busy machine must not pass for a killed mutant: tests get at least this long, and ten times what they take undisturbed."""


@dataclass(frozen=True)
class Mutant:
    """A module's text with one fault; `old` → `new` are the lines that differ."""

    name: str
    module: str
    line: int
    old: str
    new: str
    text: str
    tests: tuple[str, ...]


# --- making ----------------------------------------------------------------------------------------------------------


class StatementRemoval(Operator):
    """`raise` and calls whose result nobody uses become `pass`: what guards, locks and syncs is mostly such a statement."""

    def mutation_positions(self, node: Any) -> Any:
        """The statement's place."""
        if node.type == "simple_stmt" and self._is_effect(node.children[0]):
            yield node.children[0].start_pos, node.children[0].end_pos

    def mutate(self, node: Any, index: int) -> Any:
        """`pass` in its place."""
        removed = node.children[0]
        node.children[0] = Keyword("pass", removed.start_pos, prefix=removed.get_first_leaf().prefix)
        return node

    @staticmethod
    def _is_effect(statement: Any) -> bool:
        if statement.type == "atom_expr":
            return statement.children[-1].type == "trailer" and statement.children[-1].children[0] == "("
        return statement.type == "raise_stmt" or (statement.type == "keyword" and statement.value == "raise")

    @classmethod
    def examples(cls) -> Any:
        """None: cosmic-ray's own tests use them."""
        return ()


def operators() -> dict[str, Any]:
    """Every operator that needs no arguments, by name."""
    found = {name: get_operator(name) for name in operator_names()}
    return {name: kind() for name, kind in found.items() if not kind.arguments()} | {"statement": StatementRemoval()}


def meaning(text: str) -> str:
    """What a module does: annotations, which nobody evaluates here, and docstrings are left out. Raises SyntaxError."""
    tree = ast.parse(text)
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            node.returns = None
        elif isinstance(node, ast.arg):
            node.annotation = None
        elif isinstance(node, ast.AnnAssign):
            node.annotation = ast.Constant(None)
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            node.value = ast.Constant(None)
    return ast.dump(tree)


def difference(before: str, after: str) -> tuple[int, str, str]:
    """(number of the first line that differs, the differing lines before, after)."""
    old, new = before.splitlines(), after.splitlines()
    first = next((i for i, (a, b) in enumerate(zip(old, new, strict=False)) if a != b), min(len(old), len(new)))
    last = 0
    while last < min(len(old), len(new)) - first and old[-1 - last] == new[-1 - last]:
        last += 1
    cut = [" ".join(line.strip() for line in lines[first : len(lines) - last] if line.strip()) for lines in (old, new)]
    return first + 1, cut[0], cut[1]


def sampled(modules: dict[str, Any], skip: dict[str, str], count: int, seed: int) -> Iterator[Mutant]:
    """`count` mutants, as many of a module as it has places; a place gives its second one after every place has given its first.

    `skip` has patterns of the operators that make none, with the reason.
    """
    rng = random.Random(seed)
    kinds = {name: kind for name, kind in operators().items() if not any(re.search(pattern, name) for pattern in skip)}
    texts = {module: (CHECKOUT / module).read_text(encoding="utf-8") for module in modules}
    every = []
    for module, text in texts.items():
        nodes = list(ast_nodes(get_ast(text)))
        for name, operator in kinds.items():
            positions = [position for node in nodes for position in operator.mutation_positions(node)]
            every += [(module, name, occurrence, position) for occurrence, position in enumerate(positions)]
    rng.shuffle(every)
    given: Counter[Any] = Counter()
    ranks = []
    for module, name, _, position in every:
        place = (module, name.partition("_")[0], position)
        ranks.append(given[place])
        given[place] += 1
    print(f"{len(every)} mutants can be made at {len(given)} places of {len(modules)} modules; seed {seed}", flush=True)
    meanings = {module: meaning(text) for module, text in texts.items()}
    made = 0
    for _, (module, name, occurrence, _) in sorted(zip(ranks, every, strict=True), key=lambda pair: pair[0]):
        if made == count:
            return
        # cosmic-ray fails on an except clause that names a module's attribute; some of its mutants are no Python.
        with contextlib.suppress(SyntaxError, AttributeError):
            text = mutate_code(texts[module], kinds[name], occurrence)
            if text is not None and meaning(text) != meanings[module]:
                made += 1
                tests = tuple(modules[module]["tests"])
                yield Mutant(name.rpartition("/")[2], module, *difference(texts[module], text), text, tests)


def named(entries: list[dict[str, Any]]) -> Iterator[Mutant]:
    """The mutants that are spelled out. Raises ValueError for one whose text is not in the code exactly once."""
    for entry in entries:
        text = (CHECKOUT / entry["module"]).read_text(encoding="utf-8")
        if text.count(entry["old"]) != 1:
            raise ValueError(f"{entry['name']}: {entry['module']} has {text.count(entry['old'])} times {entry['old']!r}")
        changed = text.replace(entry["old"], entry["new"])
        yield Mutant(entry["name"], entry["module"], *difference(text, changed), changed, tuple(entry["tests"]))


# --- running ---------------------------------------------------------------------------------------------------------


class Bench:
    """Copies of the checkout, one a worker, and the tests that run in them; nothing of it is left afterwards."""

    def __init__(self, folder: Path, workers: int) -> None:
        self.folder = folder
        self.copies: queue.SimpleQueue[Path] = queue.SimpleQueue()
        self._running: set[subprocess.Popen[str]] = set()
        self._lock = threading.Lock()
        self._is_over = False
        hidden = shutil.ignore_patterns(".*", "__pycache__", "*.egg-info", "lamdatui-runs", "dist", "build")
        for number in range(workers):
            copy = folder / f"{number}"
            shutil.copytree(CHECKOUT, copy / "checkout", ignore=hidden)
            (copy / "tmp").mkdir()
            self.copies.put(copy)

    def try_out(self, module: str, text: str | None, tests: tuple[str, ...], limit: float) -> tuple[int | None, str, float]:
        """(pytest's status, None when it took too long; its output; seconds) with `text` in place of the module's own."""
        copy = self.copies.get()
        path = copy / "checkout" / module
        whole, stat = path.read_text(encoding="utf-8"), path.stat()
        began = time.monotonic()
        try:
            if text is not None:
                path.write_text(text, encoding="utf-8")
            return *self._pytest(copy, tests, limit, is_mutant=text is not None), time.monotonic() - began
        finally:
            path.write_text(whole, encoding="utf-8")
            os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
            self.copies.put(copy)

    def _pytest(self, copy: Path, tests: tuple[str, ...], limit: float, *, is_mutant: bool) -> tuple[int | None, str]:
        environment = {**os.environ, "PYTHONPATH": str(copy / "checkout"), "TMPDIR": str(copy / "tmp"), "OMP_NUM_THREADS": "1"}
        if is_mutant:
            # Bytecode of one mutant must not be there for the next one.
            environment["PYTHONDONTWRITEBYTECODE"] = "1"
        with self._lock:
            if self._is_over:
                return None, ""
            process = subprocess.Popen(
                [*PYTEST, *tests],
                cwd=copy / "checkout",
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                start_new_session=True,
            )
            self._running.add(process)
        try:
            output, _ = process.communicate(timeout=limit)
            return process.returncode, output
        except subprocess.TimeoutExpired:
            return None, ""
        finally:
            end(process)
            with self._lock:
                self._running.discard(process)

    def close(self) -> None:
        """End what runs, also what tests have started below the folder."""
        with self._lock:
            self._is_over = True
            for process in self._running:
                end(process)
        for process in psutil.process_iter(["cwd", "cmdline"]):
            words = [process.info["cwd"] or "", *(process.info["cmdline"] or [])]
            if process.pid != os.getpid() and any(str(self.folder) in word for word in words):
                with contextlib.suppress(psutil.Error):
                    process.kill()


def end(process: subprocess.Popen[str]) -> None:
    """Kill a process and its session's group."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


def limits(bench: Bench, pool: ThreadPoolExecutor, mutants: list[Mutant]) -> dict[tuple[str, ...], float]:
    """Seconds that each list of tests gets. Raises ValueError where they fail without a mutant."""
    lists = {mutant.tests: mutant.module for mutant in mutants}
    jobs = {pool.submit(bench.try_out, module, None, tests, 600): tests for tests, module in lists.items()}
    found = {}
    for job in as_completed(jobs):
        status, output, seconds = job.result()
        if status != 0:
            raise ValueError(f"{' '.join(jobs[job])} fail without a mutant:\n{output[-3000:]}")
        found[jobs[job]] = max(LEAST_SECONDS, 10 * seconds)
    print(
        "tests without a mutant: "
        + ", ".join(f"{each / 10:.1f} s" if each > LEAST_SECONDS else "short" for each in found.values()),
        flush=True,
    )
    return found


def survivors(mutants: list[Mutant], workers: int) -> list[Mutant]:
    """The mutants that no test notices."""
    left, slow, seconds = [], list[str](), 0.0
    with tempfile.TemporaryDirectory(prefix="lamdatui-mutants-") as folder, ThreadPoolExecutor(workers) as pool:
        bench = Bench(Path(folder), workers)
        try:
            given = limits(bench, pool, mutants)
            jobs = {pool.submit(bench.try_out, each.module, each.text, each.tests, given[each.tests]): each for each in mutants}
            for number, job in enumerate(as_completed(jobs), 1):
                status, _, took = job.result()
                mutant, seconds = jobs[job], seconds + took
                if status is None:
                    slow.append(mutant.name)
                if status == 0:
                    left.append(mutant)
                if number % 25 == 0:
                    print(f"{number} of {len(mutants)}, {len(left)} survived, {seconds / number:.1f} s each", flush=True)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
            bench.close()
    print(
        f"{len(slow)} were killed by the time limit; {seconds / max(1, len(mutants)):.1f} s for each",
        *slow,
        sep="\n  ",
        flush=True,
    )
    return left


# --- telling ---------------------------------------------------------------------------------------------------------


def stale(explained: list[dict[str, Any]]) -> list[str]:
    """Explanations of mutants of lines that the code no longer has."""
    lines = {entry["module"]: (CHECKOUT / entry["module"]).read_text(encoding="utf-8") for entry in explained}
    plain = {module: " ".join(line.strip() for line in text.splitlines()) for module, text in lines.items()}
    return [f"{entry['module']}: {entry['old']}" for entry in explained if entry["old"] not in plain[entry["module"]]]


def main() -> int:
    """Make mutants, run them, and tell which survive without a reason."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--named", action="store_true", help="the mutants that mutants.toml spells out, not a sample")
    parser.add_argument("--sample", type=int, default=400, help="how many mutants")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument(
        "--only", default="", help="of those, only the ones whose module (with --named: whose name) has this pattern"
    )
    options = parser.parse_args()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: sys.exit(130))
    table = tomllib.loads(TABLE.read_text(encoding="utf-8"))
    if options.named:
        explained = []
        mutants = [mutant for mutant in named(table.get("named", [])) if re.search(options.only, mutant.name)]
    else:
        explained = table.get("explained", [])
        mutants = list(sampled(table["modules"], table["skip"], options.sample, options.seed))
        mutants = [mutant for mutant in mutants if re.search(options.only, mutant.module)]
    reasons = {(entry["module"], entry["old"], entry["new"]) for entry in explained}
    left = survivors(mutants, options.workers)
    bare = [mutant for mutant in left if (mutant.module, mutant.old, mutant.new) not in reasons]
    for mutant in sorted(bare, key=lambda each: (each.module, each.line)):
        print(f"\nsurvived: {mutant.module}:{mutant.line} ({mutant.name})\n  - {mutant.old}\n  + {mutant.new}")
    gone = stale(explained)
    for text in gone:
        print(f"\nexplained, but no longer there: {text}")
    print(
        f"\n{len(mutants)} made, {len(mutants) - len(left)} killed, {len(left)} survived, {len(left) - len(bare)} of those explained"
    )
    return 1 if bare or gone else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except ValueError as problem:
        sys.exit(f"error: {problem}")
    except KeyboardInterrupt:
        sys.exit(130)
