"""Round to nearest: the scale of a group is its largest value's, or that of the cheapest clip."""

import torch
from torch import Tensor

# Tried as the largest value that a group can still hold, as a part of the largest in it; the one
# with the least squared error is taken. With 15 steps, clipping one outlier pays: on SmolLM2 in
# groups of 64 the error falls from 11.3 % to 9.7 %. With 255 steps it never does.
CLIPS = {8: (1.0,), 4: (1.0, 0.95, 0.9, 0.85, 0.8)}
# Numbers rounded at a time: what is computed on the way stays in the cache.
BLOCK = 2**17


def quantize_groups(weight: Tensor, *, bits: int, group_size: int) -> tuple[Tensor, Tensor]:
    """Return int8 integers (N, K) and scales (N, K / group_size) with weight = integer * scale.

    Scales have 16 bits: fp16 for a weight in fp16, else bf16. They are never 0.
    """
    n_rows = max(1, BLOCK // weight.shape[1])
    blocks = [_quantize_rows(rows, bits, group_size) for rows in weight.split(n_rows)]
    ints, scales = zip(*blocks, strict=True)
    return torch.cat(ints), torch.cat(scales)


def _quantize_rows(weight: Tensor, bits: int, group_size: int) -> tuple[Tensor, Tensor]:
    scale_dtype = torch.float16 if weight.dtype == torch.float16 else torch.bfloat16
    groups = weight.float().unflatten(1, (-1, group_size))  # (N, G, S)
    widest = groups.abs().amax(2) / (2 ** (bits - 1) - 1)  # (N, G)
    first, *others = CLIPS[bits]
    ints, scales, errors = _round_groups(groups, (widest * first).to(scale_dtype), bits)
    for clip in others:
        new = _round_groups(groups, (widest * clip).to(scale_dtype), bits)
        is_better = new[2] < errors
        ints = torch.where(is_better.unsqueeze(2), new[0], ints)
        scales = torch.where(is_better, new[1], scales)
        errors = torch.where(is_better, new[2], errors)
    return ints.to(torch.int8).flatten(1), scales


def _round_groups(groups: Tensor, scales: Tensor, bits: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return integers (N, G, S) as floats, the scales used, and squared errors (N, G)."""
    # A group of zeros, or of values so small that their scale has become 0.
    scales = scales.clamp(min=torch.finfo(scales.dtype).tiny)
    # Rounded with the scale as it is stored, so that its own rounding costs nothing.
    step = scales.float().unsqueeze(2)
    ints = (groups / step).round_().clamp_(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    return ints, scales, (ints * step - groups).square().sum(2)
