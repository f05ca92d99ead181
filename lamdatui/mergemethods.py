"""What action files import to learn of mergekit's methods."""

from lamdatui.actionkit.mergespecs import *  # noqa: F403
