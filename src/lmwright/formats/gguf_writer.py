"""Write GGUF files: metadata and weights, quantised one tensor at a time.

The layout and the arithmetic of the formats are the `gguf` library's. What it would only notice
when llama.cpp opens the file, or half-way through a full disk, is refused here beforehand.
"""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lmwright.core.artifact import replacing
from lmwright.core.errors import ModelError, suggestion
from lmwright.formats.ggml_types import COMMON
from lmwright.formats.gguf import DEFAULT_ALIGNMENT, MAX_DIMS, MAX_NAME_BYTES
from lmwright.formats.space import check_space

if TYPE_CHECKING:
    from gguf import GGUFValueType

ARCHITECTURE = "general.architecture"
# The formats that are written, and what the file says about itself then (gguf.LlamaFileType).
FILE_TYPES = {"F32": 0, "F16": 1, "Q4_0": 2, "Q8_0": 7, "BF16": 32}
TYPES = {kind.name: kind for kind in COMMON.values()}
QUANTIZATION_VERSION = 2  # GGML_QNT_VERSION
# llama.cpp adds these to activations, or looks rows up in them, in float32 only.
ALWAYS_F32 = ("position_embd.weight", "token_types.weight")
ENDS_OF_MODEL = ("token_embd.weight", "output.weight")
LARGEST_HALF = 65_504.0
LARGEST_FLOAT = float(np.finfo(np.float32).max)
# What UTF-8 cannot write.
SURROGATES = re.compile("[\ud800-\udfff]")
# Rows that are quantised at a time: the library takes several times the memory of its input.
CHUNK_WEIGHTS = 1 << 22

Scalar = bool | int | float | str
Value = Scalar | list[bool] | list[int] | list[float] | list[str]


@dataclass(frozen=True)
class TensorSource:
    """A tensor to be written: `read` makes it only when its turn has come, as float32."""

    shape: tuple[int, ...]
    # What is wished for; `stored_type` says what it becomes.
    type_name: str
    read: Callable[[], np.ndarray]


def write_gguf(
    path: str | Path, metadata: Mapping[str, Value], tensors: Mapping[str, TensorSource]
) -> dict[str, str]:
    """Write a GGUF file atomically; return the tensors that are stored as another type than wished.

    Whole numbers become u32 (i32 in lists, or if negative; 64 bits where they need them), other
    numbers f32. Memory is that of the largest tensor in float32 and as it is stored.
    """
    import gguf

    path = Path(path)
    types = {name: checked_type(name, source) for name, source in tensors.items()}
    entries = {key: typed(key, value) for key, value in metadata.items()}
    if type(metadata.get(ARCHITECTURE)) is not str:
        raise ModelError(f"GGUF metadata: {ARCHITECTURE} is missing; llama.cpp opens no such file")
    with replacing(path) as temporary:
        check_space(path, sum(size(tensors[name], types[name]) for name in tensors))
        writer = gguf.GGUFWriter(temporary, str(metadata[ARCHITECTURE]))
        try:
            writer.data_alignment = alignment(metadata)
            for key, (value, value_type, item_type) in entries.items():
                if key != ARCHITECTURE:
                    writer.add_key_value(key, value, value_type, item_type)
            for name, source in tensors.items():
                writer.add_tensor_info(
                    name,
                    source.shape,
                    np.dtype(np.float32),
                    size(source, types[name]),
                    gguf.GGMLQuantizationType[types[name]],
                )
            writer.write_header_to_file()
            writer.write_kv_data_to_file()
            writer.write_ti_data_to_file()
            for name, source in tensors.items():
                writer.write_tensor_data(encode(name, source, types[name]))
        finally:
            if writer.fout is not None:
                writer.close()
    return {
        name: types[name] for name, source in tensors.items() if types[name] != source.type_name
    }


def stored_type(name: str, shape: tuple[int, ...], type_name: str) -> str:
    """Return the format that a tensor gets when `type_name` is wished for, as llama.cpp does it.

    Vectors stay F32; rows that do not divide into blocks fall back to F16; in a Q4_0 file the
    embedding and the head are Q8_0, because 4 bits cost most there.
    """
    if len(shape) == 1 or name in ALWAYS_F32:
        return "F32"
    if type_name == "Q4_0" and name in ENDS_OF_MODEL:
        type_name = "Q8_0"
    return "F16" if shape[-1] % TYPES[type_name].block_size else type_name


def file_metadata(type_name: str) -> dict[str, Value]:
    """Return the entries that tell in which format most weights of a file are."""
    return {
        "general.file_type": FILE_TYPES[type_name],
        "general.quantization_version": QUANTIZATION_VERSION,
    }


