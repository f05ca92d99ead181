"""Whether vLLM understands what lamdatui says to it: flags, variables, endpoints and request fields, checked without a GPU.

    python -m bench.vllm_args [--version 0.32.0] [--cache FOLDER] [--source-only]

Downloads vLLM's wheel without its dependencies (330 MB, once) and keeps its Python files. Each name is looked up in that source
with its declared type. Then vLLM's own argument parser and its own request model read what lamdatui sends: they run in an
environment that holds vLLM's light dependencies, takes torch and transformers from this one, and needs no CUDA. Neither vLLM
itself nor a CUDA package is installed. Ends with 1 when something is not understood.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from packaging.requirements import Requirement

from lamdatui.base.paths import cache_dir
from lamdatui.planner import vllm
from lamdatui.planner.grammar import free_text, one_of
from lamdatui.planner.settings import PlannerSettings

LIGHT = (
    *("aiohttp", "anthropic", "blake3", "cachetools", "cbor2", "cloudpickle", "fastapi", "jsonschema", "lark"),
    *("lm-format-enforcer", "mcp", "msgspec", "openai", "oss-harmony", "partial-json-parser", "prometheus_client"),
    *("py-cpuinfo", "pybase64", "python-json-logger", "pyzmq", "regex", "setproctitle", "tiktoken"),
)
"""What vLLM's argument parser and request model import, beside torch and transformers."""

ALONE = ("apache-tvm-ffi", "llguidance", "outlines_core", "xgrammar")
"""The same, without dependencies: they name torch, which is there."""

ENDPOINTS = (("GET", "/health"), ("GET", "/version"), ("POST", "/sleep"), ("POST", "/wake_up"), ("GET", "/is_sleeping"))
ANSWERED = ("reasoning",)
"""Fields of a streamed delta that the client reads and OpenAI's protocol does not have."""

PARSE = """
import json, sys
from vllm.entrypoints.launchers.cli_args import make_arg_parser
from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
from vllm.utils.argparse_utils import FlexibleArgumentParser
from vllm.v1.structured_output.utils import grammar_is_likely_lark
import xgrammar

given = json.loads(sys.stdin.read())
parsed = vars(make_arg_parser(FlexibleArgumentParser(prog="vllm serve")).parse_args(given["arguments"]))
bodies = []
for body in given["bodies"]:
    request = ChatCompletionRequest.model_validate(body)
    form = request.extract_structured_outputs()
    if form is not None and form.grammar is not None:
        assert not grammar_is_likely_lark(form.grammar)
        xgrammar.Grammar.from_ebnf(form.grammar)
    bodies.append(sorted(request.model_extra or {}))
print("\\n" + json.dumps({"parsed": {name: parsed[name] for name in given["names"]}, "unknown": bodies}, default=str))
"""


@dataclass(frozen=True)
class Found:
    """One thing that lamdatui says: its value, where vLLM declares it, with which type, and what is wrong."""

    name: str
    value: str
    where: str
    declared: str
    wrong: str = ""


class Source:
    """vLLM's Python files."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._trees: dict[str, ast.Module] = {}

    def tree(self, path: str) -> ast.Module:
        """One file, parsed."""
        if path not in self._trees:
            self._trees[path] = ast.parse((self.root / path).read_text(encoding="utf-8"))
        return self._trees[path]

    def fields(self, path: str, *classes: str) -> Iterator[tuple[str, ast.expr, str]]:
        """(name, annotation, place) of the fields of some classes."""
        for node in ast.walk(self.tree(path)):
            if isinstance(node, ast.ClassDef) and node.name in classes:
                for item in node.body:
                    if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name):
                        yield item.target.id, item.annotation, f"{path}:{item.lineno}"

    def added(self, path: str) -> Iterator[tuple[str, str]]:
        """(flag, place) of every add_argument call."""
        for node in ast.walk(self.tree(path)):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "add_argument":
                for word in node.args:
                    if isinstance(word, ast.Constant) and isinstance(word.value, str):
                        yield word.value, f"{path}:{node.lineno}"

    def routes(self) -> Iterator[tuple[str, str, str]]:
        """(method, path, place) of every HTTP route of the server."""
        for file in sorted((self.root / "vllm/entrypoints/serve").rglob("*.py")):
            path = str(file.relative_to(self.root))
            handlers = [node for node in ast.walk(self.tree(path)) if isinstance(node, ast.AsyncFunctionDef)]
            for handler, call in ((node, call) for node in handlers for call in node.decorator_list):
                if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and call.args:
                    route = call.args[0].value if isinstance(call.args[0], ast.Constant) else ""
                    yield call.func.attr.upper(), str(route), f"{path}:{handler.lineno}"


def fetch(version: str, cache: Path) -> Path:
    """The folder with vLLM's Python files; downloaded when it is not there."""
    root = cache / version / "source"
    if not (root / "vllm").is_dir():
        cache.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "pip", "download", "-qq", f"vllm=={version}", "--no-deps", "-d", str(cache)]
        subprocess.run(command, check=True)
        (wheel,) = cache.glob(f"vllm-{version}-*.whl")
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(root, [name for name in archive.namelist() if name.endswith((".py", "/METADATA"))])
        wheel.unlink()
    return root


