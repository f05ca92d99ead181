"""What action files import to estimate seconds and memory; see docs/writing-actions.md."""

from lamdatui.actionkit.costs import *  # noqa: F403
