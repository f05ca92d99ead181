"""Which program generates the answers of a run."""

from __future__ import annotations

import os
import shlex
import shutil

from lamdatui.base.errors import LamdatuiError
from lamdatui.domain.schemes import GENERATORS
from lamdatui.inputs.workspace import Workspace

WORTH_IT = 10**9
"""Parameters of a base from which on vLLM is worth the time that it takes to start."""
TRANSFORMERS, VLLM = GENERATORS


def generator(workspace: Workspace, device: str) -> str:
    """What a new run generates its answers with, by its profile and by what is there: a backend, and the flags that it is given.

    Raises LamdatuiError where that can't be.
    """
    chosen = _backend(workspace, device)
    return shlex.join([chosen, *workspace.profile.generation.arguments]) if chosen == VLLM else chosen


def kept(workspace: Workspace, begun: str) -> str:
    """The same for a run that began with `begun`. Raises LamdatuiError where its profile has other flags now: its scores would mix."""
    now = shlex.join([VLLM, *workspace.profile.generation.arguments])
    if begun.partition(" ")[0] == VLLM and begun != now:
        fix = f"set them back ({begun}), or start another run with --name"
        raise LamdatuiError("generation.arguments are not those of the run's start", where="generation.arguments", fix=fix)
    return begun


def _backend(workspace: Workspace, device: str) -> str:
    spec = workspace.profile.generation
    own = [name for name, task in workspace.tasks.items() if task.asking.generation == "own"]
    program = shutil.which(os.path.expanduser(spec.executable or "vllm"))
    if spec.backend == "auto":
        size = max(model.parameters for model in workspace.models.values())
        return VLLM if device.startswith("cuda") and program and size >= WORTH_IT and not own else TRANSFORMERS
    if spec.backend == VLLM and own:
        fix = "use generation.backend: transformers, or drop the task's generation: own"
        raise LamdatuiError(f"vLLM does not follow generation: own (task {own[0]})", where="generation.backend", fix=fix)
    if spec.backend == VLLM and program is None:
        fix = "give the `vllm` command, or a Python that has it, in generation.executable (docs/planner.md says how to install it)"
        raise LamdatuiError(
            f"there is no vLLM: {spec.executable or 'vllm'} can't be run", where="generation.executable", fix=fix
        )
    return spec.backend
