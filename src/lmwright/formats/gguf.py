"""Read GGUF files: metadata, and weights as float32. Everything is checked before it is believed.

The format is llama.cpp's (ggml-org/ggml, docs/gguf.md). The header is parsed here rather than by
the `gguf` library because a vocabulary of 100,000 strings takes the library 1.5 s, and because a
damaged file must end in a message, not in a huge allocation.
"""

import math
import mmap
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from lmwright.core.errors import ModelError, suggestion
from lmwright.formats.ggml_types import dequantize, type_of
from lmwright.formats.settings import shown

MAGIC = b"GGUF"
VERSIONS = (2, 3)
DEFAULT_ALIGNMENT = 32

# Far above any real file; what a header claims beyond these is damage, not a model.
MAX_KEY_BYTES = 65_535
MAX_STRING_BYTES = 1 << 24
MAX_NAME_BYTES = 64  # GGML_MAX_NAME
MAX_DIMS = 4  # GGML_MAX_DIMS
MAX_NESTING = 4
MAX_ALIGNMENT = 1 << 20
MAX_ENTRIES = 1 << 16
MAX_TENSORS = 1 << 16
# Items of all arrays together. A list takes up to 36 times the bytes of an array in the file, so
# the size of the file alone is no bound. The largest vocabularies have 262,144 tokens.
MAX_ITEMS = 1 << 22

# Of the file, decoded at a time: what is made of it still fits into the processor's cache.
BLOCK_BYTES = 1 << 20

# The least that a metadata entry (key length, type, one byte) and a tensor's entry can occupy.
MIN_ENTRY_BYTES = 8 + 4 + 1
MIN_TENSOR_BYTES = 8 + 4 + 4 + 8

# Those of one number, by their ids in the file.
CODES = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "B", 10: "Q", 11: "q", 12: "d"}
SCALARS = {type_id: struct.Struct(f"<{code}") for type_id, code in CODES.items()}
BOOL, STRING, ARRAY = 7, 8, 9
U32, U64 = SCALARS[4], SCALARS[10]

DAMAGED = "the file is damaged or was not downloaded completely; download it again"


@dataclass(frozen=True)
class GgufTensor:
    """Where a tensor lies in the file. `shape` is in torch's order: the last dimension is dense."""

    name: str
    shape: tuple[int, ...]
    type_name: str
    n_bytes: int
    # From the start of the file.
    offset: int
    n_row_bytes: int


@dataclass(frozen=True, eq=False)
class GgufFile:
    """An open file: `metadata` and the table of `tensors` are in memory, the weights are mapped."""

    path: Path
    metadata: dict[str, Any]
    tensors: dict[str, GgufTensor]
    data: mmap.mmap = field(repr=False)

    def read(self, name: str) -> np.ndarray:
        """Return a tensor as a fresh float32 array of its shape."""
        tensor = self.tensor(name)
        return np.concatenate(list(self.blocks(name))).reshape(tensor.shape)

    def blocks(self, name: str) -> Iterator[np.ndarray]:
        """Yield a tensor's rows in order, fresh float32 arrays (n, width) of a few megabytes.

        What was read of the file is let go, so that it does not add up to a second model.
        """
        tensor = self.tensor(name)
        n_rows = max(1, BLOCK_BYTES // tensor.n_row_bytes)
        for start in range(0, tensor.n_bytes, n_rows * tensor.n_row_bytes):
            count = min(n_rows * tensor.n_row_bytes, tensor.n_bytes - start)
            at = tensor.offset + start
            raw = np.frombuffer(self.data, np.uint8, count=count, offset=at)
            try:
                # Infinite scales are the file's affair; NumPy need not warn about them.
                with np.errstate(all="ignore"):
                    yield dequantize(raw.reshape(-1, tensor.n_row_bytes), tensor.type_name)
            except NotImplementedError:
                raise ModelError(
                    f"{self.path}: tensor {name!r} is stored as {tensor.type_name}, which cannot "
                    "be turned into float32; use a file with another quantization, such as Q8_0"
                ) from None
            if hasattr(mmap, "MADV_DONTNEED"):
                # All of it, for the system reads ahead; what is needed is read again.
                self.data.madvise(mmap.MADV_DONTNEED)

    def tensor(self, name: str) -> GgufTensor:
        """Return where a tensor lies."""
        if name not in self.tensors:
            raise ModelError(f"{self.path}: no tensor {name!r}{suggestion(name, self.tensors)}")
        return self.tensors[name]

    def close(self) -> None:
        """Unmap the file; arrays that were read stay valid."""
        self.data.close()

    def __enter__(self) -> "GgufFile":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open_gguf(path: str | Path) -> GgufFile:
    """Open a GGUF file of version 2 or 3; raise a ModelError that names the fault if it has one."""
    path = Path(path)
    try:
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_size == 0:
                raise ModelError(f"{path}: the file is empty; download it again")
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except FileNotFoundError:
        raise ModelError(f"{path}: no such file") from None
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error.strerror or error}") from error
    try:
        metadata, tensors = read_header(path, data)
    except BaseException:
        data.close()
        raise
    return GgufFile(path=path, metadata=metadata, tensors=tensors, data=data)


