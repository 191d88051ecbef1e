"""Each new length of a prompt leaves compiled kernels behind: a server must not keep them all."""

import os
import subprocess
import sys
from pathlib import Path

from lmwright.engine.torch.kernels import CACHES, N_KERNELS, bound_kernels

# Prints how much memory the second half of so many shapes took, in MB.
MULTIPLY = """
import torch
from pathlib import Path
from lmwright.engine.torch.kernels import bound_kernels

def size_mb():
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("RssAnon")).split()[1]) / 1024

bound_kernels()
torch.set_num_threads(1)
weight = torch.ones(1536, 576, dtype=torch.bfloat16)
with torch.inference_mode():
    for n in range(1, 500):
        torch.nn.functional.linear(torch.ones(n, 576, dtype=torch.bfloat16), weight)
        if n == 250:
            before = size_mb()
print(size_mb() - before)
"""


def test_memory_does_not_grow_with_each_new_shape() -> None:
    environment = {k: v for k, v in os.environ.items() if k not in CACHES}
    environment |= {"PYTHONPATH": str(Path(bound_kernels.__code__.co_filename).parents[3])}
    done = subprocess.run(
        [sys.executable, "-c", MULTIPLY],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    # Without a bound it is 150 MB where oneDNN computes in bf16.
    assert float(done.stdout) < 30


def test_what_the_user_has_set_counts(monkeypatch) -> None:
    monkeypatch.delenv(CACHES[0], raising=False)
    monkeypatch.setenv(CACHES[1], "7")
    bound_kernels()
    assert [os.environ[name] for name in CACHES] == [str(N_KERNELS), "7"]
    monkeypatch.delenv(CACHES[0])
