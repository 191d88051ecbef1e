"""Whether a disk can hold what is about to be written: a large file takes minutes to fail."""

import shutil
from pathlib import Path

from lmwright.core.errors import LmwrightError


def check_space(path: Path, n_bytes: int) -> None:
    """Raise an error if the folder of `path`, which exists, has no room for so many bytes."""
    n_free = shutil.disk_usage(path.parent).free
    if n_free < n_bytes:
        raise LmwrightError(
            f"cannot write {path}: its weights need {n_bytes:,} bytes, only {n_free:,} are free; "
            "free some space or write elsewhere"
        )