def unpermute(weight: Any, n_heads: int) -> Any:
    """Return a q or k weight (or bias) of a llama-family GGUF in Hugging Face's row order.

    An array of NumPy or of torch; the result is of the same kind.

    llama.cpp rotates neighbouring rows (2i, 2i + 1) of a head, Hugging Face's models rotate row i
    with row i + d_head / 2. llama.cpp's convert_hf_to_gguf.py (LlamaModel.permute) therefore
    interleaves the halves of each head; this undoes it. For k, give the number of k/v heads.
    """
    return _regrouped(weight, n_heads, (-1, 2))


def permute(weight: Any, n_heads: int) -> Any:
    """Return a q or k weight in llama.cpp's row order: the inverse of `unpermute`."""
    return _regrouped(weight, n_heads, (2, -1))


def _regrouped(weight: Any, n_heads: int, grouping: tuple[int, int]) -> Any:
    n_rows = weight.shape[0]
    if n_heads < 1 or n_rows % (2 * n_heads):
        raise ModelError(f"{n_rows} rows cannot be split into {n_heads} heads of even width")
    grouped = weight.reshape(n_heads, *grouping, *weight.shape[1:])
    return grouped.swapaxes(1, 2).reshape(weight.shape)


def read_header(path: Path, data: mmap.mmap) -> tuple[dict[str, Any], dict[str, GgufTensor]]:
    """Return the metadata and the table of tensors, checked against the size of the file."""
    header = Header(path, data)
    n_tensors, n_entries = header.counts()
    metadata: dict[str, Any] = {}
    for i in range(n_entries):
        header.where = f"metadata entry {i + 1} of {n_entries}"
        key = header.string(MAX_KEY_BYTES)
        header.where = f"metadata key {key!r}"
        if not key or key in metadata:
            raise header.fault("occurs twice" if key else "is empty")
        metadata[key] = header.value(header.number(U32), MAX_NESTING)
    tensors = [header.tensor(i, n_tensors) for i in range(n_tensors)]
    return metadata, placed(header, tensors, alignment(header, metadata))


def alignment(header: "Header", metadata: dict[str, Any]) -> int:
    """Return the checked alignment of the tensors, in bytes."""
    given = metadata.get("general.alignment", DEFAULT_ALIGNMENT)
    header.where = "metadata key 'general.alignment'"
    if type(given) is not int or not 1 <= given <= MAX_ALIGNMENT or given & (given - 1):
        raise header.fault(f"is {shown(given)}, expected a power of two up to {MAX_ALIGNMENT}")
    return given