def checked_type(name: str, source: TensorSource) -> str:
    """Return the format of a tensor that llama.cpp can read, or raise a ModelError."""
    where = f"GGUF tensor {name!r}"
    if source.type_name not in FILE_TYPES:
        raise ModelError(
            f"{where}: cannot be written as {source.type_name!r}"
            f"{suggestion(source.type_name, FILE_TYPES)}"
        )
    # llama.cpp counts the byte that ends a name.
    if not 0 < len(name.encode()) < MAX_NAME_BYTES:
        raise ModelError(f"{where}: a name must have 1 to {MAX_NAME_BYTES - 1} bytes")
    if not 1 <= len(source.shape) <= MAX_DIMS or min(source.shape) < 1:
        raise ModelError(
            f"{where}: has shape {source.shape}; must have 1 to {MAX_DIMS} dimensions, none empty"
        )
    return stored_type(name, source.shape, source.type_name)


def size(source: TensorSource, type_name: str) -> int:
    """Return the bytes of a tensor in the file, without padding."""
    kind = TYPES[type_name]
    return math.prod(source.shape) // kind.block_size * kind.block_bytes


def alignment(metadata: Mapping[str, Value]) -> int:
    """Return where tensors may begin."""
    given = metadata.get("general.alignment", DEFAULT_ALIGNMENT)
    # llama.cpp asks for multiples of 8, our reader for powers of two.
    if type(given) is not int or given < 8 or given & (given - 1):
        raise ModelError(f"general.alignment = {given!r}: must be a power of two, at least 8")
    return given


def typed(key: str, value: Any) -> "tuple[Any, GGUFValueType, GGUFValueType | None]":
    """Return a metadata value with its type in the file, and that of its items if it is a list."""
    from gguf import GGUFValueType

    if not key or not key.isascii():
        raise ModelError(f"GGUF metadata: {key!r} is no key; must be ASCII and not empty")
    if not isinstance(value, list):
        return value, scalar_type(key, [value]), None
    # An empty list has no type, and llama.cpp wants none.
    if not value:
        raise ModelError(f"GGUF metadata {key}: is an empty list; leave it out")
    return value, GGUFValueType.ARRAY, scalar_type(key, value, in_list=True)


def scalar_type(key: str, values: list[Any], *, in_list: bool = False) -> "GGUFValueType":
    """Return the one type of all these values."""
    from gguf import GGUFValueType as T

    kinds = {type(value) for value in values}
    if kinds == {bool}:
        return T.BOOL
    if kinds == {str}:
        half = next((text for text in values if SURROGATES.search(text)), None)
        if half is not None:
            raise ModelError(
                f"GGUF metadata {key}: {half[:40]!r} holds half a surrogate pair; remove it"
            )
        return T.STRING
    if kinds == {float}:
        if any(math.isfinite(x) and abs(x) > LARGEST_FLOAT for x in values):
            raise ModelError(f"GGUF metadata {key}: is too large for a 32-bit number")
        return T.FLOAT32
    if kinds == {int}:
        least, most = min(values), max(values)
        narrow = [(T.UINT32, 0, 2**32), (T.INT32, -(2**31), 2**31)]
        wide = [(T.UINT64, 0, 2**64), (T.INT64, -(2**63), 2**63)]
        # llama.cpp reads single whole numbers as unsigned, and lists of them as signed.
        for value_type, low, end in [*(reversed(narrow) if in_list else narrow), *wide]:
            if low <= least and most < end:
                return value_type
        raise ModelError(f"GGUF metadata {key}: does not fit 64 bits")
    names = ", ".join(sorted(kind.__name__ for kind in kinds))
    raise ModelError(
        f"GGUF metadata {key}: holds {names}; must be a bool, int, float, str or a list of one kind"
    )


def encode(name: str, source: TensorSource, type_name: str) -> np.ndarray:
    """Return the bytes of a tensor in its format."""
    from gguf import GGMLQuantizationType
    from gguf.quants import quantize

    weights = np.ascontiguousarray(source.read(), np.float32)
    assert weights.shape == source.shape, f"{name}: {weights.shape}, announced {source.shape}"
    if not np.isfinite(weights).all():
        raise ModelError(f"GGUF tensor {name!r}: holds numbers that are not finite; no such model")
    if type_name == "F32":
        return weights
    if type_name != "BF16":
        check_half(name, weights, type_name)
    rows = weights.reshape(-1, weights.shape[-1])
    n_rows = max(1, CHUNK_WEIGHTS // rows.shape[1])
    out = np.empty((len(rows), size(source, type_name) // len(rows)), np.uint8)
    # Tiny weights may become 0, and the library divides by blocks of zeros.
    with np.errstate(all="ignore"):
        for start in range(0, len(rows), n_rows):
            part = slice(start, start + n_rows)
            out[part] = quantize(rows[part], GGMLQuantizationType[type_name]).view(np.uint8)
    return out


def check_half(name: str, weights: np.ndarray, type_name: str) -> None:
    """Refuse weights that become infinite: F16 stores them, Q4_0 and Q8_0 their scales, in half."""
    largest = float(np.abs(weights).max())
    limit = LARGEST_HALF * {"F16": 1, "Q4_0": 8, "Q8_0": 127}[type_name]
    if largest > limit:
        raise ModelError(
            f"GGUF tensor {name!r}: its largest weight, {largest:.3g}, does not fit {type_name} "
            f"(at most {limit:.3g}); write BF16 or F32"
        )
