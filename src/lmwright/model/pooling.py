"""How a sentence-embedding model makes one vector of those of a text's tokens."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from lmwright.formats.sentence_transformers import Pooling


def pool(hidden: Tensor, mask: Tensor, pooling: Pooling) -> Tensor:
    """Return one vector a text, (B, C) for each kind, in fp32; texts fill rows from the left.

    `hidden` is (B, T, C), `mask` (B, T) with true for the tokens of the text.
    """
    assert bool(mask[:, 0].all()), "each row begins with a token"
    hidden = hidden.float()
    vectors = torch.cat([METHODS[kind](hidden, mask) for kind in pooling.kinds], dim=1)
    return F.normalize(vectors, dim=1) if pooling.is_normalized else vectors


def _cls(hidden: Tensor, _mask: Tensor) -> Tensor:
    return hidden[:, 0]


def _last(hidden: Tensor, mask: Tensor) -> Tensor:
    last = mask.sum(1) - 1  # (B)
    return hidden.take_along_dim(last[:, None, None], dim=1)[:, 0]


def _max(hidden: Tensor, mask: Tensor) -> Tensor:
    return hidden.masked_fill(~mask[:, :, None], float("-inf")).amax(dim=1)


def _sum(hidden: Tensor, mask: Tensor) -> Tensor:
    # Chosen, not multiplied: what stands in the padding may be no number.
    return hidden.masked_fill(~mask[:, :, None], 0.0).sum(dim=1)


def _mean(hidden: Tensor, mask: Tensor) -> Tensor:
    return _sum(hidden, mask) / mask.sum(1, keepdim=True)


def _mean_sqrt(hidden: Tensor, mask: Tensor) -> Tensor:
    return _sum(hidden, mask) / mask.sum(1, keepdim=True).sqrt()


def _weighted_mean(hidden: Tensor, mask: Tensor) -> Tensor:
    # Later tokens count more: 1, 2, 3, ...   SGPT, https://arxiv.org/abs/2202.08904
    weights = mask.cumsum(1) * mask  # (B, T)
    return _sum(hidden * weights[:, :, None], mask) / weights.sum(1, keepdim=True)


# One for each name in sentence_transformers.FLAGS.
METHODS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "cls": _cls,
    "max": _max,
    "mean": _mean,
    "mean_sqrt_len_tokens": _mean_sqrt,
    "weightedmean": _weighted_mean,
    "lasttoken": _last,
}
