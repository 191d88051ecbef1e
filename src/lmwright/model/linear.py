"""A linear layer whose weights may be kept in a wider format than the one it computes in."""

import torch.nn.functional as F
from torch import Tensor, nn


class Linear(nn.Linear):
    """y = x W^T (+ b), computed in x's dtype.

    The weight may be an fp32 master copy: it is cast for the product, and its gradient comes
    back, and adds up, in fp32.
    """

    def forward(self, input: Tensor) -> Tensor:
        bias = None if self.bias is None else self.bias.to(input.dtype)
        return F.linear(input, self.weight.to(input.dtype), bias)
