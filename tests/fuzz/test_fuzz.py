"""Models come from strangers: whatever their files hold, the end is a model or one clear error."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

RUN = Path(__file__).with_name("run.py")


def run(n_cases: int, seed: int) -> tuple[dict, str]:
    """Return the counts of a run, and its output."""
    command = [sys.executable, str(RUN), "--cases", str(n_cases), "--seed", str(seed)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout, done.stderr
    return json.loads(done.stdout.splitlines()[-1]), done.stdout


def check(n_cases: int, seed: int) -> None:
    counts, output = run(n_cases, seed)
    assert counts["cases"] == n_cases
    assert not counts["faults"], output[:20_000]
    # Damage that nobody notices, and damage that ends everything, would show nothing.
    assert counts["ends"]["load 0"] > n_cases / 10
    assert counts["ends"]["load 2"] > n_cases / 10


def test_a_hundred_damaged_models_end_in_a_model_or_a_clear_error():
    check(100, seed=7)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_three_thousand_damaged_models_end_in_a_model_or_a_clear_error():
    check(3000, seed=0)
