"""The warm step host: pays for the imports once, then starts each step in milliseconds.

It reads one JSON command a line on stdin (`{"start": DIRECTORY}`) and answers on stdout with `{"network": ...}` at once
(`lamdatui.base.network`: it and its steps have no interface but loopback), `{"ready": ...}` after its imports,
`{"started": DIRECTORY, "pid": N}` and `{"exited": N, "status": CODE}` (minus the signal when killed). It ends at EOF:
it lives and dies with the engine; its steps, each a session of its own, do not.

Two ways to start a step. `fork`: a child of this process; safe only while nothing here has touched CUDA and no other
thread works. `spare`: this process itself becomes the step, and the engine starts the next spare.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import selectors
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil

from lamdatui.base.network import ONLINE, fence

PR_SET_PDEATHSIG = 1
_ANSWERS = 1
"""File descriptor of the answers; `main` moves it away from 1, where a library might print."""


def _die_with(parent: int) -> None:
    """Have the kernel end this process when the engine ends, which imports would not notice; `parent` 0: live on (Linux)."""
    if not sys.platform.startswith("linux"):
        return
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL if parent else 0, 0, 0, 0)
    if parent and os.getppid() != parent:
        raise SystemExit("the engine has ended")


def _make_gpu_files() -> None:
    """Have the NVIDIA driver's device files: CUDA makes what is missing by a setuid program, which a fence leaves no rights."""
    program = shutil.which("nvidia-modprobe")
    if program and Path("/proc/driver/nvidia").exists() and not Path("/dev/nvidia-uvm").exists():
        subprocess.run([program, "-c0", "-u"], stdin=subprocess.DEVNULL, check=False)


def _network() -> str:
    """Fence this process and its steps, unless they may use the network; what holds from now on."""
    if ONLINE in sys.argv[1:]:
        return ONLINE
    _make_gpu_files()
    return fence()


def _say(**frame: object) -> None:
    os.write(_ANSWERS, json.dumps(frame).encode() + b"\n")


def import_everything() -> None:
    """Import what steps work with, models and trainers and merges, and set the number of threads as the environment says."""
    # Four thousand modules are kept for good: looking for garbage among them takes a quarter of the time.
    gc.disable()
    import datasets
    import peft  # noqa: F401
    import torch
    from mergekit import merge  # noqa: F401
    from transformers import AutoModelForCausalLM, Trainer  # noqa: F401
    from transformers.conversion_mapping import get_checkpoint_conversion_mapping
    from transformers.utils.logging import disable_progress_bar
    from trl.trainer.dpo_trainer import DPOTrainer  # noqa: F401
    from trl.trainer.sft_trainer import SFTTrainer  # noqa: F401

    # What `child` and `context` import where they use it.
    from lamdatui.step import checkpoints, child, earlystop, probe, scores, training  # noqa: F401

    # Bars that redraw themselves fill a log with noise; what goes on is in metrics.jsonl.
    datasets.disable_progress_bars()
    disable_progress_bar()
    # Hundreds of regular expressions, compiled at the first load of a model: once here instead of in every step.
    get_checkpoint_conversion_mapping("llama")
    # A step's collections need not look at (and, forked, copy) what the imports left.
    gc.freeze()
    gc.enable()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))


def _busy_threads() -> int:
    """How many threads besides this one used CPU time within a short look: forking would cut them in half."""
    process = psutil.Process()
    mine = process.pid
    before = {t.id: t.user_time + t.system_time for t in process.threads()}
    time.sleep(0.05)
    return sum(1 for t in process.threads() if t.id != mine and t.user_time + t.system_time > before.get(t.id, 0.0))


def _fork_is_safe() -> tuple[bool, str]:
    import torch

    if torch.cuda.is_initialized():
        return False, "CUDA is initialised in the host"
    if torch.cuda.is_available():
        return False, "a CUDA device is there"
    busy = _busy_threads()
    return busy == 0, f"{busy} busy threads" if busy else ""


def _start(directory: Path, mode: str, own: list[int]) -> None:
    from lamdatui.config.resources import load_registry
    from lamdatui.step.child import enter, run_step

    pid = os.fork() if mode == "fork" else 0
    if pid:
        _say(started=str(directory), pid=pid)
        return
    if mode == "spare":
        _die_with(0)  # a step outlives the engine; a fork's child has not inherited it
        _say(started=str(directory), pid=os.getpid())
    status = 70
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        enter(directory)
        # By name, not by range: the NVIDIA driver's files may be among the others.
        for fd in (*own, _ANSWERS):
            os.close(fd)
        status = run_step(directory, load_registry(step=True))
    finally:
        sys.stdout.flush()
        os._exit(status)


def _reap() -> None:
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if not pid:
            return
        _say(exited=pid, status=os.waitstatus_to_exitcode(status))


def main() -> None:
    """Serve until stdin ends."""
    global _ANSWERS
    _die_with(int(os.environ.pop("LAMDATUI_ENGINE", "0")))
    _ANSWERS = os.dup(1)
    os.dup2(2, 1)
    _say(network=_network())
    import_everything()
    safe, why = _fork_is_safe()
    mode = os.environ.get("LAMDATUI_STEP_HOST") or ("fork" if safe else "spare")
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    _say(ready=True, mode=mode, why=why, pid=os.getpid(), threads=psutil.Process().num_threads(), cuda=count)
    selector = selectors.DefaultSelector()
    selector.register(0, selectors.EVENT_READ)
    selector.register(reader, selectors.EVENT_READ)
    pending = b""
    while True:
        for key, _ in selector.select():
            if key.fd == reader:
                os.read(reader, 4096)
                _reap()
                continue
            data = os.read(0, 65536)
            if not data:
                return
            pending += data
            while b"\n" in pending:
                line, pending = pending.split(b"\n", 1)
                _start(Path(json.loads(line)["start"]), mode, [reader, writer, selector.fileno()])


if __name__ == "__main__":
    main()
