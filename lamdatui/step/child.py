"""One step, from its claim to its outcome. Runs in a process of its own session, so that it outlives the engine."""

from __future__ import annotations

import errno
import gc
import os
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, cast

from jinja2 import TemplateError

from lamdatui.base.errors import LamdatuiError
from lamdatui.base.faults import fault
from lamdatui.base.fingerprint import Changed, DamagedObject
from lamdatui.base.jsonio import Damaged, read_record, write_json
from lamdatui.domain.actions import Registry
from lamdatui.step import stop
from lamdatui.step.context import StepContext
from lamdatui.step.errors import DryRun, StepError, Stopped
from lamdatui.step.files import LOG, REQUEST, TRAINED, claim, write_outcome
from lamdatui.step.heap import give_back
from lamdatui.step.memory import is_out_of_memory, peaks
from lamdatui.step.promises import check_inputs
from lamdatui.step.request import StepRequest, first_parent, produced, stored_inputs
from lamdatui.step.whenloaded import when_loaded
from lamdatui.store import checkpoints


def enter(directory: Path) -> None:
    """Become the step's process: own session, output to its log, no terminal."""
    if os.getsid(0) != os.getpid():
        # A spare was started in a session of its own: it leads one already.
        os.setsid()
    log = os.open(directory / LOG, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    null = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((null, 0), (log, 1), (log, 2)):
        os.dup2(source, target)
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    stop.listen()
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]


def run_step(
    directory: Path,
    registry: Registry,
    *,
    dry_run: bool = False,
    on_error: Callable[[BaseException], None] | None = None,
) -> int:
    """Do the work of an attempt; 0 when its outcome is ok. Does nothing when somebody else has the claim.

    A dry run ends where the configuration is known, and says so in the outcome (`dry-run`). `on_error` gets what the work
    raised, with its traceback, before the outcome is written.
    """
    fault("step.before-claim")
    if not claim(directory, "step"):
        return 0
    outcome: dict[str, Any] = {"status": "failed", "cached": False, "seconds": {}, "error": None}
    try:
        request = read_record(directory / REQUEST)
        _choose_gpu(request)
        when_loaded("torch", lambda torch: torch.set_num_threads(request["threads"]))
        outcome["plan"] = plan = request.get("plan")
        if plan and plan["checkpointing"] and request["device"] == "cpu":
            give_back()  # memory is short
        outcome |= _work(directory, request, registry, dry_run)
        outcome["status"] = "ok"
    except DryRun:
        outcome["status"] = "dry-run"
    except BaseException as error:  # noqa: BLE001 (every way to end has an outcome)
        outcome["error"] = classify(error)
        print(traceback.format_exc(), flush=True)
        if on_error is not None:
            on_error(error)
    outcome = peaks() | outcome
    fault("step.before-outcome")
    write_outcome(directory, outcome)
    fault("step.after-outcome")
    return 0 if outcome["status"] in ("ok", "dry-run") else 1


def _choose_gpu(request: dict[str, Any]) -> None:
    """Let this process see its slot's GPU alone: trainers and mergekit take the first one they see."""
    kind, _, index = request["device"].partition(":")
    if kind != "cuda":
        return
    visible = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    os.environ["CUDA_VISIBLE_DEVICES"] = visible[int(index)] if visible else index
    request["device"] = "cuda:0"


def classify(error: BaseException) -> dict[str, str]:
    """The error's class and one line: see StepError."""
    message = f"{type(error).__name__}: {error}".splitlines()[0][:500]
    if stop.asked() or isinstance(error, Stopped):
        return {"class": "killed", "message": "stopped on request"}
    if isinstance(error, StepError):
        return {"class": error.kind, "message": str(error)}
    if is_out_of_memory(error):
        return {"class": "oom-train", "message": message}
    if is_disk_full(error):
        return {"class": "disk", "message": message}
    if isinstance(error, Changed):
        return {"class": "changed", "message": f"{error.what} ({error.where})"}
    if isinstance(error, (DamagedObject, Damaged)):
        return {"class": "damaged", "message": message}
    if isinstance(error, LamdatuiError):
        return {"class": "data", "message": f"{error.what} ({error.where})"}
    if isinstance(error, TemplateError):
        return {"class": "template", "message": message}
    if isinstance(error, UnicodeError):
        return {"class": "data", "message": f"text that can't be encoded: {message}"}
    if isinstance(error, IndexError) and "index out of range in self" in str(error):
        return {
            "class": "data",
            "message": "a row has more tokens than the model has positions; lower max_length, or cut the rows",
        }
    return {"class": "bug", "message": message}


def is_disk_full(error: BaseException) -> bool:
    """Whether the disk was full; libraries that are not Python's tell it as text."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return True
    words = ("No space left on device", "PytorchStreamWriter failed writing")
    return isinstance(error, Exception) and any(word in str(error) for word in words)


def _work(directory: Path, request: dict[str, Any], registry: Registry, dry_run: bool) -> dict[str, Any]:
    from lamdatui.store.artifacts import Store

    store = Store(Path(request["store"]), always=request["always"])
    with store.lock(request["digest"]), store.staging() as staged, ExitStack() as leaving:
        step = StepContext(directory, request, staged, dry_run=dry_run)
        leaving.callback(step.close)
        leaving.enter_context(store.using(stored_inputs(request)))
        began = time.monotonic()
        cached = request["action"] is not None
        if wrong := store.problem(request["digest"]):
            step.say(f"the store has it damaged ({', '.join(wrong)}): put aside in {store.put_aside(request['digest'])}")
        if cached and store.find(request["digest"]) is None:
            cached = False
            check_inputs(store, request)
            _execute(step, registry, store)
            step.close()
        executed = time.monotonic()
        stop.check()
        _evaluate(step, store)
    return {
        "cached": cached,
        "plan": None if cached else request.get("plan"),
        "resumed": step.resumed,
        "ended_early": step.ended_early,
        **step.peaks,
        "seconds": {"execute": round(executed - began, 3), "evaluate": round(time.monotonic() - executed, 3)},
    }


def _execute(step: StepContext, registry: Registry, store: Any) -> None:
    action = step.request["action"]
    write_json(step.directory / TRAINED, {"digest": action["digest"], "pid": os.getpid()})
    step.say(f"{action['type']} {action['inputs']} {action['params']}")
    when_loaded("torch", lambda torch: torch.manual_seed(step.seed))
    try:
        registry.get(action["type"]).type.run(step)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise StepError(f"oom-{step.phase}", str(error).splitlines()[0][:500]) from error
    if step.result is None:
        raise StepError("bug", f"the action {action['type']} ended without a result (no finish_* call)")
    shutil.rmtree(step.staged / ".trainer", ignore_errors=True)
    try:
        store.publish(step.staged, action["digest"], {**step.result, "action": action})
        checkpoints.drop(store.root, action["digest"])
    except OSError as error:
        if not is_disk_full(error):
            raise
        raise StepError("disk", f"no room to publish the model: {error}") from error
    step.say(f"published {action['digest'][:12]} ({step.result['kind']})")


def _evaluate(step: StepContext, store: Any) -> None:
    wanted = [request for request in step.request["evaluations"] if store.evaluation(request["key"]) is None]
    if not wanted:
        return
    reference = step.request["subject"]
    if reference is None:
        reference = produced(
            step.request["digest"], store.manifest(step.request["digest"]), first_parent(cast(StepRequest, step.request))
        )
    # A step that works on data alone comes never here, and has no torch.
    from lamdatui.step.scores import score_model

    gc.collect()
    try:
        score_model(step, store, reference, wanted)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise StepError("oom-eval", str(error).splitlines()[0]) from error
