"""The user's settings: `config.toml` in the config folder. Strict: what is not known is an error that names the nearest word.

```toml
[ui]
theme = "dark"            # dark, light, contrast, ansi-dark, ansi-light, or any theme that the palette lists
ascii = false             # true: only ASCII on the screen; false: never; not set: as the locale says
notifications = "full"    # full, bell or off
animation = true

[keymap]
pause = "f7,p"            # an id of `lamdatui keys` = its keys, as text with commas or as a list
```
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lamdatui.base import paths
from lamdatui.base.errors import LamdatuiError
from lamdatui.base.jsonio import regular

NOTIFICATIONS = ("full", "bell", "off")
"""`full`: bell, window title and a desktop notification where the terminal has them; `bell`: bell and title only."""


@dataclass(frozen=True, slots=True)
class UiSettings:
    """The section `[ui]`. `theme` is empty and `ascii` is None where the file does not say."""

    theme: str = ""
    ascii: bool | None = None
    notifications: str = "full"
    animation: bool = True


@dataclass(frozen=True, slots=True)
class Settings:
    """The whole file. `keymap` is checked against the key table by `lamdatui.ui.keys.keymap`."""

    path: Path
    ui: UiSettings = field(default_factory=UiSettings)
    keymap: dict[str, str] = field(default_factory=dict)


def settings_file() -> Path:
    """Where the settings are read from; the file need not exist."""
    return paths.config_dir() / "config.toml"


def load_settings() -> Settings:
    """The settings, defaults where the file says nothing. Raises LamdatuiError for anything that is not understood."""
    path = settings_file()
    try:
        text = regular(path).read_text(encoding="utf-8")
    except FileNotFoundError:
        return Settings(path)
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise LamdatuiError(f"can't read the settings: {reason}", where=str(path)) from error
    # Imported here: most people have no such file, and the first paint does without the parser.
    import tomllib

    try:
        found = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise LamdatuiError(f"the settings are not TOML: {error}", where=str(path)) from error
    return parse(found, path)


def parse(found: Mapping[str, Any], path: Path) -> Settings:
    """Settings from the parsed file. Raises LamdatuiError."""
    _known(found, ("ui", "keymap"), "section", str(path))
    for name in found:
        if not isinstance(found[name], dict):
            raise LamdatuiError(f"{name} is a section", where=str(path), fix=f"write [{name}] on a line of its own")
    return Settings(path, _ui(found.get("ui", {}), path), _keymap(found.get("keymap", {}), path))


def _ui(found: Mapping[str, Any], path: Path) -> UiSettings:
    where = f"{path}, [ui]"
    _known(found, UiSettings.__dataclass_fields__, "setting", where)
    for name, kind in (("theme", str), ("ascii", bool), ("notifications", str), ("animation", bool)):
        if name in found and not isinstance(found[name], kind):
            wanted = "true or false" if kind is bool else "text in quotes"
            raise LamdatuiError(f"{name} is {wanted}, not {found[name]!r}", where=where)
    if "notifications" in found and found["notifications"] not in NOTIFICATIONS:
        raise LamdatuiError(
            f"no notifications {found['notifications']!r}", where=where, fix=suggestion(found["notifications"], NOTIFICATIONS)
        )
    return UiSettings(**found)


def _keymap(found: Mapping[str, Any], path: Path) -> dict[str, str]:
    keymap = {}
    for name, keys in found.items():
        listed = [keys] if isinstance(keys, str) else keys
        if not isinstance(listed, list) or not listed or not all(isinstance(key, str) and key for key in listed):
            fix = f'{name} = "f7,p" or {name} = ["f7", "p"]'
            raise LamdatuiError(f"{name} needs keys", where=f"{path}, [keymap]", fix=fix)
        keymap[name] = ",".join(listed)
    return keymap


def _known(found: Iterable[str], known: Iterable[str], what: str, where: str) -> None:
    for name in found:
        if name not in known:
            raise LamdatuiError(f"no {what} {name!r}", where=where, fix=suggestion(name, known))


def suggestion(word: str, known: Iterable[str]) -> str:
    """What a person may have meant, or everything that is possible."""
    names = list(known)
    close = difflib.get_close_matches(word, names, n=1, cutoff=0.5)
    return f"did you mean {close[0]!r}?" if close else f"one of: {', '.join(names)}"
