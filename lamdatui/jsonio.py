"""What action files import to read and write JSON."""

from lamdatui.base.jsonio import *  # noqa: F403
