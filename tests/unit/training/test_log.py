"""The log is what a report draws: each step once, also after a kill or on a full disk."""

import re
import resource

import pytest

from lmwright.core.errors import LmwrightError
from lmwright.training.log import append, outcome, read_log, rewind


def line(step):
    return {"step": step, "loss": 1.5, "tokens": 10 * step, "seconds": 0.5}


def test_the_outcome_is_that_of_all_lines(tmp_path):
    path = tmp_path / "deep" / "metrics.jsonl"
    rewind(path, 1)
    for step, check in enumerate((None, 0.5, None, 0.25, None, 0.75), start=1):
        told = {} if check is None else {"validation_loss": check}
        append(path, {**line(step), "loss": 1 / step, **told})
    with path.open("a") as file:
        file.write('{"step": 9, "lo')  # what a kill in the middle of a line leaves
    assert outcome(path) == {
        "best_validation_loss": 0.25, "best_step": 4, "last_training_loss": 1 / 6, "n_tokens": 60,
        "training_seconds": 3.0, "tokens_per_second": 20.0,
    }  # fmt: skip


def test_a_full_disk_while_logging_is_our_error(tmp_path):
    """The real thing: the system refuses the second half of a line."""
    path, limits = tmp_path / "metrics.jsonl", resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (250, limits[1]))
    try:
        for step in range(1, 5):
            append(path, line(step))
        with pytest.raises(LmwrightError, match=re.escape(f"cannot write {path}")):
            append(path, line(5))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.stat().st_size == 250  # of five lines of 56
    assert [line["step"] for line in read_log(path)] == [1, 2, 3, 4]
    rewind(path, 3)
    assert [line["step"] for line in read_log(path)] == [1, 2]
    assert path.read_bytes().endswith(b"}\n")


@pytest.mark.parametrize(
    "damage",
    [b"\0" * 56, b"[1]\n", b"{\n", b"\xff\n", b'{"step": 3}\n', b"[" * 100_000 + b"\n"],
    ids=range(6),
)
def test_lines_count_up_to_the_first_damaged_one(tmp_path, damage):
    path = tmp_path / "metrics.jsonl"
    assert read_log(path) == []
    for step in range(1, 5):
        append(path, line(step))
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:2], damage, lines[3]]))
    assert [line["step"] for line in read_log(path)] == [1, 2]
    path.write_bytes(b"".join([*lines[:2], lines[3]]))
    assert [line["step"] for line in read_log(path)] == [1, 2]
