"""The weights of a Hugging Face folder: safetensors, in one file or in shards with an index.

Headers are checked here before the `safetensors` library opens a file, so that a damaged one ends
in a message that names the file and the tensor. Pickles are refused: opening one runs its code.
"""

import json
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmwright.core.artifact import replacing, write_json
from lmwright.core.errors import LmwrightError, ModelError
from lmwright.formats.space import check_space

if TYPE_CHECKING:
    import torch

SINGLE = "model.safetensors"
SHARD = "model-{:05}-of-{:05}.safetensors"
INDEX = "model.safetensors.index.json"
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")
MAX_SHARD_BYTES = 5_000_000_000

# The library refuses longer headers, too.
MAX_HEADER_BYTES = 100_000_000
MAX_DIMS = 64
DTYPE_BYTES = {
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E4M3", "F8_E5M2"), 1),
    **dict.fromkeys(("U16", "I16", "F16", "BF16"), 2),
    **dict.fromkeys(("U32", "I32", "F32"), 4),
    **dict.fromkeys(("U64", "I64", "F64"), 8),
}

TORCH_NAMES = {"F16": "float16", "BF16": "bfloat16", "F32": "float32", "F64": "float64"}
# Cast at a time when a tensor is wanted in another format than it is stored in.
CAST_BYTES = 1 << 24

DAMAGED = "the file is damaged or was not copied completely; fetch or write it again"


@dataclass(frozen=True)
class Entry:
    """What a header says about one tensor; `start` and `end` count from the end of the header."""

    path: Path
    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


class Weights(Mapping[str, "torch.Tensor"]):
    """Tensors by name, read when they are asked for; `entries` tells dtypes and shapes at once."""

    def __init__(self, folder: Path, entries: dict[str, Entry]) -> None:
        self.folder = folder
        self.entries = entries
        # One open, mapped file a shard.
        self._files: dict[Path, Any] = {}

    @property
    def size_bytes(self) -> int:
        """The bytes of all weight files on disk."""
        return sum(path.stat().st_size for path in {entry.path for entry in self.entries.values()})

    def __getitem__(self, name: str) -> "torch.Tensor":
        from safetensors import SafetensorError, safe_open

        path = self.entries[name].path
        try:
            if path not in self._files:
                self._files[path] = safe_open(path, framework="pt")
            return self._files[path].get_tensor(name)
        except (SafetensorError, OSError) as error:
            raise ModelError(f"{path}: tensor {name!r} cannot be read: {error}") from error

    def read(self, name: str, dtype: "torch.dtype") -> "torch.Tensor":
        """Return a tensor in this format: mapped if it is stored so, else cast part by part.

        What was read for a cast is unmapped at once, so that it never adds up to a second model.
        """
        import torch
        from safetensors import SafetensorError, safe_open

        entry = self.entries[name]
        is_stored_so = TORCH_NAMES.get(entry.dtype) == str(dtype).removeprefix("torch.")
        if is_stored_so or not entry.shape:
            return self[name].to(dtype)
        result = torch.empty(entry.shape, dtype=dtype)
        n_rows = max(1, CAST_BYTES * entry.shape[0] // max(1, entry.end - entry.start))
        try:
            for start in range(0, entry.shape[0], n_rows):
                rows = slice(start, start + n_rows)
                with safe_open(entry.path, framework="pt") as file:
                    result[rows] = file.get_slice(name)[rows]
        except (SafetensorError, OSError) as error:
            raise ModelError(f"{entry.path}: tensor {name!r} cannot be read: {error}") from error
        return result

    def __contains__(self, name: object) -> bool:
        return name in self.entries

    def __iter__(self) -> Iterator[str]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)


def read_weights(folder: str | Path) -> Weights:
    """Open `model.safetensors`, or the shards of its index; raise a ModelError if one is faulty."""
    folder = Path(folder)
    if (folder / SINGLE).is_file():
        return Weights(folder, read_entries(folder / SINGLE))
    if (folder / INDEX).is_file():
        return Weights(folder, read_shards(folder))
    if not folder.is_dir():
        raise ModelError(f"{folder}: no such folder")
    pickles = sorted(path.name for pattern in PICKLES for path in folder.glob(pattern))
    if pickles:
        raise ModelError(
            f"{folder}: has its weights only as pickle ({', '.join(pickles[:3])}), which may run "
            "any code when opened; if you trust it, convert it with transformers: "
            "AutoModelForCausalLM.from_pretrained(FOLDER).save_pretrained(OUT)"
        )
    raise ModelError(f"{folder}: holds neither {SINGLE} nor {INDEX}; is this a model's folder?")