def placed(header: "Header", tensors: list[GgufTensor], align: int) -> dict[str, GgufTensor]:
    """Move offsets to the start of the file; refuse tensors outside of it or on one another."""
    start = -(-header.at // align) * align
    names: set[str] = set()
    previous = None
    for tensor in sorted(tensors, key=lambda tensor: tensor.offset):
        header.where = f"tensor {tensor.name!r}"
        if tensor.name in names:
            raise header.fault("occurs twice")
        names.add(tensor.name)
        if tensor.offset % align:
            raise header.fault(f"has offset {tensor.offset}, expected a multiple of {align}")
        end = start + tensor.offset + tensor.n_bytes
        if end > header.size:
            raise header.fault(f"ends at byte {end:,}, but the file has only {header.size:,} bytes")
        if previous and tensor.offset < previous.offset + previous.n_bytes:
            raise header.fault(f"overlaps tensor {previous.name!r}")
        previous = tensor
    return {tensor.name: replace(tensor, offset=start + tensor.offset) for tensor in tensors}


class Header:
    """Reads a header from front to back and takes no step, and no memory, that the file belies."""

    def __init__(self, path: Path, data: mmap.mmap) -> None:
        self.path = path
        self.data = data
        self.size = len(data)
        self.at = 0
        self.items_left = MAX_ITEMS
        # What is being read, for the messages.
        self.where = "header"

    def fault(self, what: str, remedy: str = DAMAGED) -> ModelError:
        """Return the error that names the file, the place, what was found and the remedy."""
        return ModelError(f"{self.path}: {self.where} {what}; {remedy}")

    def need(self, n_bytes: int, what: str) -> None:
        """Refuse to go on if fewer than `n_bytes` are left."""
        if n_bytes > self.size - self.at:
            raise self.fault(
                f"({what}) needs {n_bytes:,} bytes, but only {self.size - self.at:,} are left"
            )

    def number(self, layout: struct.Struct) -> Any:
        """Read one number of the given layout."""
        self.need(layout.size, "a number")
        (value,) = layout.unpack_from(self.data, self.at)
        self.at += layout.size
        return value

    def counts(self) -> tuple[int, int]:
        """Check magic and version; return the numbers of tensors and of metadata entries."""
        magic = self.data[:4]
        if magic == b"vers":
            raise self.fault("is a git-lfs pointer, not the model", "run `git lfs pull`")
        if magic != MAGIC:
            raise self.fault(
                f"begins with {magic!r}, expected {MAGIC!r}",
                "this is no GGUF file, or a damaged one",
            )
        self.at = 4
        version = self.number(U32)
        if version not in VERSIONS:
            swapped = int.from_bytes(version.to_bytes(4, "little"), "big")
            if swapped in VERSIONS:
                raise self.fault("is big-endian", "use a little-endian file")
            raise self.fault(
                f"has version {version}, expected 2 or 3", "convert the model again with llama.cpp"
            )
        n_tensors, n_entries = self.number(U64), self.number(U64)
        for n, what, min_bytes, most in (
            (n_entries, "metadata entries", MIN_ENTRY_BYTES, MAX_ENTRIES),
            (n_tensors, "tensors", MIN_TENSOR_BYTES, MAX_TENSORS),
        ):
            self.need(n * min_bytes, f"{n:,} {what}")
            if n > most:
                raise self.fault(f"announces {n:,} {what}, expected at most {most:,}")
        return n_tensors, n_entries

    def string(self, max_bytes: int) -> str:
        """Read a length and so many bytes of UTF-8."""
        n_bytes = self.number(U64)
        self.need(n_bytes, "a string")
        if n_bytes > max_bytes:
            raise self.fault(f"is a string of {n_bytes:,} bytes, expected at most {max_bytes:,}")
        text = self.data[self.at : self.at + n_bytes]
        self.at += n_bytes
        try:
            return text.decode()
        except UnicodeDecodeError:
            raise self.fault(f"is not UTF-8: {text[:40]!r}") from None

    def value(self, type_id: int, nesting: int) -> Any:
        """Read a value of this type; arrays become lists."""
        if type_id == STRING:
            return self.string(MAX_STRING_BYTES)
        if type_id == ARRAY:
            return self.array(nesting)
        if type_id not in SCALARS:
            raise self.fault(f"has the unknown type {type_id}")
        number = self.number(SCALARS[type_id])
        return self.truth([number])[0] if type_id == BOOL else number

    def array(self, nesting: int) -> list[Any]:
        """Read a list of values of one type."""
        if nesting == 0:
            raise self.fault(f"is nested more than {MAX_NESTING} deep")
        type_id, n = self.number(U32), self.number(U64)
        if type_id not in SCALARS and type_id not in (STRING, ARRAY):
            raise self.fault(f"is an array of the unknown type {type_id}")
        item_bytes = {STRING: 8, ARRAY: 12}.get(type_id) or SCALARS[type_id].size
        self.need(n * item_bytes, f"an array of {n:,} items")
        self.items_left -= n
        if self.items_left < 0:
            raise self.fault(f"is an array of {n:,} items, expected at most {MAX_ITEMS:,} in all")
        if type_id == STRING:
            return self.strings(n)
        if type_id == ARRAY:
            return [self.array(nesting - 1) for _ in range(n)]
        numbers = struct.unpack_from(f"<{n}{CODES[type_id]}", self.data, self.at)
        self.at += n * item_bytes
        return self.truth(numbers) if type_id == BOOL else list(numbers)

    def strings(self, n: int) -> list[str]:
        """Read `n` strings as `string` does, in a loop tight enough for a vocabulary."""
        data, size, length_at = self.data, self.size, U64.unpack_from
        texts: list[str] = []
        start = self.at
        try:
            for _ in range(n):
                end = start + 8 + length_at(data, start)[0]
                if end > size:
                    break
                texts.append(data[start + 8 : end].decode())
                start = end
        except (struct.error, UnicodeDecodeError):
            pass
        self.at = start
        if len(texts) < n:
            # Here is the fault, and reading it slowly says which.
            self.where += f", item {len(texts) + 1} of {n:,},"
            self.string(MAX_STRING_BYTES)
            raise AssertionError("the slow reader accepts what the fast one refused")
        return texts

    def truth(self, numbers: Any) -> list[bool]:
        """Return booleans, which are bytes of 0 or 1 and nothing else."""
        for number in numbers:
            if number > 1:
                raise self.fault(f"has a boolean of value {number}, expected 0 or 1")
        return [number == 1 for number in numbers]

    def tensor(self, index: int, n_tensors: int) -> GgufTensor:
        """Read a tensor's entry; its offset still counts from the end of the header."""
        self.where = f"tensor {index + 1} of {n_tensors}"
        name = self.string(MAX_NAME_BYTES)
        self.where = f"tensor {name!r}"
        if not name:
            raise self.fault("has no name")
        n_dims = self.number(U32)
        if not 1 <= n_dims <= MAX_DIMS:
            raise self.fault(f"has {n_dims:,} dimensions, expected 1 to {MAX_DIMS}")
        dims = [self.number(U64) for _ in range(n_dims)]
        if 0 in dims:
            raise self.fault(f"has the dimensions {dims}, expected none to be 0")
        type_id, offset = self.number(U32), self.number(U64)
        kind = type_of(type_id)
        if kind is None:
            raise self.fault(
                f"has the unknown type {type_id}",
                "the file is damaged (download it again) or newer than the installed gguf package "
                "(upgrade it)",
            )
        if dims[0] % kind.block_size:
            raise self.fault(
                f"has rows of {dims[0]}, expected a multiple of {kind.block_size} for {kind.name}"
            )
        n_row_bytes = dims[0] // kind.block_size * kind.block_bytes
        return GgufTensor(
            name=name,
            shape=tuple(reversed(dims)),
            type_name=kind.name,
            n_bytes=math.prod(dims[1:]) * n_row_bytes,
            offset=offset,
            n_row_bytes=n_row_bytes,
        )
