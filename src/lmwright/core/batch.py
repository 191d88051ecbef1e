"""The one shape in which tokens reach a model."""

from dataclasses import dataclass

from torch import Tensor

# A target that takes no part in the loss; the value that torch's cross_entropy ignores, too.
IGNORE = -100


@dataclass(frozen=True)
class Batch:
    """Packed rows of tokens; all tensors are int64 of shape (B, T)."""

    tokens: Tensor
    # targets[b, t] is the token that should follow tokens[b, t] (already shifted), or IGNORE.
    targets: Tensor
    # Positions restart at 0 with every sample.
    positions: Tensor
    # Samples of one row carry different numbers, padding carries -1: a token attends to
    # earlier tokens with its own number and to nothing else.
    segments: Tensor