def fits(value: str, annotation: ast.expr) -> str:
    """What is wrong with a value for a declared type: "" where it fits, or where the type is none of the plain ones."""
    text = ast.unparse(annotation)
    if "Literal" in text and text.startswith("Literal["):
        choices = [str(item) for item in get_args(eval(text, {"Literal": Literal}))]
        return "" if value in choices else f"not one of {', '.join(choices)}"
    for kind, read in (("int", int), ("float", float)):
        if kind in text.split(" | "):
            try:
                read(value)
            except ValueError:
                return f"not {kind}"
            return ""
    return ""


def split(arguments: list[str]) -> list[tuple[str, str]]:
    """`vllm serve`'s words as (flag, value); "" where a flag has none."""
    pairs: list[tuple[str, str]] = []
    for word in arguments:
        if word.startswith("--"):
            pairs.append((word, ""))
        elif pairs and not pairs[-1][1]:
            pairs[-1] = (pairs[-1][0], word)
        else:
            pairs.append(("model_tag", word))
    return pairs


def flags(source: Source, arguments: list[str]) -> list[Found]:
    """Every flag of the command line."""
    cli, engine = "vllm/entrypoints/launchers/cli_args.py", "vllm/engine/arg_utils.py"
    frontend = {name: (note, place) for name, note, place in source.fields(cli, "BaseFrontendArgs", "FrontendArgs")}
    fields = {name: (note, place) for name, note, place in source.fields(engine, "EngineArgs", "AsyncEngineArgs")}
    added = {**dict(source.added(engine)), **dict(source.added(cli))}
    found = []
    for flag, value in split(arguments):
        name = flag.removeprefix("--").replace("-", "_")
        note, where = frontend.get(name, (None, ""))
        if note is None and flag in added:
            note, where = fields.get(name, (None, ""))[0], added[flag]
        declared = ast.unparse(note) if note is not None else "str" if flag == "model_tag" else ""
        wrong = "" if where else "not known"
        if where and note is not None:
            boolean = "bool" in declared.split(" | ")
            wrong = ("" if boolean else "needs a value") if not value else "takes no value" if boolean else fits(value, note)
        found.append(Found(flag, value, where, declared, wrong))
    return found


