"""lamdatui: a terminal console in which a local LLM explores LLM post-training pipelines."""

__version__ = "0.1.0"
