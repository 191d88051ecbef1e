"""Randomness as a function of (seed, step): a resumed run draws what it would have drawn."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def step_generator(seed: int, step: int, purpose: str) -> torch.Generator:
    """Return a generator (on the CPU) for one purpose in one optimiser step."""
    digest = hashlib.sha256(f"{seed}/{step}/{purpose}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8]))


@contextmanager
def seeded_modules(seed: int, step: int, device: torch.device) -> Iterator[None]:
    """Seed torch's own generators, from which dropout draws, and put them back afterwards."""
    number = step_generator(seed, step, "modules").initial_seed()
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        # Not torch.manual_seed: it formats a stack trace for a GPU that was not used yet.
        torch.default_generator.manual_seed(number)
        if devices:
            torch.cuda.manual_seed(number)
        yield
