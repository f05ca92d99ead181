"""The frames that go through the socket between an engine and those who watch and steer it.

Frames are JSON objects, one a line, at most `FRAME_BYTES` long. The engine sends

- `{"type": "hello", "protocol", "run", "pid", "seq"}` once; `seq` is the newest event at that moment; then it waits for `attach`,
- `{"type": "event", "event": {...}}` for each event after `attach.after`, then live,
- in place of those, with `attach.snapshot`, the frames of `lamdatui.wire.snapshot` and some `{"type": "past", "event": {...}}`: the newest events
  that the snapshot already counts,
- `{"type": "live"}` when all that was there at `attach` was sent,
- `{"type": "hardware", "gpus": [...], "reason", "host": {...}}` about once a second while somebody watches; `recorded` names the
  recording (`run --fake-gpu`) that the GPUs come from; fields: `lamdatui.hardware`; a process's `owner` is "" for a stranger's,
- `{"type": "metric", "step", "metric": {...}}` for each line that the running step adds to its metrics.jsonl,
- `{"type": "reply", "id", "ok", "result" | "error"}` to each command.

A client sends `{"type": "command", "id", "command", "args": {...}}`; the commands are listed in `COMMANDS`.
"""

from __future__ import annotations

import json
from typing import Any

from lamdatui.base.jsonio import parse_json
from lamdatui.base.surrogates import escaped
from lamdatui.base.text import clean_json, is_harmless

PROTOCOL = 2
FRAME_BYTES = 4 * 1024 * 1024

COMMANDS: dict[str, tuple[str, ...]] = {
    "attach": ("role", "name", "after", "snapshot"),
    "trial": ("number",),
    "worth": (),
    "answers": ("model", "against", "task", "split", "row"),
    "decide": ("number", "digest", "verdict", "action", "reason", "remember"),
    "actions": (),
    "try_action": ("type", "inputs", "params", "seed"),
    "propose": ("type", "inputs", "params", "note", "seed"),
    "withdraw": ("id",),
    "more": ("trials",),
    "pause": (),
    "suspend": (),
    "resume": (),
    "mode": ("mode",),
    "policy": ("name",),
    "hint": ("text",),
    "memory": ("text",),
    "stop": ("when",),
    "cancel": ("number",),
    "revoke": ("id",),
}
"""Command → arguments. `attach.role`: `console` (may approve), `headless` or `viewer`; `attach.name`:
who acts, as `USER@TERMINAL`: what is recorded as `by` (`person` without it); `attach.after`: events up to this one are not sent;
`attach.snapshot`: true for a snapshot in place of old events. `trial` gives the whole of a trial, `worth` the lines of the report on the
planner; both may be asked by viewers and after the run's end. So may `answers`: of a model, with another one `against` it, how they differ task by task; of a
`task` and a `split` their rows, each with its scores; of a `row` (its place among them, from 0) that one whole. `decide.digest` is the digest of
the action that was shown: a decision about another one is refused; `decide.action` {"type", "inputs", "params", "seed"} is what runs in its
place. `actions` gives the run's action types as `engine.started` declares them; `try_action` says what an action would cost and bring,
and why it can't be run (`problems`); `propose` queues a person's own action for the next trial and gives {"id", "action", "trials_left"}, where
`trials_left` says how many trials of the budget are left for it; `withdraw` takes it back. An action that was run before gets another seed
unless it brings its own. `more` allows that many trials more, also after the run's end. `stop.when`: `after-step` or `now`. `suspend` is a `pause` that ends the running step with a checkpoint; after `resume` it goes on from there. `cancel` ends the step of trial `number`, which fails with the class `cancelled`; the run goes on. `policy` names who proposes from
the next trial on; `hint` tells the planner something, `memory` rewrites its memory; `revoke` takes back a rule, a constraint or a
hint by its id."""


def encode(frame: dict[str, Any]) -> bytes:
    """One frame as bytes. Raises ValueError above the length cap."""
    data = escaped(json.dumps(frame, ensure_ascii=False, separators=(",", ":"))).encode() + b"\n"
    if len(data) > FRAME_BYTES:
        raise ValueError(f"frame of {len(data)} bytes; at most {FRAME_BYTES}")
    return data


def decode(line: bytes) -> dict[str, Any]:
    """One frame from bytes. Raises ValueError on anything but a JSON object with a `type`, and on one of too many levels."""
    # As UTF-8 whatever it begins with: what is checked in these bytes must be what is read.
    frame = parse_json(line.decode())
    if not isinstance(frame, dict) or not isinstance(frame.get("type"), str):
        raise ValueError("a frame is a JSON object with a type")
    return frame


class Clean(dict[str, Any]):
    """A frame whose strings were cleaned when it came in."""


def read_frame(line: bytes) -> Clean:
    """A frame of the engine, cleaned. Raises ValueError on anything but a JSON object with a `type`."""
    frame = decode(line)
    return Clean(frame if is_harmless(line) else clean_json(frame))
