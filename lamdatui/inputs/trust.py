"""What a profile names that is code, leaves the machine or hands a secret on: collected, shown, and confirmed once by a person.

A confirmation holds for exactly what was shown (`digest`): the words, and the contents of the program and of every file among its
arguments. What lies beside them (the packages of a Python environment, the libraries of a program) is not covered.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lamdatui.base import paths
from lamdatui.base.errors import CONFIRM_TITLE, UNCONFIRMED, LamdatuiError
from lamdatui.base.jsonio import digest, file_digest, fsync_dir
from lamdatui.base.output import complain, json_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lamdatui.inputs.profile import Profile
    from lamdatui.planner.settings import PlannerSettings


def confirmed_file() -> Path:
    """Lists the digests of what a person confirmed, one a line, each with what it was."""
    return paths.config_dir() / "confirmed"


def sensitive(profile: Profile) -> dict[str, Any]:
    """What of a profile has to be confirmed, with the sha256 of files that would run; empty where nothing has.

    The profile's paths are absolute, as `load_profile` makes them. Raises LamdatuiError for a file that can't be read.
    """
    generation = profile.generation
    found = _of_planner(profile.planner) if profile.planner else {}
    # Whatever backend it names: a run that began keeps the one that it began with.
    if starts := _command_of(generation.executable, generation.arguments):
        found["generation"] = {**starts, "serve": _file_in("serve")}
    return found


def _command_of(executable: str, arguments: Sequence[str]) -> dict[str, Any]:
    """A program and its arguments, with the sha256 of what they name."""
    found: dict[str, Any] = {}
    if executable:
        program = shutil.which(os.path.expanduser(executable))
        found["executable"] = {"value": executable, "runs": program, "sha256": _sha256(program)}
    if arguments:
        found["arguments"] = [{"value": word, "sha256": _file_in(word)} for word in arguments]
    return found


def _of_planner(spec: PlannerSettings) -> dict[str, Any]:
    found = _command_of(spec.executable, spec.arguments)
    if found:
        # The rest of that command line. Some programs would take its first word for a file.
        found |= {"model": spec.model, "serve": _file_in("serve") if spec.backend == "vllm" else None}
    if spec.api_key_env:
        found["api_key_env"] = spec.api_key_env
    if spec.url and (spec.api_key_env or not is_loopback(spec.url)):
        found["url"] = spec.url
    return {"backend": spec.backend, **found} if found else {}


def _file_in(word: str) -> str | None:
    """sha256 of the regular file that an argument names, whole or after its `=`."""
    for text in dict.fromkeys((word, word.partition("=")[2])):
        if text and (found := _sha256(text)):
            return found
    return None


def _sha256(path: str | None) -> str | None:
    try:
        return file_digest(Path(path)) if path and os.path.isfile(path) else None
    except OSError as error:
        raise LamdatuiError(f"can't read what the planner would be started with: {error.strerror}", where=str(path)) from error


def is_loopback(url: str) -> bool:
    """Whether the host of an address is this machine: 127.0.0.0/8, ::1 or localhost. What can't be parsed is not."""
    import httpx  # what the planner's client parses it with

    try:
        host = httpx.URL(url).host
    except (httpx.InvalidURL, ValueError):
        return False
    if host == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return address == ipaddress.IPv6Address("::1") or (address.version == 4 and address.is_loopback)


def told(found: dict[str, Any]) -> list[str]:
    """The same for people: each thing with its value and why it matters. Values are JSON, so that none can pass for a line."""
    lines = [CONFIRM_TITLE]

    def say(name: str, value: Any, why: str, sha256: str | None = None) -> None:
        lines.append(f"  {name}: {json_text(value)}{f' (sha256 {sha256})' if sha256 else ''}")
        lines.append(f"    {why}")

    for section, part in (("planner", found), ("generation", found.get("generation", {}))):
        if program := part.get("executable"):
            runs = program["runs"]
            which = "" if runs in (None, program["value"]) else f" It is {json_text(runs)}."
            none = " There is no such program now." if runs is None else ""
            say(f"{section}.executable", program["value"], f"This program is run as you.{which}{none}", program["sha256"])
        for word in part.get("arguments", ()):
            why = "A word of that program's command line; its flags decide what it loads and does."
            say(f"{section}.arguments", word["value"], why, word["sha256"])
    if name := found.get("api_key_env"):
        say("planner.api_key_env", name, "The value of this environment variable is sent to planner.url.")
    if url := found.get("url"):
        leaves = "It is on this machine." if is_loopback(url) else "Prompts, with the record of the run, leave this machine."
        say("planner.url", url, leaves)
    return lines


def is_confirmed(found: dict[str, Any]) -> bool:
    """Whether a person confirmed exactly this; true where there is nothing to confirm."""
    if not found:
        return True
    try:
        lines = confirmed_file().read_text(encoding="utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return False
    except OSError as error:
        raise LamdatuiError(f"can't read what was confirmed: {error.strerror}", where=str(confirmed_file())) from error
    return digest(found) in {line.partition(" ")[0] for line in lines}


def confirm(found: dict[str, Any]) -> None:
    """Put a person's confirmation on record, durably. Raises LamdatuiError where it can't be written."""
    path = confirmed_file()
    line = f"{digest(found)} {json_text(found)}\n".encode("utf-8", "backslashreplace")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "ab+", opener=lambda name, flags: os.open(name, flags, 0o600)) as handle:
            if handle.tell():
                handle.seek(-1, os.SEEK_END)
                # A full disk may have cut the line before off.
                line = line if handle.read(1) == b"\n" else b"\n" + line
            handle.write(line)
            handle.flush()
            os.fsync(handle.fileno())
        fsync_dir(path.parent)
    except OSError as error:
        raise LamdatuiError(f"can't record the confirmation: {error.strerror}", where=str(path)) from error


def require(profile: Profile, where: str) -> None:
    """Raises LamdatuiError (exit code 2) unless a person confirmed what a profile would run or reach."""
    found = sensitive(profile)
    if not is_confirmed(found):
        kinds = ("executable", "api_key_env", "url", "arguments")
        sections = (("planner", found), ("generation", found.get("generation", {})))
        names = ", ".join(f"{section}.{name}" for section, part in sections for name in kinds if name in part)
        fix = "look at it and confirm it: `lamdatui run` and `attach` ask in a terminal; without one, add --trust"
        raise LamdatuiError(f"{UNCONFIRMED}: {names}", where=where, fix=fix)


def ask(profile: Profile, where: str, *, trust: bool, can_ask: bool) -> None:
    """Have a profile's sensitive part confirmed: by an earlier confirmation, by `--trust`, or by a person at this terminal.

    Raises LamdatuiError (exit code 2) where it is not.
    """
    found = sensitive(profile)
    if is_confirmed(found) and not (trust and found):
        return
    complain("\n".join(told(found)))
    if trust:
        complain("trusted, as --trust says")
    elif can_ask and sys.stdin.isatty() and sys.stderr.isatty():
        complain(f"  from {where}")
        if not _yes():
            raise LamdatuiError("not confirmed: nothing was started", where=where)
    else:
        require(profile, where)
    if not is_confirmed(found):
        confirm(found)


def _yes() -> bool:
    print("Run and reach this from now on? [y/N] ", end="", file=sys.stderr, flush=True)
    answer = ""
    with contextlib.suppress(EOFError, UnicodeDecodeError):
        answer = input()
    return answer.strip().lower() in ("y", "yes")
