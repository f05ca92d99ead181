"""Chat templates by name, for models that come without one: those that installed packages ship, found without importing them, or a file."""

from __future__ import annotations

import difflib
import importlib.util
from pathlib import Path

from lamdatui.base.errors import LamdatuiError
from lamdatui.base.jsonio import regular

SUFFIX = ".jinja"
PLACES = (("mergekit", "_data/chat_templates"), ("trl", "chat_templates"))
"""Package → the folder of its templates; of two templates with one name the first one's is taken."""
SHORT = {"qwen": "qwen2_5", "qwen2": "qwen2_5", "llama": "llama3", "phi": "phi3", "cohere": "cohere2"}
"""What people say → the template that they mean."""


def names() -> dict[str, Path]:
    """Name → file of every template that is here. Variants for training are left out: what is trained is told otherwise."""
    found: dict[str, Path] = {}
    for package, folder in PLACES:
        spec = importlib.util.find_spec(package)
        for root in (spec.submodule_search_locations or ()) if spec else ():
            for file in sorted((Path(root) / folder).glob(f"*{SUFFIX}")):
                if not file.stem.endswith("_training"):
                    found.setdefault(file.stem, file)
    return found


def template_text(told: str) -> str:
    """The text of a template that a profile names. Raises LamdatuiError with the nearest name."""
    path = Path(told)
    if not told.endswith(SUFFIX) and "/" not in told:
        known = names()
        name = told.lower().replace("-", "_").replace(".", "_")
        name = name if name in known else SHORT.get(name, name)
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            fix = (
                f"did you mean {close[0]!r}?"
                if close
                else f"known: {', '.join(sorted(known))}; or a file that ends in {SUFFIX}"
            )
            raise LamdatuiError(f"no chat template named {told!r}", fix=fix)
        path = known[name]
    try:
        return regular(path).read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise LamdatuiError(f"can't read the chat template: {error}", where=str(path)) from error
