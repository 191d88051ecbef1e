"""A run's state on disk: everything that the next step depends on.

The order of the data is a function of (seed, epoch, position), and what is drawn while training
of (seed, step), so the number of steps done is the whole cursor.
"""

import json
import shutil
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from lmwright.core.artifact import replacing, write_json
from lmwright.core.errors import LmwrightError
from lmwright.training.loop import TrainingStep
from lmwright.training.optim import moments, set_moments

FORMAT_VERSION = 1


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
    """Keep the state after a step; the one before goes only when this one is complete."""
    new = folder / f"step-{progress.n_steps_done:06d}"
    save_tensors(trained_weights(model), new / "weights.safetensors")
    save_tensors(moments(optimizer, model), new / "optimizer.safetensors")
    # Written last: a state without it is not one.
    write_json(new / "progress.json", {"format_version": FORMAT_VERSION, **asdict(progress)})
    for old in folder.glob("step-*"):
        if old != new:
            shutil.rmtree(old)


def restore(folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> Progress:
    """Put the last complete state back and return where the run stood; a new run stands at 0."""
    complete = sorted(p.parent for p in folder.glob("step-*/progress.json"))
    if not complete:
        return Progress()
    data = json.loads((complete[-1] / "progress.json").read_text(encoding="utf-8"))
    del data["format_version"]
    load_trained(model, complete[-1] / "weights.safetensors")
    set_moments(optimizer, model, load_file(complete[-1] / "optimizer.safetensors"))
    return Progress(**data)


@torch.no_grad()
def load_trained(model: nn.Module, path: Path) -> None:
    """Copy saved weights into the parameters that are being trained."""
    weights = load_file(path)
    parameters = trained_weights(model)
    assert weights.keys() == parameters.keys(), "the state is of another model"
    for name, parameter in parameters.items():
        parameter.copy_(weights[name])
