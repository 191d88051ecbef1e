"""What the training steps of a run logged, as event files that TensorBoard shows.

They are made from the logs, which hold each step once however often a run was killed: so do they.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lmwright.core import extras
from lmwright.core.artifact import successor
from lmwright.core.errors import RequestError
from lmwright.training.log import read_log

LOG = "metrics.jsonl"
# Ends the names of our event files; an earlier one of ours makes way, others stay.
SUFFIX = ".lmwright"
# Tag -> key of a line.
TAGS = {
    "loss/training": "loss",
    "loss/validation": "validation_loss",
    "learning_rate": "lr",
    "gradient_norm": "grad_norm",
}


def write_events(run: Path, out: Path) -> list[Path]:
    """Write out/STEP/events... for each training step of a run, or for a step; return the folders.

    To be repeated while the run goes on: each time all of it is written anew.
    """
    extras.need("--tensorboard", "tensorboardX")
    steps = (run, *sorted(run.glob("[!.]*")))
    # Of a step that is being trained anew, the curve that grows.
    found = ((step.name, (successor(step) or step) / LOG) for step in steps if step.is_dir())
    logs = {name: log for name, log in found if log.is_file()}
    if not logs:
        raise RequestError(f"{run}: no step in it was trained yet (no {LOG}), so there is no curve")
    return [_write(log, out / name) for name, log in logs.items()]


def _write(log: Path, folder: Path) -> Path:
    from tensorboardX import SummaryWriter

    for old in folder.glob(f"events.out.tfevents.*{SUFFIX}"):
        old.unlink()
    with SummaryWriter(str(folder), filename_suffix=SUFFIX) as writer:
        for tag, value, step, time_s in _scalars(log):
            writer.add_scalar(tag, value, step, walltime=time_s)
    return folder


def _scalars(log: Path) -> Iterator[tuple[str, float, int, float]]:
    """Give each number with its tag, its step, and about when it was logged."""
    lines: list[dict[str, Any]] = read_log(log)
    # The log holds how long steps took; the last one ended when it was written.
    time_s = log.stat().st_mtime - sum(line["seconds"] for line in lines)
    n_tokens = 0
    for line in lines:
        time_s += line["seconds"]
        for tag, key in TAGS.items():
            if line.get(key) is not None:
                yield tag, line[key], line["step"], time_s
        speed = (line["tokens"] - n_tokens) / max(line["seconds"], 1e-9)
        yield "tokens_per_second", speed, line["step"], time_s
        n_tokens = line["tokens"]
