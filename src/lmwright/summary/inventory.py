"""What a model's files hold, part by part: from their headers, so that any size takes no time."""

import math
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from lmwright.core.errors import ModelError
from lmwright.engine.info import KINDS
from lmwright.formats.gguf import GgufFile
from lmwright.formats.packed import SUFFIXES, packed_weights
from lmwright.formats.safetensors_folder import Weights, read_weights
from lmwright.model.checkpoint import (
    Checkpoint,
    read_config,
    read_gguf_layout,
    read_layout,
    turned,
)
from lmwright.model.config import ModelConfig
from lmwright.model.parts import PARTS, part_of

# What a file holds besides the model's parameters: a second copy, tables that are computed here.
NOT_NEEDED = "not needed"


@dataclass(frozen=True)
class StoredPart:
    """The parameters with one purpose, and how they are stored."""

    name: str
    n_params: int
    size_bytes: int
    # Number formats, that of the most bytes first.
    formats: tuple[str, ...]

    @property
    def bits_per_weight(self) -> float | None:
        """Bits in the file for each parameter."""
        return 8 * self.size_bytes / self.n_params if self.n_params else None


@dataclass(frozen=True)
class Inventory:
    """A model's shape and its parameters by part; a parameter under two names counts once."""

    config: ModelConfig
    # "decoder", "encoder" or "encoder-decoder".
    assembly: str
    parts: tuple[StoredPart, ...]

    @property
    def n_params(self) -> int:
        """All parameters."""
        return sum(part.n_params for part in self.parts)

    @property
    def size_bytes(self) -> int:
        """Bytes of all tensors in the files."""
        return sum(part.size_bytes for part in self.parts)

    @property
    def bits_per_weight(self) -> float:
        """Bits in the files for each parameter."""
        return 8 * self.size_bytes / self.n_params


@dataclass(frozen=True)
class StoredTensor:
    """A tensor as a file holds it."""

    shape: tuple[int, ...]
    size_bytes: int
    format: str


def folder_inventory(folder: Path) -> Inventory:
    """Read a Hugging Face folder, plain or quantised; raise the errors that loading it would."""
    settings = read_config(folder)
    weights = read_weights(folder)
    tensors = {
        name: StoredTensor(entry.shape, entry.end - entry.start, entry.dtype)
        for name, entry in weights.entries.items()
    }
    if settings.get("quantization_config") is not None:
        try:
            tensors = _unpacked(weights, tensors, settings["quantization_config"])
        except ModelError as error:
            raise ModelError(f"{folder}: {error}") from None
    # Tensors stored twice are compared by their shapes here, by their values when loaded.
    shapes = {name: torch.tensor(stored.shape) for name, stored in tensors.items()}
    layout = read_layout(folder, settings, shapes)

    for row, name in layout.names.items():
        if name in tensors:  # read_layout has allowed zeros that are not stored
            tensor = turned(row, torch.empty(tensors[name].shape, device="meta"))
            tensors[name] = replace(tensors[name], shape=tuple(tensor.shape))
    return _inventory(layout, tensors, source=folder)


def gguf_inventory(file: GgufFile) -> Inventory:
    """Read a GGUF file's header; raise the errors that loading it would."""
    layout = read_gguf_layout(file)
    tensors = {
        name: StoredTensor(tensor.shape, tensor.n_bytes, tensor.type_name)
        for name, tensor in file.tensors.items()
    }
    return _inventory(layout, tensors, source=file.path)


def _unpacked(
    weights: Weights, tensors: Mapping[str, StoredTensor], quantization_config: Mapping[str, object]
) -> dict[str, StoredTensor]:
    """Put one weight in the place of the tensors that a packed one is stored in."""
    found = dict(tensors)
    for name, scheme in packed_weights(tensors, quantization_config).items():
        parts = [found.pop(name + suffix) for suffix in SUFFIXES]
        groups = "a scale a row" if scheme.group_size is None else f"groups of {scheme.group_size}"
        found[name] = StoredTensor(
            # Two numbers: the only tensor that is read.
            tuple(int(size) for size in weights[f"{name}_shape"].flatten().tolist()),
            sum(part.size_bytes for part in parts),
            f"int{scheme.bits}, {groups}",
        )
    return found


def _inventory(
    layout: Checkpoint, tensors: Mapping[str, StoredTensor], *, source: Path
) -> Inventory:
    """Count parameters as the configuration asks for them, and bytes as the file has them."""
    n_params: Counter[str] = Counter()
    formats: defaultdict[str, Counter[str]] = defaultdict(Counter)
    parts_of = dict.fromkeys(tensors, NOT_NEEDED)
    for row, name in layout.names.items():
        part = part_of(row.ours[0])
        n_params[part] += math.prod(layout.shape(row))
        if name in tensors:
            layout.check(row, tensors[name].shape, source=source)
            parts_of[name] = part
    for name, part in parts_of.items():
        formats[part][tensors[name].format] += tensors[name].size_bytes
    parts = tuple(
        StoredPart(name, n_params[name], sizes.total(), tuple(n for n, _ in sizes.most_common()))
        for name in (*PARTS, NOT_NEEDED)
        if (sizes := formats[name]) or n_params[name]
    )
    assembly = KINDS[layout.family.assembly.__name__]
    return Inventory(layout.model.config, assembly, parts)
