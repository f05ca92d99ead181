"""What the machine has and does: NVIDIA GPUs through NVML, the host through psutil.

`probe.py` makes the engine's `hardware` frames of `gpu.py`, `host.py` and `processes.py`; `record.py` writes a recording of
a machine's GPUs, `recording.py` replays one.
"""
