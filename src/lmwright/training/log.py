"""metrics.jsonl: one line a step, each once, however often a run was killed and continued."""

import json
import os
from pathlib import Path
from typing import Any

from lmwright.core.errors import LmwrightError

# What `outcome` reads of a line.
NUMBERS = {"step", "loss", "tokens", "seconds"}


def rewind(path: Path, first_step: int) -> None:
    """Cut off, in one go that no kill can halve, the lines from this step on."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    n_kept = min(len(read_log(path)), first_step - 1)
    os.truncate(path, sum(map(len, path.read_bytes().splitlines(keepends=True)[:n_kept])))


def append(path: Path, line: dict[str, Any]) -> None:
    """Add a line; a full disk is an error that leaves at most a half one."""
    text = json.dumps(line).encode() + b"\n"
    try:
        # Without a buffer: what a full disk refused is not tried again when the file is closed.
        with path.open("ab", buffering=0) as file:
            n_written = file.write(text)
    except OSError as error:
        raise LmwrightError(f"cannot write {path}: {error.strerror}") from error
    if n_written != len(text):
        raise LmwrightError(f"cannot write {path}: no space left for the whole line")


def read_log(path: Path) -> list[dict[str, Any]]:
    """Read the lines up to the first that is no whole line of its step; no file has none.

    A killed run or a full disk may leave a half one behind the last.
    """
    lines: list[dict[str, Any]] = []
    for text in path.read_bytes().splitlines(keepends=True) if path.exists() else ():
        try:
            line = json.loads(text) if text.endswith(b"\n") else None
        except (ValueError, RecursionError):
            break
        if not isinstance(line, dict) or not line.keys() >= NUMBERS:
            break
        is_whole = all(isinstance(line[key], int | float) for key in NUMBERS)
        if not is_whole or line["step"] != len(lines) + 1:
            break
        lines.append(line)
    return lines


def outcome(path: Path) -> dict[str, Any]:
    """Summarise the log: the whole run, also where it was continued after a kill."""
    lines = read_log(path)
    loss, step = min((x["validation_loss"], x["step"]) for x in lines if "validation_loss" in x)
    seconds = sum(line["seconds"] for line in lines)
    return {
        "best_validation_loss": loss,
        "best_step": step,
        "last_training_loss": lines[-1]["loss"],
        "n_tokens": lines[-1]["tokens"],
        "training_seconds": seconds,
        "tokens_per_second": lines[-1]["tokens"] / seconds,
    }
