"""Typing while proposals come and go: nothing is decided unless it was asked for, shown, and given time.

The rule is written down here a second time, in terms of keys and times only, and held against random bursts.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any

import pytest
from textual import events

from lamdatui.ui.card.controller import Deciding
from lamdatui.ui.card.grace import GRACE_SECONDS
from tests.ui import script
from tests.ui.conftest import Console, opened
from tests.ui.fake_engine import FakeEngine

KEYS = [
    *"aAeowdsxrjkgGzml1234Ph?uCcnfbEtN", "enter", "space", "tab", "shift+tab", "escape", "up", "down", "left", "pagedown",
    "backspace", "slash", "f2", "ctrl+r", "f3", "f5", "f10", "f11", "ctrl+e", "ctrl+g", "ctrl+o",
]  # fmt: skip
AT_ONCE = [
    "f2", "f2", "f2", "ctrl+r", "tab", "escape", "escape", "enter", "enter", "space", "up", "down", "slash", "f1", "f3", "f5",
    "f10", "f11", *"aAsxdoewrcCunflE",
]  # fmt: skip
"""Without what leaves the console: the quit dialog's first answer does, and enter takes it."""
ASKS = ("f2", "ctrl+r")
PURPOSES = (
    ["a"],
    ["s"],
    ["A", "enter"],
    ["x", "enter"],
    ["d", "n", "o", "enter"],
    ["o", "down", "enter", "a"],
    ["e", "enter", "a"],
)
SEEDS = [(0, 16), *(pytest.param(seed, 32, marks=pytest.mark.slow) for seed in (1, 2, 3))]
"""Seeds, and how many bursts each has."""


@dataclass
class Watch:
    """What a person did, and which decisions left the console."""

    console: Console
    dice: random.Random
    asked: float = -1.0
    """When the card was last asked for."""
    changed: float = -1.0
    """When the proposal, the screen or the question on the card last changed."""
    decided: list[dict[str, Any]] = field(default_factory=list)
    allowed: bool = False
    """Whether the newest key may decide."""
    digest: str = ""

    async def request(self, command: str, **args: Any) -> Any:
        """Stands for the engine: takes what the console sends, and checks a decision against what was done."""
        if command == "decide":
            assert self.allowed, f"decided by accident: {args}"
            assert args["digest"] == self.digest, "another action than the one that was shown"
            self.decided.append(args)
        elif command == "actions":
            return {"types": script.ACTION_TYPES}
        elif command == "try_action":
            return {"problems": [], "estimate": {}, "expected": None, "std": None, "trial": None, "cached": False}
        return None

    @property
    def situation(self) -> tuple[Any, ...]:
        """What must not have changed just before a key that decides."""
        card, app = self.console.card, self.console.app
        return (len(app.screen_stack), app.screen, card.digest, card.display, card._question.display, card.has_class("-full"))

    async def press(self, key: str, gap: float) -> None:
        """Press a key `gap` seconds after the one before."""
        card, app = self.console.card, self.console.app
        self.console.now += gap
        now, situation = self.console.now, self.situation
        self.digest = card.digest
        on_card = app.screen is app.console_screen and card.display and card.has_focus_within
        rested = now - max(self.asked, self.changed) >= GRACE_SECONDS
        self.allowed = on_card and self.asked >= 0 and rested and key in ("a", "s", "enter")
        await self.console.pilot.press(key)
        if key in ASKS:
            self.asked = now
        if self.situation != situation:
            self.changed = now

    async def happen(self, number: int) -> int:
        """Something happens that is not a key: a proposal comes, changes, or is decided elsewhere; the window loses the focus."""
        engine, dice = self.console.engine, self.dice
        what = dice.choice(["proposal", "proposal", "replaced", "elsewhere", "blur", "nothing"])
        before = self.console.card.digest
        if what == "blur":
            self.console.app.post_message(events.AppBlur())
            await self.console.pilot.pause()
            self.console.now += dice.uniform(0, 3)
            self.console.app.post_message(events.AppFocus())
            await self.console.pilot.pause()
        elif what == "elsewhere" and number:
            await self._close(number)
        elif what in ("proposal", "replaced"):
            act = script.sft("m1", learning_rate=dice.uniform(0.0001, 0.01))
            others = [script.alternative("dpo", script.action("dpo", {"model": ["m1"]}, {"beta": 0.1}), 0.3, 0.4)]
            if what == "proposal" or not number or not self.console.app.view.run.trials[number].is_open:
                if number:
                    await self._close(number)
                number = max(self.console.app.view.run.trials) + 1
                script.emit_proposal(engine, number, act, alternatives=others)
            else:
                engine.emit(
                    "trial.proposed", number=number, proposal=script.proposal(number, act, "another", alternatives=others)
                )
            await self.console.until(lambda: self.console.card.digest == act["digest"], "the proposal on the card")
        if self.console.card.digest != before or what == "blur":
            self.changed = self.console.now
        return number

    async def _close(self, number: int) -> None:
        engine, run = self.console.engine, self.console.app.view.run
        trial = run.trials[number]
        if not trial.is_open:
            return
        engine.emit("trial.decided", number=number, verdict="skip", by="person", reason="", action=trial.action)
        nothing = dict.fromkeys(("model", "dataset", "objective", "gain", "error"))
        engine.emit("trial.closed", number=number, status="skipped", scores={}, seconds={}, cached=False, **nothing)
        await self.console.until(lambda: not run.trials[number].is_open, "the end of the trial")


