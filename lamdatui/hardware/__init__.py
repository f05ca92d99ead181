"""What the machine has and does: NVIDIA GPUs through NVML, the host through psutil."""