def write_weights(
    tensors: "Mapping[str, torch.Tensor]",
    folder: str | Path,
    *,
    max_shard_bytes: int = MAX_SHARD_BYTES,
) -> list[Path]:
    """Write the tensors atomically, in shards with an index if they are larger; return the files.

    Tensors may not share memory. Weights that were in the folder before are replaced.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    shards = split(tensors, max_shard_bytes)
    n = len(shards)
    paths = [folder / (SINGLE if n == 1 else SHARD.format(i + 1, n)) for i in range(n)]
    old = set(folder.glob("model*.safetensors")) | {folder / INDEX}
    # All shards take their places after the last one is written: a full disk harms nothing old.
    with ExitStack() as stack:
        for names, path in zip(shards, paths, strict=True):
            temporary = stack.enter_context(replacing(path))
            write_shard({name: tensors[name] for name in names}, temporary, path=path)
        # Its shards are about to change under it, and half of each model is none.
        (folder / INDEX).unlink(missing_ok=True)
    if n > 1:
        # Only now the shards are a model.
        placed = zip(shards, paths, strict=True)
        weight_map = {name: path.name for names, path in placed for name in names}
        total = sum(tensor.nbytes for tensor in tensors.values())
        index = {"metadata": {"total_size": total}, "weight_map": weight_map}
        write_json(folder / INDEX, index)
        paths.append(folder / INDEX)
    for path in old - set(paths):
        path.unlink(missing_ok=True)
    return paths


def read_entries(path: Path) -> dict[str, Entry]:
    """Return the table of a safetensors file, checked against the size of the file."""
    try:
        with path.open("rb") as file:
            n_file_bytes = os.fstat(file.fileno()).st_size
            head = file.read(8)
            if head.startswith(b"version "):
                raise ModelError(f"{path}: is a git-lfs pointer, not the weights; run git lfs pull")
            n_header_bytes = int.from_bytes(head, "little")
            if len(head) < 8 or n_header_bytes > min(MAX_HEADER_BYTES, n_file_bytes - 8):
                raise ModelError(
                    f"{path}: announces a header of {n_header_bytes:,} bytes in a file of "
                    f"{n_file_bytes:,}; {DAMAGED}"
                )
            text = file.read(n_header_bytes)
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error.strerror or error}") from error
    header = parse_object(path, text)
    header.pop("__metadata__", None)
    entries = {name: read_entry(path, name, value) for name, value in header.items()}
    check_layout(path, entries, n_data_bytes=n_file_bytes - 8 - n_header_bytes)
    return entries


def parse_object(path: Path, text: bytes) -> dict[str, Any]:
    """Parse a JSON object in which no key occurs twice."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        table = dict(pairs)
        if len(table) < len(pairs):
            names = [name for name, _ in pairs]
            twice = next(name for name in names if names.count(name) > 1)
            raise ModelError(f"{path}: {twice!r} occurs twice; {DAMAGED}")
        return table

    try:
        data = json.loads(text, object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:
        if isinstance(error, ModelError):
            raise
        raise ModelError(f"{path}: is not JSON where it should be ({error}); {DAMAGED}") from None
    if not isinstance(data, dict):
        raise ModelError(f"{path}: holds a JSON {type(data).__name__}, expected an object")
    return data


def read_entry(path: Path, name: str, value: Any) -> Entry:
    """Check one tensor's dtype, shape and offsets against each other."""

    def is_size(number: Any) -> bool:
        return type(number) is int and 0 <= number < 2**63

    where = f"{path}: tensor {name!r}"
    if not isinstance(value, dict) or not {"dtype", "shape", "data_offsets"} <= value.keys():
        raise ModelError(f"{where} has no dtype, shape and data_offsets; {DAMAGED}")
    dtype, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPE_BYTES:
        raise ModelError(f"{where} has dtype {dtype!r}; known: {', '.join(DTYPE_BYTES)}")
    if not isinstance(shape, list) or len(shape) > MAX_DIMS or not all(map(is_size, shape)):
        raise ModelError(f"{where} has the shape {str(shape)[:80]}, expected sizes; {DAMAGED}")
    if not isinstance(offsets, list) or len(offsets) != 2 or not all(map(is_size, offsets)):
        raise ModelError(f"{where} has data_offsets {str(offsets)[:80]}; {DAMAGED}")
    start, end = offsets
    n_bytes = math.prod(shape) * DTYPE_BYTES[dtype]
    if end - start != n_bytes:
        raise ModelError(
            f"{where} has {end - start:,} bytes, but {dtype} of shape {shape} needs {n_bytes:,}; "
            f"{DAMAGED}"
        )
    return Entry(path=path, dtype=dtype, shape=tuple(shape), start=start, end=end)


def check_layout(path: Path, entries: dict[str, Entry], *, n_data_bytes: int) -> None:
    """Refuse tensors that overlap, leave a gap or reach over the end of the file."""
    at, previous = 0, "the header"
    for name, entry in sorted(entries.items(), key=lambda item: (item[1].start, item[1].end)):
        where = f"{path}: tensor {name!r}"
        if entry.start != at:
            how = "overlaps" if entry.start < at else "leaves a gap after"
            raise ModelError(f"{where} {how} {previous}; {DAMAGED}")
        if entry.end > n_data_bytes:
            raise ModelError(
                f"{where} ends {entry.end - n_data_bytes:,} bytes after the end of the file; "
                f"{DAMAGED}"
            )
        at, previous = entry.end, f"tensor {name!r}"
    if at != n_data_bytes:
        raise ModelError(
            f"{path}: has {n_data_bytes - at:,} bytes that belong to no tensor; {DAMAGED}"
        )


def read_shards(folder: Path) -> dict[str, Entry]:
    """Return the joint table of all shards, which must be just what the index promises."""
    index = folder / INDEX
    try:
        weight_map = parse_object(index, index.read_bytes()).get("weight_map")
    except OSError as error:
        raise ModelError(f"{index}: cannot be read: {error.strerror or error}") from error
    if not isinstance(weight_map, dict) or not weight_map:
        raise ModelError(f"{index}: has no weight_map; {DAMAGED}")
    shards = list(dict.fromkeys(map(str, weight_map.values())))
    for shard in shards:
        # An index comes from outside: it may not lead out of its folder.
        if Path(shard).name != shard or "\\" in shard or not shard.endswith(".safetensors"):
            raise ModelError(f"{index}: {shard!r} is not the name of a .safetensors file beside it")
        if not (folder / shard).is_file():
            raise ModelError(f"{folder / shard}: missing, but {INDEX} names it; fetch it again")
    entries: dict[str, Entry] = {}
    for shard in shards:
        for name, entry in read_entries(folder / shard).items():
            if weight_map.get(name) != shard:
                raise ModelError(
                    f"{folder / shard}: has tensor {name!r}, which {INDEX} does not place there; "
                    "fetch index and shards again, together"
                )
            entries[name] = entry
    missing = sorted(weight_map.keys() - entries.keys())
    if missing:
        raise ModelError(
            f"{folder / str(weight_map[missing[0]])}: lacks tensor {missing[0]!r}, which {INDEX} "
            "places there; fetch index and shards again, together"
        )
    return {name: entries[name] for name in weight_map}


def split(tensors: "Mapping[str, torch.Tensor]", max_shard_bytes: int) -> list[list[str]]:
    """Fill shards with names in order; a tensor larger than a shard gets its own."""
    shards: list[list[str]] = [[]]
    n_bytes = 0
    for name, tensor in tensors.items():
        if shards[-1] and n_bytes + tensor.nbytes > max_shard_bytes:
            shards.append([])
            n_bytes = 0
        shards[-1].append(name)
        n_bytes += tensor.nbytes
    return shards


def write_shard(tensors: "dict[str, torch.Tensor]", temporary: Path, *, path: Path) -> None:
    """Write one file, meant for `path`; a full disk is an error that says how much is needed."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    n_bytes = sum(tensor.nbytes for tensor in tensors.values())
    check_space(path, n_bytes)
    dense = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    try:
        save_file(dense, temporary, metadata={"format": "pt"})
    except SafetensorError as error:
        raise LmwrightError(
            f"cannot write {path}: {error}; it needs {n_bytes:,} bytes; free some space or write "
            "elsewhere"
        ) from error
