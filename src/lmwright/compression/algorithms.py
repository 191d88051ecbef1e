"""How weights become integers: an algorithm is one record, whatever format stores the result."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

    from lmwright.formats.packed import Scheme


@dataclass(frozen=True, eq=False)
class LinearLayer:
    """A matrix of attention or feed-forward, N outputs by K inputs, as an algorithm gets it."""

    # In the file: "model.layers.0.mlp.up_proj.weight".
    name: str
    weight: "Tensor"  # (N, K)
    # What enters it, (T, K) fp32 for each calibration text, computed anew each time it is iterated
    # over; the blocks before it are compressed already. Empty unless the algorithm asks for it.
    inputs: "Iterable[Tensor]" = ()


@dataclass(frozen=True, eq=False)
class GroupedIntegers:
    """What stands for a matrix: weight = integer * scale, with a scale for each group of a row."""

    ints: "Tensor"  # (N, K) int8
    scales: "Tensor"  # (N, K / group_size), fp16 or bf16, never 0


@dataclass(frozen=True)
class Algorithm:
    """One way to choose integers and scales."""

    name: str
    quantize: "Callable[[LinearLayer, Scheme], GroupedIntegers]"
    # Whether it looks at a layer's inputs; then whoever compresses must give calibration texts.
    needs_inputs: bool = False


def _round_to_nearest(layer: LinearLayer, scheme: "Scheme") -> GroupedIntegers:
    from lmwright.compression.rtn import quantize_groups  # torch

    assert scheme.group_size is not None
    ints, scales = quantize_groups(layer.weight, bits=scheme.bits, group_size=scheme.group_size)
    return GroupedIntegers(ints, scales)


RTN = Algorithm("rtn", _round_to_nearest)
ALGORITHMS = {algorithm.name: algorithm for algorithm in (RTN,)}
# Other spellings of a recipe's `method`, and what they mean.
SHORT_FORMS: Mapping[str, Mapping[str, Any]] = {
    "int8": {"method": "rtn", "bits": 8},
    "int4": {"method": "rtn", "bits": 4},
}
