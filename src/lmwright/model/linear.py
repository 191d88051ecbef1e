"""Linear layers and tables whose weights may be wider than the format they compute in."""

import torch
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


def table(n_rows: int, width: int, *, std: float) -> nn.Parameter:
    """Return random vectors (n_rows, width).

    Uniform: on the meta device, where models from files are built, torch loads sympy for normal
    numbers (0.5 s and 36 MB).
    """
    bound = std * 3**0.5
    return nn.Parameter(torch.empty(n_rows, width).uniform_(-bound, bound))
