"""The number formats inside a GGUF file: their block sizes, and how to turn them into float32.

The formats that small models really use are decoded here, four times as fast as in the `gguf`
library and to the same bits; all others are handed to the library, which costs an import.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

# Blocks decoded at a time: 2048 blocks of 32 weights are 256 KiB of float32, which stays in cache
# between the passes over them.
CHUNK = 2048
LOW_NIBBLES = 0x0F


@dataclass(frozen=True)
class GgmlType:
    """A number format: so many weights share a block of so many bytes."""

    name: str
    block_size: int
    block_bytes: int


# Ids as in ggml.h; `type_of` asks the library about all others.
COMMON = {
    0: GgmlType("F32", 1, 4),
    1: GgmlType("F16", 1, 2),
    2: GgmlType("Q4_0", 32, 18),
    3: GgmlType("Q4_1", 32, 20),
    8: GgmlType("Q8_0", 32, 34),
    30: GgmlType("BF16", 1, 2),
}


def type_of(type_id: int) -> GgmlType | None:
    """Return the format with this id, or None if nobody knows it."""
    if type_id in COMMON:
        return COMMON[type_id]
    # Only here: the import takes longer than reading a whole file of the common formats.
    from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

    try:
        known = GGMLQuantizationType(type_id)
    except ValueError:
        return None
    if known not in GGML_QUANT_SIZES:
        return None
    return GgmlType(known.name, *GGML_QUANT_SIZES[known])


def dequantize(raw: np.ndarray, type_name: str) -> np.ndarray:
    """Return fresh float32 weights for `raw` bytes of shape (n_rows, bytes a row).

    Raises NotImplementedError for a format that nobody can decode.
    """
    if type_name in DECODERS:
        return DECODERS[type_name](raw).reshape(len(raw), -1)
    from gguf.constants import GGMLQuantizationType
    from gguf.quants import dequantize as library_dequantize

    return library_dequantize(raw, GGMLQuantizationType[type_name])


def block_decoder(
    block_bytes: int, n_scales: int, integers: Callable[[np.ndarray], np.ndarray], *, zero: int = 0
) -> Callable[[np.ndarray], np.ndarray]:
    """Make the decoder of a format with 32 weights a block: scale * (q - zero) + minimum.

    A block is the scale and, of two `n_scales`, the minimum in half precision; then the integers.
    """

    def decode(raw: np.ndarray) -> np.ndarray:
        blocks = raw.reshape(-1, block_bytes)
        scales = half_columns(blocks, n_scales)
        weights = np.empty((len(blocks), 32), np.float32)
        for start in range(0, len(blocks), CHUNK):
            chunk = slice(start, start + CHUNK)
            weights[chunk] = integers(blocks[chunk, 2 * n_scales :])
            if zero:
                weights[chunk] -= zero
            weights[chunk] *= scales[chunk, :1]
            if n_scales == 2:
                weights[chunk] += scales[chunk, 1:]
        return weights

    return decode


def half_columns(blocks: np.ndarray, n: int) -> np.ndarray:
    """Return the first `n` half-precision numbers of each block as float32 of shape (N, n)."""
    return np.ascontiguousarray(blocks[:, : 2 * n]).view("<f2").astype(np.float32)


def nibbles(packed: np.ndarray) -> np.ndarray:
    """Return the 32 weights of each block: all low halves of its 16 bytes first, then all high."""
    unpacked = np.empty((len(packed), 32), np.uint8)
    np.bitwise_and(packed, LOW_NIBBLES, out=unpacked[:, :16])
    np.right_shift(packed, 4, out=unpacked[:, 16:])
    return unpacked


DECODERS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    # A copy, so that nothing points into the file any more.
    "F32": lambda raw: raw.view("<f4").astype(np.float32),
    "F16": lambda raw: raw.view("<f2").astype(np.float32),
    # The upper half of a float32.
    "BF16": lambda raw: (raw.view("<u2").astype(np.uint32) << 16).view(np.float32),
    "Q4_0": block_decoder(18, 1, nibbles, zero=8),
    "Q4_1": block_decoder(20, 2, nibbles),
    "Q8_0": block_decoder(34, 1, lambda signed: signed.view(np.int8)),
}
