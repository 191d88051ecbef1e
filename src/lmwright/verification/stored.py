"""How a model's weights are stored: most of them, and each by the name that it has here."""

import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from lmwright.formats.gguf import GgufFile, open_gguf
from lmwright.formats.gguf_writer import ALWAYS_F32, ENDS_OF_MODEL
from lmwright.formats.safetensors_folder import DTYPE_BYTES, read_weights

# One name for what safetensors and GGUF both have; GGUF's other types keep theirs (Q4_0).
PLAIN = {"F32": "fp32", "F16": "fp16", "BF16": "bf16"}
# A format counts if so much of the weights is in it.
LEAST_SHARE = 0.1


@dataclass(frozen=True)
class StoredWeights:
    """The number formats of a model: "fp32", "bf16", "int4", "Q8_0"."""

    # What most tensors with weights are stored in: see `weights_of`.
    most: str = "fp32"
    # Our name of a tensor -> its format; what is not named is stored like most.
    by_name: Mapping[str, str] = field(default_factory=dict)
    is_gguf: bool = False

    def of(self, name: str) -> str:
        """Return the format of a tensor."""
        return self.by_name.get(name, self.most)


def stored_weights(path: Path) -> StoredWeights:
    """Read how each tensor of a folder or a .gguf file is stored, from the headers."""
    import torch

    from lmwright.formats.packed import SUFFIXES, packed_weights
    from lmwright.model.checkpoint import read_config, read_gguf_layout, read_layout

    if path.suffix == ".gguf":
        file = open_gguf(path)
        layout = read_gguf_layout(file)
        formats = {name: tensor.type_name for name, tensor in file.tensors.items()}
    else:
        settings, entries = read_config(path), read_weights(path).entries
        formats = {name: entry.dtype for name, entry in entries.items()}
        shapes = {name: torch.tensor(entry.shape) for name, entry in entries.items()}
        quantization = settings.get("quantization_config")
        schemes = {} if quantization is None else packed_weights(entries, quantization)
        for name, scheme in schemes.items():
            formats[name] = f"int{scheme.bits}"
            shapes[name], *_ = [shapes.pop(name + suffix) for suffix in SUFFIXES]
        layout = read_layout(path, settings, shapes)
    by_name = {
        ours: _plain(formats[name])
        for row, name in layout.names.items()
        for ours in row.ours
        if name in formats  # zeros that are not stored
    }
    by_name |= {name: by_name[other] for name, other in layout.model.ties.items()}
    return StoredWeights(weights_of(path), by_name, is_gguf=path.suffix == ".gguf")


def weights_of(path: Path) -> str:
    """Say how the weights in a folder or a .gguf file are stored: the coarsest of their formats.

    Vectors do not count, nor do the embedding and the head beside other matrices: files of few bits
    keep them wider, and in a small model they are the most of it.
    """
    if path.suffix == ".gguf":
        return _coarsest(_gguf_sizes(open_gguf(path)))
    from lmwright.formats.packed import read_schemes
    from lmwright.model.checkpoint import read_config

    quantization = read_config(path).get("quantization_config")
    if quantization is not None:
        return f"int{min(scheme.bits for scheme in read_schemes(quantization).values())}"
    return _coarsest(
        [
            (entry.dtype, math.prod(entry.shape), 8.0 * DTYPE_BYTES[entry.dtype])
            for entry in read_weights(path).entries.values()
        ]
    )


def _gguf_sizes(file: GgufFile) -> list[tuple[str, int, float]]:
    """Return format, number of weights and bits of each matrix of the blocks."""
    apart = (*ENDS_OF_MODEL, *ALWAYS_F32)
    all_ = list(file.tensors.values())
    inner = [tensor for tensor in all_ if len(tensor.shape) > 1 and tensor.name not in apart]
    return [
        (tensor.type_name, (n := math.prod(tensor.shape)), 8 * tensor.n_bytes / n)
        for tensor in inner or all_
    ]


def _coarsest(tensors: list[tuple[str, int, float]]) -> str:
    """Return the format of the fewest bits that holds a fair share of the weights."""
    sizes: defaultdict[str, int] = defaultdict(int)
    for name, n, _ in tensors:
        sizes[name] += n
    bits = {name: n_bits for name, _, n_bits in tensors}
    total = sum(sizes.values())
    fair = [name for name, n in sizes.items() if n >= LEAST_SHARE * total]
    # Of two of 16 bits, BF16 is the coarser.
    return _plain(min(fair, key=lambda name: (bits[name], name != "BF16")))


def _plain(name: str) -> str:
    return PLAIN.get(name, name)
