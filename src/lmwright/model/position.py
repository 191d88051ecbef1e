"""Rotary position embedding (Su et al. 2021) in the rotate-half layout of Hugging Face."""

import math

import torch
from torch import Tensor

from lmwright.model.config import Rope

# Shapes: B batch, H heads, T tokens, D head width.


def inverse_frequencies(rope: Rope, d_head: int) -> Tensor:
    """Return the angle a position advances by, for each pair of channels: (D/2,) fp32."""
    exponents = torch.arange(0, d_head, 2, dtype=torch.float32) / d_head
    return SCALINGS[rope.scaling](1.0 / rope.theta**exponents, rope)


def _unscaled(frequencies: Tensor, rope: Rope) -> Tensor:  # noqa: ARG001
    return frequencies


def _linear(frequencies: Tensor, rope: Rope) -> Tensor:
    return frequencies / rope.factor


def _llama3(frequencies: Tensor, rope: Rope) -> Tensor:
    wavelengths = 2 * math.pi / frequencies
    rotations = rope.original_max_positions / wavelengths
    span = rope.high_freq_factor - rope.low_freq_factor
    keep = ((rotations - rope.low_freq_factor) / span).clamp(0, 1)
    return frequencies * (keep + (1 - keep) / rope.factor)


SCALINGS = {"none": _unscaled, "linear": _linear, "llama3": _llama3}


def rotation(frequencies: Tensor, positions: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Return cosine and sine for positions (B, T), each (B, 1, T, D)."""
    angles = positions[:, None, :, None].float() * frequencies  # (B, 1, T, D/2)
    angles = torch.cat((angles, angles), dim=-1)  # (B, 1, T, D)
    return angles.cos().to(dtype), angles.sin().to(dtype)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn queries or keys (B, H, T, D) by their positions."""
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-second, first), dim=-1) * sin
