"""How a model knows where a token stands: rotation, a vector a position, or a bias a distance."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lmwright.model.config import ModelConfig, Rope
from lmwright.model.linear import table

# Shapes: B batch, H heads, T tokens, S keys, D head width, C model width.


def inverse_frequencies(rope: Rope, d_head: int, n_positions: int = 1) -> Tensor:
    """Return the angle a position advances by, for each pair of rotated channels: (D/2,) fp32.

    `n_positions` is the length of what is read: two scalings depend on it.
    """
    d_rotated = int(d_head * rope.fraction)
    exponents = torch.arange(0, d_rotated, 2, dtype=torch.float32) / d_rotated
    return SCALINGS[rope.scaling](exponents, rope, n_positions)


def _unscaled(exponents: Tensor, rope: Rope, n_positions: int) -> Tensor:  # noqa: ARG001
    return 1.0 / rope.theta**exponents


def _linear(exponents: Tensor, rope: Rope, n_positions: int) -> Tensor:
    """Divide positions by the factor (Chen et al. 2023)."""
    return _unscaled(exponents, rope, n_positions) / rope.factor


def _dynamic(exponents: Tensor, rope: Rope, n_positions: int) -> Tensor:
    """Raise the base as the text grows beyond the original context ("dynamic NTK")."""
    length = max(n_positions, rope.original_max_positions)
    stretch = rope.factor * length / rope.original_max_positions - (rope.factor - 1)
    d_rotated = 2 * len(exponents)
    return 1.0 / (rope.theta * stretch ** (d_rotated / (d_rotated - 2))) ** exponents


def _llama3(exponents: Tensor, rope: Rope, n_positions: int) -> Tensor:
    """Divide low frequencies, keep high ones, with a smooth passage between them.

    Llama 3.1, meta-llama/llama-models, apply_scaling.
    """
    frequencies = _unscaled(exponents, rope, n_positions)
    rotations = rope.original_max_positions * frequencies / (2 * math.pi)
    span = rope.high_freq_factor - rope.low_freq_factor
    keep = ((rotations - rope.low_freq_factor) / span).clamp(0, 1)
    return frequencies * (keep + (1 - keep) / rope.factor)


def _yarn(exponents: Tensor, rope: Rope, n_positions: int) -> Tensor:
    """Do the same with a passage that is linear in the number of the channel (Peng et al. 2023)."""
    frequencies = _unscaled(exponents, rope, n_positions)
    d_rotated = 2 * len(exponents)

    def channel(n_rotations: float) -> float:
        n_turns = rope.original_max_positions / (n_rotations * 2 * math.pi)
        return d_rotated * math.log(n_turns) / (2 * math.log(rope.theta))

    low = max(math.floor(channel(rope.beta_fast)), 0)
    high = min(math.ceil(channel(rope.beta_slow)), d_rotated - 1)
    channels = torch.arange(len(exponents), dtype=torch.float32)
    divided = ((channels - low) / max(high - low, 0.001)).clamp(0, 1)
    return frequencies * (1 - divided) + frequencies / rope.factor * divided


def _longrope(exponents: Tensor, rope: Rope, n_positions: int) -> Tensor:
    """Divide each frequency by its own searched factor (Ding et al. 2024)."""
    is_long = n_positions > rope.original_max_positions
    factors = rope.long_factors if is_long else rope.short_factors
    return 1.0 / (torch.tensor(factors, dtype=torch.float32) * rope.theta**exponents)


SCALINGS = {
    "none": _unscaled,
    "linear": _linear,
    "dynamic": _dynamic,
    "llama3": _llama3,
    "yarn": _yarn,
    "longrope": _longrope,
}
# Their frequencies are others when the text is longer.
GROWING = ("dynamic", "longrope")


class Rotation:
    """Cosine and sine for positions; keeps the frequencies, which most models never change."""

    def __init__(self, rope: Rope, d_head: int) -> None:
        self._rope, self._d_head = rope, d_head
        self._grows = rope.scaling in GROWING
        self._frequencies: Tensor | None = None

    def __call__(self, positions: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Return cosine and sine for positions (B, T), each (B, 1, T, D)."""
        if self._grows or self._frequencies is None or self._frequencies.device != positions.device:
            length = int(positions.max()) + 1 if self._grows else 1
            frequencies = inverse_frequencies(self._rope, self._d_head, length)
            self._frequencies = frequencies.to(positions.device)
        angles = positions[:, None, :, None].float() * self._frequencies  # (B, 1, T, D/2)
        angles = torch.cat((angles, angles), dim=-1)  # (B, 1, T, D)
        factor = self._rope.attention_factor
        return (angles.cos() * factor).to(dtype), (angles.sin() * factor).to(dtype)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn queries or keys (B, H, T, D) by their positions, in Hugging Face's rotate-half layout.

    Su et al. 2021.
    """
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-second, first), dim=-1) * sin


def rotate_part(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn only the first channels, as many as cosine and sine have."""
    d_rotated = cos.shape[-1]
    return torch.cat((rotate(x[..., :d_rotated], cos, sin), x[..., d_rotated:]), dim=-1)


