"""Where a result comes from: versions, hardware, seed and time. Nothing heavy is imported."""

import os
import platform
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

# What can change a number; the distributions are asked, not imported.
DISTRIBUTIONS = ("lmwright", "numpy", "torch", "tokenizers", "safetensors", "gguf", "scipy")


def lineage(seed: int) -> dict[str, Any]:
    """Return plain data for `result.json`: all that is needed to judge or repeat a result."""
    return {"versions": versions(), "hardware": hardware(), "seed": seed, "time": now()}


def versions() -> dict[str, str]:
    """Return the versions of Python and of the installed packages that numbers depend on."""
    found = {"python": platform.python_version()}
    for name in DISTRIBUTIONS:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def hardware() -> dict[str, Any]:
    """Return what this machine computes with."""
    import psutil

    return {
        "platform": platform.platform(),
        "cpu": _cpu(),
        "n_cores": n_cores(),
        "memory_bytes": psutil.virtual_memory().total,
        "gpus": gpus(),
    }


def n_cores() -> int:
    """Return how many cores this process may use."""
    # Where it exists, the affinity is the truth: a container often sees more than it may use.
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def gpus(root: Path = Path("/proc/driver/nvidia/gpus")) -> list[str]:
    """Return the names of the NVIDIA GPUs, as the driver lists them below `root`."""
    # Asking torch would cost a second of import in commands that need no torch.
    return [name for path in sorted(root.glob("*/information")) for name in _told(path, "Model")]


def now() -> str:
    """Return the time in UTC, in ISO 8601, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _cpu() -> str:
    """Return the name of the processor; Linux keeps it in a file, others tell Python."""
    path = Path("/proc/cpuinfo")
    names = _told(path, "model name") if path.is_file() else []
    return names[0] if names else platform.processor() or platform.machine()


def _told(path: Path, key: str) -> list[str]:
    """Return the values of the lines `key: value` in a file of the system."""
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    pairs = [line.partition(":") for line in lines]
    return [value.strip() for found, _, value in pairs if found.strip() == key]
