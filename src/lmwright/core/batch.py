"""The one shape in which training data reaches a model."""

from dataclasses import dataclass

from torch import Tensor

# A target that takes no part in the loss; the value that torch's cross_entropy ignores, too.
IGNORE = -100


@dataclass(frozen=True)
class Batch:
    """Samples packed one behind the other, without any padding; tensors are int64 (N,)."""

    tokens: Tensor
    # targets[i] is the token that should follow tokens[i] (already shifted), or IGNORE.
    targets: Tensor
    # Positions restart at 0 with every sample.
    positions: Tensor
    # Which sample a token belongs to, from 0, ascending: it attends to earlier tokens of its own
    # sample and to nothing else.
    segments: Tensor
