"""What action files import to declare a type; see docs/writing-actions.md."""

from lamdatui.domain.actions import *  # noqa: F403
from lamdatui.domain.plans import *  # noqa: F403
from lamdatui.domain.training import *  # noqa: F403
