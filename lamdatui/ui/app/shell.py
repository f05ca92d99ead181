"""What every app of the console has: settings, themes, keys, the ASCII set, help, the palette, copying, screenshots."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterable
from functools import partial
from typing import Any, ClassVar, TypeVar

from rich.console import RenderableType
from textual import events, on
from textual.app import App, SystemCommand
from textual.binding import Binding
from textual.dom import DOMNode
from textual.filter import LineFilter, Monochrome, NoColor
from textual.screen import Screen

from lamdatui.base.errors import LamdatuiError
from lamdatui.base.paths import state_dir
from lamdatui.base.text import one_line
from lamdatui.config.settings import Settings, load_settings, settings_file, suggestion
from lamdatui.ui.app import ascii, themechoice
from lamdatui.ui.app.keyqueue import Passed, Turns
from lamdatui.ui.app.theme import DARK, OURS, SHORT
from lamdatui.ui.keys.table import KEYS, Key, bindings, display, function_key, shown, use_keymap

Result = TypeVar("Result")


class ShellApp(App[Result]):
    """Reads the settings before the first paint; what is wrong with them becomes a toast, and the defaults are used."""

    TITLE = "lamdatui"
    BINDINGS = [*bindings("always", "app")]
    BINDING_GROUP_TITLE = "Everywhere"

    own_process: bool = False
    """Whether nothing else lives in this process: its garbage collector is the app's, and it may be ended."""
    leave_within: float = 10.0
    """Seconds. Whatever does not end in this time after the person has left must not keep the terminal."""
    leaving: ClassVar[threading.Timer | None] = None
    """Ends the process when they are over, whichever app it shows."""

    def __init__(self) -> None:
        super().__init__()
        for theme in OURS:
            self.register_theme(theme)
        self._problem = ""
        self._remembering = False
        self._turns = Turns(self, self._take)
        self.settings, keymap = self._settings()
        use_keymap(keymap)
        self.set_keymap(keymap)
        self._plain = NoColor()
        self._ascii = ascii.AsciiFilter(enabled=ascii.wanted(self.settings.ui.ascii))
        if not self.settings.ui.animation:
            self.animation_level = "none"
        self.theme = self._first_theme()

    def _settings(self) -> tuple[Settings, dict[str, str]]:
        try:
            found = load_settings()
            if not found.keymap:
                return found, {}
            from lamdatui.ui.keys.keymap import checked

            return found, checked(found.keymap, str(found.path))
        except LamdatuiError as error:
            self._problem = one_line(f"{error.what}. {error.fix}" if error.fix else error.what)
            return Settings(settings_file()), {}

    def _first_theme(self) -> str:
        asked = self.settings.ui.theme
        name = SHORT.get(asked, asked)
        if name and name not in self.available_themes:
            self._problem = one_line(f"no theme {asked!r}. {suggestion(asked, [*SHORT, *self.available_themes])}")
            name = ""
        name = name or themechoice.remembered_theme()
        return name if name in self.available_themes else DARK.name

    def refresh_css(self, animate: bool = True) -> None:
        """Textual asks for it because of the theme before there is a screen; the rules would be parsed for it and once more for the screen."""
        if self.screen_stack:
            super().refresh_css(animate=animate)
        else:
            self.stylesheet.set_variables(self.get_css_variables())

    async def on_event(self, event: events.Event) -> None:
        if isinstance(event, (events.Key, events.Paste)) and not event.is_forwarded:
            await self._turns.handle(event)
        else:
            await self._take(event)

    async def _take(self, event: events.Event) -> None:
        if isinstance(event, events.InputEvent) and (self._exit or not self.screen_stack):
            # What was typed after the key that leaves: nothing can be opened any more, and then there is no screen.
            return
        await super().on_event(event)

    @property
    def keys_are_through(self) -> bool:
        """Whether all that was typed has been dealt with."""
        return not self._turns.busy

    @on(Passed)
    async def _key_passed(self, message: Passed) -> None:
        await self._turns.passed(message)

    def on_mount(self) -> None:
        self._remembering = True
        if self._problem:
            self.notify(
                f"{self._problem} Defaults are used.", title=f"settings: {settings_file().name}", severity="error", markup=False
            )

    def watch_theme(self, name: str) -> None:
        """Remember a theme that was chosen while the console runs."""
        if not self._remembering:
            return
        if self.settings.ui.theme:
            self.notify(f"Until you leave: {settings_file().name} names a theme, and it is used at the next start.")
            return
        try:
            themechoice.remember_theme(name)
        except OSError as error:
            self.notify(one_line(error), title="the theme is not remembered", severity="warning", markup=False)

    def get_key_display(self, binding: Binding) -> str:
        return display(binding.key) if function_key(binding.key) else super().get_key_display(binding)

    def get_line_filters(self) -> list[LineFilter]:
        filters = list(super().get_line_filters())
        if self.native_ansi_color:
            # The toolkit chooses when the app is made, and its greys would draw a terminal's own colours black on black.
            filters = [self._plain if isinstance(item, Monochrome) else item for item in filters]
        return [*filters, self._ascii] if self._ascii.enabled else filters

    def action_help(self) -> None:
        from lamdatui.ui.app.help import HelpScreen

        if isinstance(self.screen, HelpScreen):
            self.screen.dismiss()
        else:
            self.push_screen(HelpScreen(self.screen))

    def action_copy(self) -> None:
        from lamdatui.ui.app.copying import text_to_copy

        if text := text_to_copy(self.screen):
            self.copy_to_clipboard(text)
        else:
            self.notify("There is nothing to copy here.")

    def copy_to_clipboard(self, text: str) -> None:
        """Copy, and say where to: see `lamdatui.ui.app.clipboard`."""
        self._clipboard = text
        # A tool of the desktop may take its time.
        self.run_worker(partial(self._copy, text), thread=True, group="copy")

    def _copy(self, text: str) -> None:
        from lamdatui.ui.app.clipboard import FILE_NAME, copy, told

        driver = None if self.is_headless else self._driver
        write = partial(self.call_from_thread, driver.write) if driver else None
        copied = copy(text, os.environ, write, state_dir() / FILE_NAME)
        severity = "information" if copied.ways or copied.file else "error"
        self.call_from_thread(self.notify, one_line(told(copied, text)), severity=severity, markup=False)

    @property
    def way_back(self) -> str:
        """What to do after the app has failed."""
        return "start it again with `lamdatui`"

    def exit(self, result: Result | None = None, return_code: int = 0, message: RenderableType | None = None) -> None:
        """Leave; a process of its own has `leave_within` seconds for it."""
        if self.own_process and ShellApp.leaving is None:
            from lamdatui.ui.app.crash import end_within

            ShellApp.leaving = end_within(self.leave_within, self.way_back)
        super().exit(result, return_code, message)

    def _fatal_error(self) -> None:
        """Textual would print a traceback with the values of all local variables."""
        error = sys.exc_info()[1]
        if error is None:
            super()._fatal_error()
            return
        if self._exit_renderables:
            return  # the first error is the cause of the next ones
        from rich.text import Text

        from lamdatui.ui.app.crash import report

        self.panic(Text(report(error, self.way_back)))

    def action_save_screenshot(self) -> None:
        folder = state_dir() / "screenshots"
        name = time.strftime("%Y%m%d-%H%M%S") + ".svg"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(self.export_screenshot(), encoding="utf-8")
        except OSError as error:
            self.notify(one_line(error), title="no screenshot", severity="error", markup=False)
            return
        self.notify(one_line(folder / name), title="screenshot saved", markup=False)

    def get_system_commands(self, screen: Screen[Any]) -> Iterable[SystemCommand]:
        yield SystemCommand("Theme", "Change the colours", self.action_change_theme)
        seen = set()
        for key in KEYS:
            # Two screens may have a key for the same command; only one of them is there.
            if not key.palette or key.palette in seen:
                continue
            node = self._holder(screen, key)
            if node is not None and self._check_action_state(key.action, node):
                seen.add(key.palette)
                yield SystemCommand(key.palette, f"{key.tooltip} ({shown(key.id)})", partial(self._run_key, key.action, node))

    def _holder(self, screen: Screen[Any], key: Key) -> DOMNode | None:
        """Who would take the key: the focused widget and what is around it, else a widget that is shown on the screen."""
        focused = screen.focused.ancestors_with_self if screen.focused else (screen,)
        shown_nodes = (node for node in screen.walk_children() if node.display)
        for node in (self, *focused, *shown_nodes):
            if any(binding.id == key.id for _, binding in node._bindings):
                return node
        return None

    async def _run_key(self, action: str, node: DOMNode) -> None:
        await self.run_action(action, node)
