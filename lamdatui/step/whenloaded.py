"""What is done with a module as soon as there is one: a step that works on data alone imports no torch, unless its action does."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any


def when_loaded(name: str, do: Callable[[Any], None]) -> None:
    """Call `do` with a module: now where it is imported, else when somebody imports it, before they see it."""
    if name in sys.modules:
        do(sys.modules[name])
    else:
        sys.meta_path.insert(0, _Watch(name, do))


class _Watch(MetaPathFinder):
    """Finds one module, once, as whoever stands behind it in the list finds it."""

    def __init__(self, name: str, do: Callable[[Any], None]) -> None:
        self._name = name
        self._do = do

    def find_spec(self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        """See `MetaPathFinder`."""
        if fullname != self._name:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        if spec is None or spec.loader is None:
            return spec
        loader, execute = spec.loader, spec.loader.exec_module

        def executed(module: ModuleType) -> None:
            loader.exec_module = execute
            execute(module)
            self._do(module)

        loader.exec_module = executed
        return spec