def position_vectors(config: ModelConfig) -> nn.Module | None:
    """Return what is added to the embedding for the positions of tokens, where something is."""
    if config.positions == "learned":
        n_unused = config.position_offset
        return Lookup(n_unused + config.max_positions, config.d_model, n_unused=n_unused)
    return SinusoidalPositions(config) if config.positions == "sinusoidal" else None


class Lookup(nn.Module):
    """A trained vector for each number, behind `n_unused` rows."""

    def __init__(self, n_rows: int, width: int, *, n_unused: int = 0) -> None:
        super().__init__()
        self.offset = n_unused
        self.weight = table(n_rows, width, std=0.02)

    def forward(self, numbers: Tensor) -> Tensor:
        """Return the vectors (B, T, C) of positions or types (B, T)."""
        return F.embedding(numbers + self.offset, self.weight)


class SinusoidalPositions(nn.Module):
    """Fixed waves of geometric lengths, all sines before all cosines (Vaswani et al. 2017)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.d_model = config.d_model

    def forward(self, positions: Tensor) -> Tensor:
        """Return the vectors (B, T, C) of positions (B, T), fp32."""
        # In fp64, because the angles of late positions are large.
        steps = torch.arange(0, self.d_model, 2, dtype=torch.float64, device=positions.device)
        angles = positions[..., None].double() / 10_000 ** (steps / self.d_model)
        return torch.cat((angles.sin(), angles.cos()), dim=-1)[..., : self.d_model].float()


class RelativeBias(nn.Module):
    """A trained bias for each head and distance, shared by all layers (Raffel et al. 2020, 2.1)."""

    def __init__(self, config: ModelConfig, *, is_causal: bool) -> None:
        super().__init__()
        self.n_buckets, self.max_distance = config.relative_buckets, config.relative_max_distance
        self.is_causal = is_causal
        self.weight = table(config.relative_buckets, config.n_heads, std=0.02)

    def forward(self, positions: Tensor, n_keys: int) -> Tensor:
        """Return the bias (B, H, T, S) of queries at positions (B, T) to keys 0 .. S - 1."""
        keys = torch.arange(n_keys, device=positions.device)
        buckets = self.buckets(keys - positions[..., None])  # (B, T, S)
        return F.embedding(buckets, self.weight).permute(0, 3, 1, 2)

    def buckets(self, distances: Tensor) -> Tensor:
        """Return the bucket of each distance (key - query): near ones exact, far ones by logs."""
        if self.is_causal:
            n_buckets, start = self.n_buckets, torch.zeros_like(distances)
            n_back = -distances.clamp(max=0)
        else:  # half of the buckets for keys that come later
            n_buckets = self.n_buckets // 2
            start = (distances > 0) * n_buckets
            n_back = distances.abs()
        n_exact = n_buckets // 2
        logs = torch.log(n_back.clamp(min=1).float() / n_exact)
        spread = logs / math.log(self.max_distance / n_exact) * (n_buckets - n_exact)
        far = (n_exact + spread.to(torch.int64)).clamp(max=n_buckets - 1)
        return start + torch.where(n_back < n_exact, n_back, far)
