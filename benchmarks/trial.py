"""Run a contestant in a process of its own, and say how long it took and how much memory.

A process each, because what one library leaves in memory would otherwise count for the next.
Contestants take turns (A B A B), so that a machine that slows down slows them all down.
"""

import json
import os
import platform
import resource
import runpy
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = ("lmwright", "torch", "transformers", "peft", "trl", "datasets", "xllamacpp")

# No GPU: resident memory would not show what it holds. No network: all models lie in folders.
ENVIRONMENT = {"CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1"}


@dataclass(frozen=True)
class Contestant:
    """A function of a benchmark, what to call it with, and the Python that has its libraries."""

    function: Callable[..., dict[str, Any]]
    # JSON: it travels to the other process.
    settings: Mapping[str, Any]
    python: str = sys.executable


def interleaved(
    contestants: Mapping[str, Contestant], n_repeats: int
) -> dict[str, list[dict[str, Any]]]:
    """Run each contestant `n_repeats` times, taking turns; return what each run reported."""
    results: dict[str, list[dict[str, Any]]] = {name: [] for name in contestants}
    for repeat in range(n_repeats):
        for name, contestant in contestants.items():
            result = run(contestant)
            results[name].append(result)
            note = f"{result['process_s']:.1f} s, {gigabytes(result['peak_bytes']):.2f} GB"
            print(f"{name} {repeat + 1}/{n_repeats}: {note}", file=sys.stderr)
    return results


def run(contestant: Contestant) -> dict[str, Any]:
    """Return what the function returned, with process_s, peak_bytes and versions added.

    `process_s` is from the start of the process to its end, `peak_bytes` its largest resident
    memory; both with interpreter and imports.
    """
    code = contestant.function.__code__
    with tempfile.TemporaryDirectory() as folder:
        out, log = Path(folder) / "result.json", Path(folder) / "log.txt"
        command = [contestant.python, __file__, code.co_filename, code.co_name, str(out)]
        started = time.perf_counter()
        with log.open("w") as file:
            finished = subprocess.run(
                command,
                input=json.dumps(contestant.settings),
                text=True,
                stdout=file,
                stderr=subprocess.STDOUT,
                env={**os.environ, **ENVIRONMENT},
                check=False,
            )
        seconds = time.perf_counter() - started
        if finished.returncode != 0:
            raise SystemExit(f"{log.read_text()[-4000:]}\n{code.co_name} failed; see above")
        return {**json.loads(out.read_text()), "process_s": seconds}


def spread(values: Sequence[float]) -> dict[str, float]:
    """Return median, min, max and n of repeats."""
    return {
        "median": statistics.median(values),
        "min": min(values),
        "max": max(values),
        "n": len(values),
    }


def shown(values: Mapping[str, float], digits: int = 0) -> str:
    """Return a spread as text: median (min - max)."""
    median, low, high = (f"{values[key]:,.{digits}f}" for key in ("median", "min", "max"))
    return f"{median} ({low} - {high})"


def gigabytes(size_bytes: float) -> float:
    """Return bytes in GB (10^9)."""
    return size_bytes / 1e9


def table(rows: Sequence[Sequence[str]]) -> str:
    """Return rows, the first of them a heading, as a Markdown table with aligned columns."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
        for row in rows
    ]
    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    return "\n".join([lines[0], rule, *lines[1:]])


def machine() -> dict[str, Any]:
    """Describe this machine, and warn where something else is running on it."""
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [line for line in info.read_text().splitlines() if line.startswith("model name")]
        cpu = names[0].split(":")[1].strip() if names else cpu
    load = os.getloadavg()[0]
    if load > 0.5:
        print(
            f"warning: load average {load:.1f} before the start: something else is running, so "
            "compare the ratios only, and those with care",
            file=sys.stderr,
        )
    return {
        "cpu": cpu,
        "n_cores": os.cpu_count(),
        "load_average_before": load,
        "system": platform.platform(),
        "python": platform.python_version(),
    }


def write(path: Path, data: Mapping[str, Any]) -> None:
    """Write a benchmark's numbers as JSON, the single runs included."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"format_version": 1, **data}, indent=2, sort_keys=True) + "\n")
    print(f"written: {path}", file=sys.stderr)


def _versions() -> dict[str, str]:
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return versions


def _child(file: str, function: str, out: str) -> None:
    """Call a function of a benchmark with the settings on stdin and write what it returns."""
    result = runpy.run_path(file)[function](**json.load(sys.stdin))
    # Linux counts in KiB, and a child begins with its parent's peak: hence no torch in the parent.
    peak_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    result = {**result, "peak_bytes": peak_bytes, "versions": _versions()}
    Path(out).write_text(json.dumps(result))


if __name__ == "__main__":
    _child(*sys.argv[1:])
