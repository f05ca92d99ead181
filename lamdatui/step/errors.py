"""How a step's work ends when it does not end well."""

from __future__ import annotations


class StepError(Exception):
    """A failure with a class that people and policies can use: oom-train, oom-eval, oom-save, oom-merge, nan, data,
    template (a chat template does not take a row), model (it can't be loaded), disk, generator (vLLM), killed, bug."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class Stopped(BaseException):
    """SIGTERM: stop cleanly, write the outcome."""


class DryRun(BaseException):
    """The configuration was printed; nothing more was wanted. Not an Exception: no action may take it for a failure."""
