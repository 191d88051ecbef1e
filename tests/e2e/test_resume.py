"""Exact resume is a promise for any moment, so a real SIGKILL comes at one drawn by chance."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import asdict

import pytest
import torch

from lmwright.core.stage import StepContext
from lmwright.data.run import TRAIN, VALIDATION, write_lines
from lmwright.data.samples import Sample
from lmwright.finetuning.config import Finetune
from lmwright.finetuning.run import run

N_STEPS = 40
CHILD = """
import json, sys
from pathlib import Path
import torch
from lmwright.finetuning.config import Finetune
from lmwright.core.stage import StepContext
from lmwright.finetuning.run import run
torch.set_num_threads(1)  # as in the process that it is compared with
settings, out, inputs = map(json.loads, sys.argv[1:])
run(Finetune(**settings), Path(out), StepContext(inputs, {}, Path(out).parent, 0))
"""


def dialogue(number):
    turns = [("user", f"What is {number} + 1?"), ("assistant", f"It is {number + 1}.")]
    messages = tuple({"role": r, "content": c} for r, c in turns)
    return asdict(Sample(f"s{number}", messages))


def n_lines(path):
    return path.read_bytes().count(b"\n") if path.exists() else 0


@pytest.mark.parametrize("method", ["lora", pytest.param("full", marks=pytest.mark.slow)])
def test_a_killed_run_ends_in_the_bytes_of_one_that_was_not(tiny_folder, tmp_path, method):
    write_lines(tmp_path / "data" / TRAIN, [dialogue(n) for n in range(40)])
    write_lines(tmp_path / "data" / VALIDATION, [dialogue(n) for n in range(40, 44)])
    inputs = {"base": str(tiny_folder), "dialogues": str(tmp_path / "data")}
    settings = {
        "model": "base", "data": "dialogues", "method": method, "epochs": 2, "batch_size": 2,
        "checkpoint_every": 4, "validate_every": 7, "precision": "fp32", "lr": 1e-3, "rank": 2,
    }  # fmt: skip
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    context = StepContext(inputs, {}, tmp_path, 0)
    run(Finetune(**settings), whole, context)
    assert n_lines(whole / "metrics.jsonl") == N_STEPS

    # Not seeded: every run of this test tries another moment, and says which if it fails.
    step, delay_s = random.randint(1, N_STEPS - 5), random.uniform(0, 0.02)
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, *map(json.dumps, (settings, str(killed), inputs))],
        stderr=subprocess.PIPE, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    deadline = time.monotonic() + 120
    while n_lines(killed / "metrics.jsonl") < step and child.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.0005)
    time.sleep(delay_s)
    child.send_signal(signal.SIGKILL)
    _, messages = child.communicate()
    moment = f"killed {delay_s:.4f} s after step {step}; {n_lines(killed / 'metrics.jsonl')} told"
    assert child.returncode == -signal.SIGKILL, (moment, messages)
    assert not (killed / "model").exists(), moment

    assert torch.get_num_threads() == 1
    run(Finetune(**settings), killed, context)
    lines = (killed / "metrics.jsonl").read_text().splitlines()
    steps = [json.loads(line)["step"] for line in lines]
    assert steps == list(range(1, N_STEPS + 1)), moment
    for name in ("model/model.safetensors", "state/best.safetensors"):
        assert (killed / name).read_bytes() == (whole / name).read_bytes(), (moment, name)
