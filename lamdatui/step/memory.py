"""What a step's process has taken of memory, and whether it ran out. A step that works on data alone has no torch: none is imported here."""

from __future__ import annotations

import resource
import sys


def peaks() -> dict[str, int]:
    """Bytes of memory that this process has taken at most, of the machine and of the GPU."""
    found = {"peak_rss": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}
    torch = sys.modules.get("torch")
    return found | ({"peak_gpu": torch.cuda.max_memory_allocated()} if torch and torch.cuda.is_initialized() else {})


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an allocation failed; CUDA libraries tell it as plain RuntimeErrors."""
    words = ("out of memory", "not enough memory", "can't allocate memory", "_ALLOC_FAILED")
    told = isinstance(error, RuntimeError) and any(word in str(error) for word in words)
    torch = sys.modules.get("torch")
    return told or isinstance(error, (MemoryError, *([torch.OutOfMemoryError] if torch else [])))