@pytest.mark.timeout(600)
@pytest.mark.parametrize(("seed", "bursts"), SEEDS)
async def test_bursts_of_keys_decide_nothing_by_accident(
    engine: FakeEngine, seed: int, bursts: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("VISUAL", raising=False)
    monkeypatch.delenv("EDITOR", raising=False)
    dice = random.Random(seed)
    script.add_choices(engine)
    script.answer_orders(engine)
    async with opened(engine, dice.choice([(80, 24), (120, 40), (200, 60), (60, 16)])) as console:
        watch = Watch(console, dice)
        console.app.console_screen.query_one(Deciding)._request = watch.request
        number = 0
        for _ in range(bursts):
            number = await watch.happen(number)
            if dice.random() < 0.3:
                # On purpose, slowly enough: so it is seen that decisions do get through.
                keys = [*["escape"] * (len(console.app.screen_stack) + 1), "f2", *dice.choice(PURPOSES)]
                gaps = [GRACE_SECONDS * 2] * len(keys)
            else:
                keys = [dice.choice(KEYS) for _ in range(dice.randint(3, 8))]
                gaps = [dice.choice([0.0, 0.1, 0.3, GRACE_SECONDS * 0.9, GRACE_SECONDS * 1.5]) for _ in keys]
            for key, gap in zip(keys, gaps, strict=True):
                if dice.random() < 0.07:
                    number = await watch.happen(number)
                await watch.press(key, gap)
        assert watch.decided, "nobody could decide anything"


@pytest.mark.timeout(600)
@pytest.mark.parametrize(("seed", "bursts"), SEEDS)
async def test_keys_that_come_all_at_once_decide_nothing(engine: FakeEngine, seed: int, bursts: int) -> None:
    """A paste, a stuck key, a slow link: the keys are queued before the first of them has moved the focus."""
    dice = random.Random(100 + seed)
    script.add_choices(engine)
    script.add_weighed(engine, 5)
    script.answer_orders(engine)
    seen: set[type[object]] = set()
    async with opened(engine, dice.choice([(80, 24), (120, 40)])) as console:
        app = console.app
        for _ in range(bursts):
            # Each is waited for, so that no key is under way when the clock moves.
            await console.pilot.press("escape", "escape", "escape")
            while len(app.screen_stack) > 1:
                await console.pilot.press("escape")
            console.now += 1
            keys = [dice.choice(AT_ONCE) for _ in range(dice.randint(2, 12))]
            for key in ["escape", *keys]:
                app.post_message(events.Key(key, key if len(key) == 1 else None))
            await console.settle()
            kinds = [type(screen) for screen in app.screen_stack]
            seen.update(kinds)
            assert len(set(kinds)) == len(kinds), f"a screen twice after {keys}: {kinds}"
            assert app.is_running, f"{keys} ended the console"
            assert not engine.sent("decide"), keys
    assert len(seen) >= 4, f"only these screens were seen: {seen}"