def others(source: Source, settings: PlannerSettings, bodies: list[dict[str, Any]]) -> list[Found]:
    """Environment variables, endpoints, request fields and answered fields."""
    known = {
        node.value: f"vllm/envs.py:{node.lineno}"
        for node in ast.walk(source.tree("vllm/envs.py"))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    found = []
    for name, value in vllm.own_environment(settings, "<key>").items():
        # This one is huggingface_hub's; vLLM asks that package.
        where = "huggingface_hub" if name == "HF_HUB_OFFLINE" else known.get(name, "")
        found.append(Found(name, value, where, "variable", "" if where else "not known"))
    routes = {(method, path): place for method, path, place in source.routes()}
    for method, path in ENDPOINTS:
        where = routes.get((method, path), "")
        found.append(Found(f"{method} {path}", "", where, "endpoint", "" if where else "not known"))
    protocol = "vllm/entrypoints/openai/chat_completion/protocol.py"
    fields = {name: (note, place) for name, note, place in source.fields(protocol, "ChatCompletionRequest")}
    for name in sorted({key for body in bodies for key in body}):
        note, where = fields.get(name, (None, ""))
        found.append(Found(name, "", where, ast.unparse(note) if note else "", "" if note else "not known"))
    base = "vllm/entrypoints/generate/base/protocol.py"
    delta = {name: (note, place) for name, note, place in source.fields(base, "DeltaMessage")}
    for name in ANSWERED:
        note, where = delta.get(name, (None, ""))
        found.append(Found(f"delta.{name}", "", where, ast.unparse(note) if note else "", "" if note else "not known"))
    return found


def bodies_of(model: str) -> list[dict[str, Any]]:
    """Requests as the client makes them: constrained to letters, to one line of text, and free."""
    base: dict[str, Any] = {
        "model": model,
        "messages": [{"role": "user", "content": "Choose."}],
        "max_tokens": 1,
        "temperature": 0.7,
        "seed": 1,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    off = {"chat_template_kwargs": {"enable_thinking": False}}
    letters = {"structured_outputs": {"grammar": one_of(["A", "B"])}, "logprobs": True, "top_logprobs": vllm.MOST_LOGPROBS}
    return [base | off | letters, base | off | {"structured_outputs": {"grammar": free_text()}}, base]


def environment(root: Path, folder: Path) -> Path:
    """A Python with vLLM's light dependencies, this environment's torch and transformers, and vLLM's source."""
    python = folder / "bin" / "python"
    if (folder / "complete").exists():
        return python
    venv.create(folder, with_pip=True, clear=True)
    site = next(folder.glob("lib/python*/site-packages"))
    (site / "lamdatui-host.pth").write_text(f"{sysconfig.get_paths()['purelib']}\n")
    (metadata,) = root.glob("vllm-*.dist-info/METADATA")
    asked: dict[str, str] = {}
    for line in metadata.read_text().splitlines():
        if line.startswith("Requires-Dist:"):
            need = Requirement(line.partition(":")[2].strip())
            if need.marker is None or need.marker.evaluate({"extra": ""}):
                asked[need.name] = f"{need.name}{need.specifier}"
    pip = [str(python), "-m", "pip", "install", "-qq"]
    # uvloop comes with fastapi[standard], whose other parts are not needed.
    subprocess.run([*pip, *(asked[name] for name in LIGHT), "uvloop"], check=True)
    subprocess.run([*pip, "--no-deps", *(asked[name] for name in ALONE)], check=True)
    (folder / "complete").touch()
    return python


def really(root: Path, folder: Path, arguments: list[str], bodies: list[dict[str, Any]]) -> tuple[dict[str, Any], str]:
    """What vLLM's own parser makes of the flags and its request model of the bodies; ({}, why) when it refuses."""
    names = [flag.removeprefix("--").replace("-", "_") for flag, _ in split(arguments)]
    try:
        python = environment(root, folder)
    except (subprocess.CalledProcessError, OSError, KeyError) as error:
        return {}, f"not run: the environment can't be made ({error})"
    done = subprocess.run(
        [str(python), "-c", PARSE],
        input=json.dumps({"arguments": arguments, "names": names, "bodies": bodies}),
        env={**os.environ, "PYTHONPATH": str(root), "VLLM_TARGET_DEVICE": "cpu", "VLLM_NO_USAGE_STATS": "1"},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        return {}, "refused: " + " | ".join(done.stderr.strip().splitlines()[-3:])
    return json.loads(done.stdout.splitlines()[-1]), ""


def table(found: list[Found]) -> str:
    """The rows, aligned."""
    rows = [("name", "value", "declared", "where"), *((f.name, f.value, f.declared, f.where) for f in found)]
    rows = [tuple(cell if len(cell) <= 60 else cell[:59] + "…" for cell in row) for row in rows]
    widths = [max(len(row[at]) for row in rows) for at in range(4)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join(
        line + (f"   WRONG: {f.wrong}" if f and f.wrong else "") for line, f in zip(lines, [None, *found], strict=True)
    )


def main(argv: list[str] | None = None) -> int:
    """Check everything and print it. Returns 1 when vLLM does not understand something."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--version", default=vllm.VERSION)
    parser.add_argument("--cache", type=Path, default=cache_dir() / "vllm-args")
    parser.add_argument("--source-only", action="store_true", help="only look names up; run nothing of vLLM")
    options = parser.parse_args(argv)
    settings = PlannerSettings(backend="vllm", model="/models/planner", context=8192)
    arguments = vllm.command_line(settings, 8000)[2:]
    bodies = bodies_of("planner")
    root = fetch(options.version, options.cache.resolve())
    source = Source(root)
    found = flags(source, arguments) + others(source, settings, bodies)
    print(f"vLLM {options.version}: {vllm.shown(settings, 8000)}\n")
    print(table(found))
    wrong = [item for item in found if item.wrong]
    if not options.source_only:
        result, why = really(root, options.cache.resolve() / options.version / "environment", arguments, bodies)
        if why:
            print(f"\nvLLM's own parser: {why}")
            return 1
        print(f"\nvLLM's own parser made of it: {json.dumps(result['parsed'])}")
        print(f"vLLM's own request model read {len(bodies)} bodies; fields that it does not know: {result['unknown']}")
        if any(result["unknown"]):
            return 1
    print(f"{len(found) - len(wrong)} of {len(found)} understood")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
