"""What action files import to read datasets."""

from lamdatui.inputs.datafiles import *  # noqa: F403
