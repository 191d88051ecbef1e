"""What makes a family: two translations of the configuration and a table of tensor names."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from lmwright.model.config import ModelConfig


@dataclass(frozen=True)
class TensorName:
    """One tensor under its three names; `{i}` stands for the layer."""

    ours: str
    hugging_face: str
    gguf: str


@dataclass(frozen=True)
class Family:
    """A family of checkpoints."""

    name: str
    # Names of the class in `architectures` of config.json.
    architecture: str
    read_config: Callable[[dict[str, Any]], ModelConfig]
    write_config: Callable[[ModelConfig], dict[str, Any]]
    read_gguf_config: Callable[[dict[str, Any]], ModelConfig]
    tensors: tuple[TensorName, ...]
    # Tensors that old checkpoints carry and that hold no weights.
    ignored: tuple[str, ...] = ()


def expand(family: Family, n_layers: int) -> list[TensorName]:
    """Return one entry a tensor of a model with so many layers."""
    names = []
    for name in family.tensors:
        layers = range(n_layers) if "{i}" in name.ours else range(1)
        names += [TensorName(*(n.format(i=i) for n in _all(name))) for i in layers]
    return names


def _all(name: TensorName) -> tuple[str, str, str]:
    return name.ours, name.hugging_face, name.gguf
