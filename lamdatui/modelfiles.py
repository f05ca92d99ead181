"""What action files import to look at model directories."""

from lamdatui.inputs.modelfiles import *  # noqa: F403
