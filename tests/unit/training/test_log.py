"""The log is what a report draws: each step once, also after a kill or on a full disk."""

import re
import resource

import pytest

from lmwright.core.errors import LmwrightError
from lmwright.training.log import append, outcome, read_log, rewind


def test_the_outcome_is_that_of_all_lines(tmp_path):
    path = tmp_path / "deep" / "metrics.jsonl"
    rewind(path, 1)
    for step, check in enumerate((None, 0.5, None, 0.25, None, 0.75), start=1):
        line = {"step": step, "loss": 1 / step, "tokens": 10 * step, "seconds": 0.5}
        append(path, line if check is None else {**line, "validation_loss": check})
    with path.open("a") as file:
        file.write('{"step": 9, "lo')  # what a kill in the middle of a line leaves
    assert outcome(path) == {
        "best_validation_loss": 0.25, "best_step": 4, "last_training_loss": 1 / 6, "n_tokens": 60,
        "training_seconds": 3.0, "tokens_per_second": 20.0,
    }  # fmt: skip


def test_a_full_disk_while_logging_is_our_error(tmp_path):
    """The real thing: the system refuses the second half of a line."""
    path, limits = tmp_path / "metrics.jsonl", resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (110, limits[1]))
    try:
        for step in range(4):
            append(path, {"step": step, "loss": 1.5})
        with pytest.raises(LmwrightError, match=re.escape(f"cannot write {path}")):
            append(path, {"step": 4, "loss": 1.5})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.stat().st_size == 110  # of five lines of 25
    assert [line["step"] for line in read_log(path)] == [0, 1, 2, 3]
    rewind(path, 2)
    assert [line["step"] for line in read_log(path)] == [0, 1]
    assert path.read_bytes().endswith(b"}\n")
