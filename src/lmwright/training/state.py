"""A run's state on disk: everything that the next step depends on.

The order of the data is a function of (seed, epoch, position), and what is drawn while training
of (seed, step), so the number of steps done is the whole cursor.
"""

import logging
import shutil
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from lmwright.core.artifact import read_state, reading, replacing, write_json
from lmwright.core.errors import LmwrightError, StateError
from lmwright.training.loop import TrainingStep
from lmwright.training.optim import moments, set_moments

logger = logging.getLogger(__name__)

FORMAT_VERSION = 1
PROGRESS, WEIGHTS, OPTIMIZER = "progress.json", "weights.safetensors", "optimizer.safetensors"
BEST = "best.safetensors"
# The last state, and the one before in case that the last is damaged.
N_KEPT = 2
REMEDY = "trying the state before"


@dataclass(frozen=True)
class Progress:
    """Where a run stands, besides its weights and moments."""

    n_steps_done: int = 0
    n_tokens: int = 0
    seconds: float = 0.0
    # The lowest validation loss so far, and after which step.
    best_loss: float | None = None
    best_step: int | None = None

    def after(self, step: TrainingStep) -> "Progress":
        """Return where the run stands after one more step."""
        n_tokens, seconds = self.n_tokens + step.n_tokens, self.seconds + step.seconds
        return replace(self, n_steps_done=step.step, n_tokens=n_tokens, seconds=seconds)


def trained_weights(model: nn.Module) -> dict[str, Tensor]:
    """Return the parameters that are being trained, by name."""
    return {n: p.detach() for n, p in model.named_parameters() if p.requires_grad}


def save_tensors(tensors: dict[str, Tensor], path: Path) -> None:
    """Write tensors atomically; a full disk is an error that leaves no half file."""
    with replacing(path) as temporary:
        try:
            save_file({n: t.contiguous() for n, t in tensors.items()}, temporary)
        # The library raises its own error, not an OSError, when the disk is full.
        except Exception as error:
            raise LmwrightError(f"cannot write {path}: {error}") from error


def save(
    folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer, progress: Progress
) -> None:
    """Keep the state after a step and the one before; older ones go when this one is complete."""
    new = folder / f"step-{progress.n_steps_done:06d}"
    # What is there already, perhaps damaged, is no state while it is being written.
    (new / PROGRESS).unlink(missing_ok=True)
    save_tensors(trained_weights(model), new / WEIGHTS)
    save_tensors(moments(optimizer, model), new / OPTIMIZER)
    # Written last: a state without it is not one.
    write_json(new / PROGRESS, {"format_version": FORMAT_VERSION, **asdict(progress)})
    _prune(folder)


def restore(
    folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer, *, n_logged: int
) -> Progress:
    """Put the last usable state back and return where the run stood; a new run stands at 0.

    A state is usable if its files are whole, and if the steps that led to it are in the log, the
    first `n_logged` of the run. A warning says why one is not.
    """
    complete = _complete(folder)
    for place in reversed(complete):
        try:
            progress = _read_progress(place / PROGRESS)
            if progress.n_steps_done > n_logged:
                raise StateError(
                    f"{place}: the log of the steps before it is damaged from step {n_logged + 1} "
                    f"on; {REMEDY}"
                )
            weights = _read_tensors(place / WEIGHTS, names=trained_weights(model))
            moved = _read_tensors(place / OPTIMIZER)
            if progress.best_step is not None:
                _check_tensors(folder / BEST)
        except (StateError, FileNotFoundError) as error:
            logger.warning("%s", error)
            continue
        _fill(model, weights)
        set_moments(optimizer, model, moved)
        # A kill may have come before the old ones had gone, and no step may be left to save after.
        _prune(folder)
        return progress
    if complete:
        logger.warning("%s: no usable state; training begins again", folder)
    return Progress()


def _prune(folder: Path) -> None:
    kept = _complete(folder)[-N_KEPT:]
    for old in folder.glob("step-*"):
        if old not in kept:
            # First of all, so that a kill leaves no half state that looks like one.
            (old / PROGRESS).unlink(missing_ok=True)
            shutil.rmtree(old)


def _complete(folder: Path) -> list[Path]:
    return sorted(p.parent for p in folder.glob(f"step-*/{PROGRESS}"))


def _read_progress(path: Path) -> Progress:
    data = read_state(path, remedy=REMEDY)
    with reading(path, remedy=REMEDY):
        progress = Progress(**{key: data[key] for key in data.keys() - {"format_version"}})
        if not all(isinstance(value, int | float | None) for value in asdict(progress).values()):
            raise ValueError("not all of it are numbers")
    return progress


def _read_tensors(path: Path, *, names: dict[str, Tensor] | None = None) -> dict[str, Tensor]:
    with reading(path, remedy=REMEDY):
        tensors = load_file(path)
        if names is not None and _shapes(tensors) != _shapes(names):
            raise ValueError("other tensors than those that are trained")
    return tensors


def _check_tensors(path: Path) -> None:
    """Look at a file's header, which says how long the file must be."""
    with reading(path, remedy=REMEDY), safe_open(path, framework="pt"):
        pass


def load_trained(model: nn.Module, path: Path) -> None:
    """Copy saved weights into the parameters that are being trained."""
    remedy = f"remove {path.parent} and run the recipe again: it is trained anew"
    with reading(path, remedy=remedy):
        weights = load_file(path)
    _fill(model, weights)


@torch.no_grad()
def _fill(model: nn.Module, weights: dict[str, Tensor]) -> None:
    parameters = trained_weights(model)
    assert weights.keys() == parameters.keys(), "the state is of another model"
    for name, parameter in parameters.items():
        parameter.copy_(weights[name])


def _shapes(tensors: dict[str, Tensor]) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in tensors.items()}
