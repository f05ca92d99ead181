"""`check` and `doctor`: what can be known of a profile and of this machine before anything runs."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from lamdatui import __version__
from lamdatui.actionkit.timings import Timings
from lamdatui.base import network, paths
from lamdatui.base.errors import LamdatuiError
from lamdatui.base.fingerprint import Say
from lamdatui.base.output import say, say_json
from lamdatui.cli.contents import look
from lamdatui.cli.findings import MADE, Finding, Status, tried
from lamdatui.config import resources
from lamdatui.domain.actions import BoundType
from lamdatui.inputs import trust
from lamdatui.inputs.profile import Profile, find_profile, load_profile
from lamdatui.inputs.workspace import bind_types, origins
from lamdatui.wire.rundir import check_name

if TYPE_CHECKING:
    from lamdatui.domain.state import RunState
    from lamdatui.engine.machine import Machine


def check_other_machine(text: str, overrides: list[str], told: str, findings: list[Finding], *, as_json: bool) -> None:
    """Print findings, and what a profile would be offered on a machine that is told in words (`lamdatui.cli.othermachine`).

    No actions where what the profile names is bad. Raises LamdatuiError for words that say no machine.
    """
    from lamdatui.cli.othermachine import lines, on_machine, read_machine
    from lamdatui.inputs.workspace import open_workspace

    machine = read_machine(told)
    profile = load_profile(find_profile(text), overrides)
    if any(finding.status == "bad" for finding in findings):
        found = {"device": machine.device, "memory_bytes": machine.memory_bytes, "count": machine.count, "actions": {}}
    else:
        found = on_machine(machine, profile, open_workspace(profile, headers_only=True))
    if as_json:
        say_json({"checks": [finding.to_json() for finding in findings], "machine": found})
    else:
        say("\n".join([*map(str, findings), "", *lines(found)]))


def check_profile(
    text: str, overrides: list[str], runs_dir: Path, say: Say | None = None, *, other: bool = False
) -> list[Finding]:
    """Findings about a profile: what it names, its columns and sizes, memory, disk, the planner; `say` hears of what takes long.

    `other`: it is to run on another machine, so what this one has room for is not looked at.

    Raises LamdatuiError when the profile itself can't be read: nothing further can be known then.
    """
    path = find_profile(text)
    profile = load_profile(path, overrides)
    where = "" if path.is_relative_to(resources.builtin("profiles")) else f"; {path}"
    findings = [Finding("ok", "profile", f"{profile.name}: {profile.budget.trials} trials, mode {profile.mode}{where}")]
    if text in (replaced := resources.replaced("profiles")):
        findings.append(Finding("warn", "origin", replaced[text]))
    try:
        check_name(f"{profile.name}-1")
    except LamdatuiError as error:
        findings.append(Finding("warn", "name", error.what, f"give runs another one with --name: {error.fix}"))
    findings += [*_trust(profile), *([] if other else _device(profile)), *_contents(profile, say, headers_only=other)]
    if not other and all(finding.status in ("ok", "warn") for finding in findings):
        findings += _sizes(profile, runs_dir)
    findings += [] if other else [_network()]
    findings.append(tried("planner", lambda: _planner(profile)))
    return findings


def _trust(profile: Profile) -> list[Finding]:
    """What the profile would run or reach, and whether a person confirmed it; nothing where there is nothing to confirm."""
    found = trust.sensitive(profile)
    if not found:
        return []
    detail = " ".join(line.strip() for line in trust.told(found)[1:])
    if trust.is_confirmed(found):
        return [Finding("ok", "trust", f"confirmed: {detail}")]
    return [Finding("warn", "trust", f"to be confirmed when it starts: {detail}", "`lamdatui run` asks; headless: --trust")]


def _device(profile: Profile) -> list[Finding]:
    """A GPU that the profile asks for and that steps would not get; nothing where the device is chosen by what is there."""
    if profile.device != "cuda":
        return []
    machine = _gpu()
    if machine.status == "ok":
        return [Finding("ok", "device", machine.detail)]
    detail = f"the profile asks for cuda: {machine.detail.partition(';')[0]}"
    return [Finding("bad", "device", detail, machine.fix or "set device: auto, or run on a machine with a GPU")]


def _contents(profile: Profile, say: Say | None, *, headers_only: bool) -> list[Finding]:
    def types() -> str:
        bound, _ = bind_types(profile)
        findings.extend(Finding("warn", "origin", text) for text in origins(profile, bound))
        return ", ".join(bound)

    findings = look(profile, say, headers_only=headers_only)
    findings.append(tried("actions", types))
    for problem in resources.load_registry().problems:
        findings.append(Finding("warn", "trust" if problem == resources.untrusted() else "actions", problem))
    return findings


def _sizes(profile: Profile, runs_dir: Path) -> list[Finding]:
    from lamdatui.domain.objects import ObjectPool
    from lamdatui.domain.state import RunState
    from lamdatui.engine.fitting import fitted
    from lamdatui.engine.machine import judge_bytes
    from lamdatui.inputs.generation import generator
    from lamdatui.inputs.workspace import open_workspace

    space = open_workspace(profile)
    state = RunState(seed=profile.seed, pool=ObjectPool({**space.models, **space.datasets}))
    largest = max((model.parameters for model in space.models.values()), default=0)
    folder = runs_dir if runs_dir.exists() else Path.cwd()
    free = shutil.disk_usage(folder).free
    disk = largest * 4 * profile.budget.trials
    status: Status = "ok" if disk < free else "warn"
    findings = [Finding(status, "disk", f"{free / 2**30:.1f} GiB free; this run writes at most about {disk / 2**30:.2f} GiB")]
    machine = _machine(profile, folder)
    machine = replace(machine, judge_bytes=judge_bytes(space.judges, machine.dtype))
    types = fitted(space.types, profile.actions, state.pool, machine)
    makes_data = any(bound.type.output == "dataset" for bound in types.values())
    findings.append(tried("answers", lambda: f"generated by {generator(space, machine.device)}"))
    return [*findings, *(_feasible(bound, state, machine, makes_data) for bound in types.values())]


def _machine(profile: Profile, folder: Path) -> Machine:
    """What steps would run on, as far as can be told without torch."""
    from lamdatui.engine.machine import Machine
    from lamdatui.hardware.gpu import read_gpus
    from lamdatui.hardware.system import has_fast_bfloat16

    gpus, _ = read_gpus()
    build = version("torch") if importlib.util.find_spec("torch") else "+cpu"
    known = [gpu["memory_total"] for gpu in gpus if gpu["memory_total"]]
    on_gpu = profile.device != "cpu" and bool(known) and not build.endswith("+cpu")
    fast = all((gpu["capability"] or (0, 0)) >= (8, 0) for gpu in gpus) if on_gpu else has_fast_bfloat16()
    dtype = profile.dtype if profile.dtype != "auto" else "bfloat16" if fast else "float32"
    memory = min(known) if on_gpu else psutil.virtual_memory().total
    return Machine("cuda" if on_gpu else "cpu", dtype, memory, folder, Timings.open(paths.measurements_file()))


def _feasible(bound: BoundType, state: RunState, machine: Machine, makes_data: bool) -> Finding:
    """What of an action type can be proposed when the run starts, what it costs, and why there is nothing."""
    from lamdatui.engine.candidates import enumerate_type
    from lamdatui.engine.judging import Known
    from lamdatui.engine.machine import size_of

    subject = f"action {bound.name}"
    for slot in bound.type.slots:
        fitting = slot.takes_models or slot.least == 0 or any(d.format in slot.formats for d in state.pool.datasets)
        if not fitting and not makes_data:
            detail = f"no dataset of format {' or '.join(slot.formats)}: it can never be proposed"
            return Finding("warn", subject, detail, "add such a dataset, or drop the action")
    listing = enumerate_type(bound, state, machine, Known(), 1)
    if not listing.candidates:
        reasons = "; ".join(listing.refused)
        # Merges and distillation may well wait for what other actions make; too little memory or disk does not pass by itself.
        waits = listing.combinations == 0 or not any("there are" in text or "are free" in text for text in listing.refused)
        waits = waits and not any(" failed: " in text for text in listing.refused)
        return Finding("ok" if waits else "warn", subject, f"nothing to propose at the start: {reasons}")
    action = listing.candidates[0].action
    call = machine.call(bound, action.inputs, bound.defaults(), state.pool)
    cost = machine.estimate(bound, call)
    steps = machine.timings.count(bound.name, machine.device, machine.dtype, size_of(call))
    grounds = f"from {steps} measured steps" if steps else "by formula"
    told = "time unknown" if cost.seconds is None else f"about {cost.seconds:.1f} s"
    told += "" if cost.memory_bytes is None else f", {cost.memory_bytes / 2**30:.1f} GiB of memory"
    return Finding("ok", subject, f"{len(listing.candidates)} at the start; {told} ({grounds})")


def _planner(profile: Profile) -> str:
    from lamdatui.inputs.workspace import planner_settings
    from lamdatui.policy import known_policy

    known_policy(profile.policy.name)
    if profile.policy.name == "scripted" and not profile.policy.script:
        raise LamdatuiError("the policy scripted needs a script", where="policy.script", fix="list its actions in the profile")
    settings = planner_settings(profile, 1)
    if settings is None:
        return f"none: the policy {profile.policy.name} chooses without one"
    if settings.backend == "openai":
        return f"server at {settings.url}, reached when the run starts (lamdatui planner check tries it now)"
    if settings.backend == "vllm":
        from lamdatui.planner import vllm

        return f"vLLM: {vllm.shown(settings, 8000, vllm.find_executable(settings))}"
    path = Path(settings.model)
    return f"{settings.backend}, {path.name}, {path.stat().st_size / 2**20:.0f} MiB"


PACKAGES = (
    "torch",
    "transformers",
    "trl",
    "peft",
    "accelerate",
    "datasets",
    "mergekit",
    "xllamacpp",
    "optuna",
    "scikit-learn",
    "textual",
    "apsw",
)


def _servers() -> Finding:
    import asyncio

    from lamdatui.planner.discover import discover

    found = asyncio.run(discover())
    return Finding("ok", "planner servers", "; ".join(map(str, found)) or "none answers here; the embedded planner needs none")


def check_machine() -> list[Finding]:
    """Findings about this machine and installation. Imports nothing heavy: versions come from package metadata."""
    findings = [Finding("ok", "lamdatui", f"{__version__} on Python {sys.version.split()[0]}")]
    for name in PACKAGES:
        try:
            findings.append(Finding("ok", name, version(name)))
        except PackageNotFoundError:
            findings.append(Finding("bad", name, "not installed", "make install"))
    findings += [
        _bitsandbytes(),
        _vllm(),
        _gpu(),
        _cpu(),
        _network(),
        _sqlite(),
        _disk(),
        _terminal(),
        _settings(),
        *_catalogue(),
        _servers(),
    ]
    return findings


def _bitsandbytes() -> Finding:
    try:
        return Finding("ok", "bitsandbytes", version("bitsandbytes"))
    except PackageNotFoundError:
        return Finding(
            "info", "bitsandbytes", "not installed; qlora and 8-bit optimisers need it", "pip install 'lamdatui[qlora]'"
        )


def _vllm() -> Finding:
    if path := shutil.which("vllm"):
        return Finding("ok", "vLLM", path)
    fix = "python3 -m venv ~/.vllm && ~/.vllm/bin/pip install vllm==0.32.0, then name ~/.vllm/bin/vllm in the profile"
    return Finding("info", "vLLM", "not on PATH; it serves planners and answers on a GPU, from an environment of its own", fix)


def _gpu() -> Finding:
    from lamdatui.hardware.gpu import read_gpus

    gpus, reason = read_gpus()
    if not gpus:
        return Finding("info", "GPU", f"{reason}; steps run on the CPU, which is enough for the lab and the quickstart")
    names = ", ".join(f"{gpu['name']} {(gpu['memory_total'] or 0) / 2**30:.0f} GiB" for gpu in gpus)
    build = version("torch") if importlib.util.find_spec("torch") else "none"
    if build.endswith("+cpu"):
        fix = "pip install --force-reinstall torch==2.13.0"
        return Finding("warn", "GPU", f"{names}, but torch {build} has no CUDA", fix)
    return Finding("ok", "GPU", names)


def _cpu() -> Finding:
    memory = psutil.virtual_memory()
    cores = len(os.sched_getaffinity(0))
    detail = f"{cores} cores usable, {memory.available / 2**30:.1f} of {memory.total / 2**30:.1f} GiB memory free"
    status: Status = "ok" if memory.available > 6 * 2**30 else "warn"
    return Finding(status, "CPU and memory", detail, "" if status == "ok" else "the quickstart wants about 6 GiB")


def _network() -> Finding:
    refused = network.refusal()
    if refused is None:
        return Finding("ok", "network", network.sentence(network.KERNEL))
    return Finding("warn", "network", network.sentence(network.BY_ENVIRONMENT + refused.why), refused.fix)


def _sqlite() -> Finding:
    import apsw

    found = apsw.sqlitelibversion()
    if tuple(map(int, found.split("."))) < (3, 51, 3):
        return Finding("bad", "SQLite", f"{found} can corrupt a WAL database", "pip install -U apsw")
    return Finding("ok", "SQLite", f"{found} (bundled with apsw)")


def _disk() -> Finding:
    place = paths.cache_dir()
    existing = next(folder for folder in [place, *place.parents] if folder.exists())
    free = shutil.disk_usage(existing).free
    status: Status = "ok" if free > 5 * 2**30 else "warn"
    return Finding(
        status, "disk of the cache", f"{free / 2**30:.1f} GiB free at {place}", "" if status == "ok" else "free some space"
    )


def _terminal() -> Finding:
    size = shutil.get_terminal_size()
    term = os.environ.get("TERM", "")
    if not sys.stdout.isatty():
        return Finding("ok", "terminal", "none here; headless runs need none")
    if term in ("", "dumb"):
        return Finding("warn", "terminal", f"TERM={term or 'unset'}", "set TERM, for example to xterm-256color")
    return Finding("ok", "terminal", f"{term}, {size.columns}x{size.lines}")


def _settings() -> Finding:
    def look() -> str:
        from lamdatui.config.settings import load_settings
        from lamdatui.ui.keys.keymap import checked

        settings = load_settings()
        changed = len(checked(settings.keymap, str(settings.path)))
        if not settings.path.exists():
            return f"defaults; there is no {settings.path}"
        return f"{settings.path}, {changed} key{'' if changed == 1 else 's'} changed"

    return tried("settings", look)


def _catalogue() -> list[Finding]:
    from lamdatui.catalogue.entries import ENTRIES
    from lamdatui.catalogue.fetch import local

    findings = []
    for entry in ENTRIES.values():
        path = local(entry.name)
        if path is None:
            fix = f"lamdatui models fetch {entry.name}"
            detail = "not made yet; a run that needs it makes it" if fix in MADE else "not fetched; only what names it needs it"
            findings.append(Finding("info", entry.name, detail, "" if fix in MADE else fix))
        else:
            findings.append(Finding("ok", entry.name, str(path)))
    return findings
