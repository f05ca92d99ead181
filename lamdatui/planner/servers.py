"""Which server a planner's settings mean."""

from __future__ import annotations

from pathlib import Path

from lamdatui.planner.embedded import EmbeddedServer
from lamdatui.planner.external import ExternalServer
from lamdatui.planner.guarded import LlamaCppPythonServer, VllmServer
from lamdatui.planner.server import PlannerServer
from lamdatui.planner.settings import PlannerSettings

SERVERS: dict[str, type[PlannerServer]] = {
    "llamacpp": EmbeddedServer,
    "llama-cpp-python": LlamaCppPythonServer,
    "vllm": VllmServer,
    "openai": ExternalServer,
}


def planner_server(settings: PlannerSettings, log_path: Path) -> PlannerServer:
    """The server of `planner.backend`, not started yet; its output goes to `log_path`."""
    return SERVERS[settings.backend](settings, log_path)
