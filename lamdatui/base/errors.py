"""The one error type that a person can act on, and the exit codes of the commands."""

from __future__ import annotations

EXIT_DONE = 0
EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_REFUSED = 3
EXIT_PLANNER = 4
EXIT_INTERRUPTED = 130

UNCONFIRMED = "what this profile would run or reach is not confirmed"
"""How the error of a profile that has to be confirmed first begins: the start screen knows it by this and asks."""
CONFIRM_TITLE = "This profile names what lamdatui neither starts nor reaches unasked:"
"""How the text begins that a person has to confirm."""


MOST_CHARS = 2000
"""Of what an error says in each of its three lines: it quotes what others wrote, which may be of any length."""


def _line(text: str) -> str:
    line = text if text.isprintable() else " ".join(text.split())
    return line if len(line) <= MOST_CHARS else f"{line[:MOST_CHARS]}…"


class LamdatuiError(Exception):
    """What went wrong, where, and how to fix it.

    The command line prints it as at most three lines and exits with `exit_code`; the console shows it as a card.
    """

    def __init__(self, what: str, *, where: str = "", fix: str = "", exit_code: int = EXIT_USAGE) -> None:
        super().__init__(what)
        self.what = _line(what)
        self.where = _line(where)
        self.fix = _line(fix)
        self.exit_code = exit_code

    def __str__(self) -> str:
        lines = [f"error: {self.what}"]
        if self.where:
            lines.append(f"  where: {self.where}")
        if self.fix:
            lines.append(f"  fix:   {self.fix}")
        return "\n".join(lines)
