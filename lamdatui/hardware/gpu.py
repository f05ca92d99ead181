"""GPU readings through NVML, or the reason why there are none. A value that the driver does not give is None."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pynvml

Json = dict[str, Any]

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


def _watts(milliwatts: int | None) -> float | None:
    return None if milliwatts is None else round(milliwatts / 1000, 1)


def _processes(handle: Any) -> list[Json]:
    """Compute and graphics processes, each once; `memory` is None where the driver hides it."""
    found: dict[int, Json] = {}
    readers = (
        ("compute", pynvml.nvmlDeviceGetComputeRunningProcesses),
        ("graphics", pynvml.nvmlDeviceGetGraphicsRunningProcesses),
    )
    for kind, read in readers:
        for item in _maybe(lambda read=read: read(handle)) or []:
            found.setdefault(item.pid, {"pid": item.pid, "memory": item.usedGpuMemory, "kind": kind})
    return list(found.values())


def _mig(handle: Any) -> int | None:
    """How many MIG instances the GPU is cut into; None where it is not."""
    mode = _maybe(lambda: pynvml.nvmlDeviceGetMigMode(handle))
    if not mode or mode[0] != pynvml.NVML_DEVICE_MIG_ENABLE:
        return None
    most = _maybe(lambda: pynvml.nvmlDeviceGetMaxMigDeviceCount(handle)) or 0
    return sum(_maybe(lambda i=i: pynvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, i)) is not None for i in range(most))


def _reading(index: int) -> Json:
    handle = pynvml.nvmlDeviceGetHandleByIndex(index)
    memory = _maybe(lambda: pynvml.nvmlDeviceGetMemoryInfo(handle))
    name = _maybe(lambda: pynvml.nvmlDeviceGetName(handle))
    return {
        "index": index,
        "capability": _maybe(lambda: tuple(pynvml.nvmlDeviceGetCudaComputeCapability(handle))),
        "name": name.decode() if isinstance(name, bytes) else name,
        "util": _maybe(lambda: pynvml.nvmlDeviceGetUtilizationRates(handle).gpu),
        "memory_used": memory.used if memory else None,
        "memory_total": memory.total if memory else None,
        "power_w": _watts(_maybe(lambda: pynvml.nvmlDeviceGetPowerUsage(handle))),
        "power_limit_w": _watts(_maybe(lambda: pynvml.nvmlDeviceGetEnforcedPowerLimit(handle))),
        "temperature_c": _maybe(lambda: pynvml.nvmlDeviceGetTemperature(handle, pynvml.NVML_TEMPERATURE_GPU)),
        "sm_clock_mhz": _maybe(lambda: pynvml.nvmlDeviceGetClockInfo(handle, pynvml.NVML_CLOCK_SM)),
        "memory_clock_mhz": _maybe(lambda: pynvml.nvmlDeviceGetClockInfo(handle, pynvml.NVML_CLOCK_MEM)),
        "fan_percent": _maybe(lambda: pynvml.nvmlDeviceGetFanSpeed(handle)),
        "mig": _mig(handle),
        "processes": _processes(handle),
    }


def read_gpus() -> tuple[list[Json], str]:
    """(one reading a GPU, "") or ([], the reason why there is none).

    Memory in bytes, power in W, temperature in °C, clocks in MHz, utilisation and fan in percent; `mig` is the number of
    MIG instances of a GPU that is cut into some.
    """
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
