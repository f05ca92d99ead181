"""GPU readings through NVML, or the reason why there are none. A value that the driver does not give is None."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pynvml

_REASONS = {
    "NVMLError_LibraryNotFound": "NVML library not found: no NVIDIA driver on this machine, or a container without GPU access",
    "NVMLError_DriverNotLoaded": "the NVIDIA driver is installed but not loaded",
    "NVMLError_NoPermission": "no permission to talk to the NVIDIA driver",
    "NVMLError_LibRmVersionMismatch": "the NVIDIA driver and its library differ in version; a reboot mends it",
}


def _maybe(read: Callable[[], Any]) -> Any:
    try:
        return read()
    except pynvml.NVMLError:
        return None


def _reading(index: int) -> dict[str, Any]:
    handle = pynvml.nvmlDeviceGetHandleByIndex(index)
    memory = _maybe(lambda: pynvml.nvmlDeviceGetMemoryInfo(handle))
    name = _maybe(lambda: pynvml.nvmlDeviceGetName(handle))
    power = _maybe(lambda: pynvml.nvmlDeviceGetPowerUsage(handle))
    processes = _maybe(lambda: pynvml.nvmlDeviceGetComputeRunningProcesses(handle)) or []
    return {
        "index": index,
        "capability": _maybe(lambda: tuple(pynvml.nvmlDeviceGetCudaComputeCapability(handle))),
        "name": name.decode() if isinstance(name, bytes) else name,
        "util": _maybe(lambda: pynvml.nvmlDeviceGetUtilizationRates(handle).gpu),
        "memory_used": memory.used if memory else None,
        "memory_total": memory.total if memory else None,
        "power_w": round(power / 1000, 1) if power is not None else None,
        "temperature_c": _maybe(lambda: pynvml.nvmlDeviceGetTemperature(handle, pynvml.NVML_TEMPERATURE_GPU)),
        "processes": [{"pid": item.pid, "memory": item.usedGpuMemory} for item in processes],
    }


def read_gpus() -> tuple[list[dict[str, Any]], str]:
    """(one reading a GPU, "") or ([], the reason why there is none). Memory in bytes, power in W, temperature in °C."""
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        return [], _REASONS.get(type(error).__name__, f"NVML: {error}")
    try:
        count = pynvml.nvmlDeviceGetCount()
        return [_reading(index) for index in range(count)], "" if count else "the NVIDIA driver sees no GPU"
    except pynvml.NVMLError as error:
        return [], f"NVML: {error}"
    finally:
        _maybe(pynvml.nvmlShutdown)
