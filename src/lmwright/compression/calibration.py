"""Calibration texts on their way through a decoder, block after block, while it is compressed."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lmwright.core.errors import RequestError
from lmwright.lm import decoder, load_local

BLOCK = "decoder.blocks."


class _Stop(Exception):  # noqa: N818  never an error: it leaves a forward pass that has told enough
    pass


class Calibration:
    """The hidden states of all texts before one block of a model, which moves on as it is asked.

    Held at a time: those states, and of one text what a single layer is given.
    """

    def __init__(self, folder: Path, texts: Sequence[Sequence[int]]) -> None:
        """`texts` are token ids, at least one a text and no more than the model reads."""
        if not texts or not all(texts):
            raise RequestError("calibration: expected texts as token ids, none of them empty")
        self._model = decoder(load_local(folder, precision="fp32"), to_be="compressed")
        self._blocks = list(self._model.decoder.blocks)
        self._at = 0
        self._calls = [self._first_call(text) for text in texts]

    def inputs(self, ours: str) -> "LayerInputs":
        """Return what enters a layer, named by its weight ("decoder.blocks.0.mlp.up.weight").

        Layers must be asked for in the order of their blocks.
        """
        number = block_of(ours)
        assert number >= self._at, f"{ours}: the texts are at block {self._at} already"
        while self._at < number:
            block = self._blocks[self._at]
            with torch.no_grad():
                self._calls = [(block(*call), *call[1:]) for call in self._calls]
            self._at += 1
        layer = self._model.get_submodule(ours.removesuffix(".weight"))
        return LayerInputs(self._blocks[number], layer, self._calls)

    def replace(self, ours: Sequence[str], weight: Tensor) -> None:
        """Go on with what a tensor was compressed to; it may hold several layers of ours."""
        layers = [self._model.get_parameter(name) for name in ours]
        for layer, part in zip(layers, weight.split([len(layer) for layer in layers]), strict=True):
            layer.data.copy_(part)

    def _first_call(self, text: Sequence[int]) -> tuple[Any, ...]:
        """Return the arguments of the first block, the hidden states (1, T, C) before the rest."""
        calls: list[tuple[Any, ...]] = []
        with _watching(self._blocks[0], calls), torch.no_grad():
            self._model(torch.tensor([text], device=self._model.decoder.embedding.weight.device))
        return calls[0]


@dataclass(frozen=True, eq=False)
class LayerInputs:
    """What enters one layer, (T, K) fp32 for each text; each iteration computes it anew."""

    block: nn.Module
    layer: nn.Module
    calls: Sequence[tuple[Any, ...]]

    def __iter__(self) -> Iterator[Tensor]:
        for call in self.calls:
            seen: list[tuple[Any, ...]] = []
            with _watching(self.layer, seen), torch.no_grad():
                self.block(*call)
            yield seen[0][0].float().flatten(0, -2).cpu()


@contextmanager
def _watching(module: nn.Module, seen: list[tuple[Any, ...]]) -> Iterator[None]:
    """Put the arguments that `module` is called with into `seen`, and end the pass there."""

    def enter(_: nn.Module, args: tuple[Any, ...]) -> None:
        seen.append(args)
        raise _Stop

    handle = module.register_forward_pre_hook(enter)
    try:
        yield
    except _Stop:
        pass
    finally:
        handle.remove()


def block_of(ours: str) -> int:
    """Return the number of the block that a parameter of a decoder belongs to."""
    return int(ours.removeprefix(BLOCK).partition(".")[0])
