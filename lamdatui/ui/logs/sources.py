"""Which logs a run has: of every step, of the engine, the planner and the step host. Pure: state in, lines out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lamdatui.base.text import one_line
from lamdatui.domain.state import RunState
from lamdatui.domain.trials import StepRecord
from lamdatui.ui.view.format import Line, Mark, duration, mark
from lamdatui.ui.view.state import ViewState
from lamdatui.ui.view.stepfiles import step_folder

NEWEST = "newest"
FILES = {
    "engine": ("engine", "the engine: what it could not handle"),
    "planner": ("planner", "the planner's server"),
    "steps": ("step host", "what starts the steps"),
}


@dataclass(frozen=True, slots=True)
class LogSource:
    """A log. `key` is `newest`, `step:KEY` or a name of `FILES`; `path` is None while there is no step."""

    key: str
    name: str
    path: Path | None
    step: StepRecord | None = None

    @property
    def grows(self) -> bool:
        """Whether more can come: a step that ended writes no more."""
        return self.step is None or self.step.status in ("intended", "running")


def source(key: str, view: ViewState, run_dir: Path) -> LogSource:
    """The log of a key; the newest step's where the key is of a step that there isn't."""
    if key in FILES:
        return LogSource(key, FILES[key][0], run_dir / f"{key}.log")
    step = view.run.steps.get(key.removeprefix("step:")) or view.shown_step
    folder = step_folder(run_dir, step.key) if step else None
    name = f"step {step.key}, {step.purpose}" if step else "step"
    return LogSource(key, name, folder / "log.txt" if folder else None, step)


def keys(state: RunState, run_dir: Path) -> list[str]:
    """Every log of the run: the newest step first, the steps from the last to the first, then the processes."""
    steps = [f"step:{key}" for key in reversed(state.steps)]
    return [NEWEST, *(name for name in FILES if _exists(run_dir / f"{name}.log")), *steps]


def beside(key: str, by: int, view: ViewState) -> str:
    """The step after (`by` 1) or before (-1) the one that is shown; stays at the ends."""
    steps = list(view.run.steps)
    shown = view.run.steps.get(key.removeprefix("step:")) or view.shown_step
    if not steps or shown is None:
        return key
    return f"step:{steps[max(0, min(len(steps) - 1, steps.index(shown.key) + by))]}"


def line(key: str, view: ViewState) -> Line:
    """One row of the chooser: `✗ step 7/1   failed    train, trial 7, 3.2 s  oom-train: …`."""
    if key in FILES:
        name, what = FILES[key]
        return (("· ", "dim"), (f"{name:<22}", "strong"), (what, "dim"))
    if key == NEWEST:
        shown = view.shown_step
        return (("↓ ", "run"), (f"{'newest step':<22}", "strong"), (f"now {shown.key}" if shown else "none yet", "dim"))
    step = view.run.steps[key.removeprefix("step:")]
    sign = step_mark(step)
    parts = [step.purpose]
    if step.trial is not None and step.key.partition("/")[0] != str(step.trial):
        parts.append(f"trial {step.trial}")
    taken = [value for value in step.seconds.values() if isinstance(value, int | float)]
    if taken:
        parts.append(duration(sum(taken)))
    error = f"  {cause(step)}" if step.error else ""
    return (
        (f"{sign.glyph} ", sign.tone),
        (f"{step.key:<22}", "strong"),
        (f"{sign.word:<9} ", sign.tone),
        (", ".join(parts), "plain"),
        (error, "bad"),
    )


def step_mark(step: StepRecord) -> Mark:
    """The state of a step as glyph and word."""
    if step.cached:
        return mark("cached")
    return {"ok": mark("done"), "intended": Mark("·", "starting", "dim"), "void": Mark("⊘", "not run", "dim")}.get(
        step.status, mark(step.status)
    )


def cause(step: StepRecord | None) -> str:
    """Why a step failed, on one line; empty when it did not."""
    if step is None or not step.error or step.status in ("ok", "void"):
        return ""
    return one_line(f"{step.error.get('class', 'failed')}: {step.error.get('message', 'no reason was written')}")


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:
        return False
