"""The assemblies: a decoder, an encoder, an encoder with a decoder."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lmwright.model.block import Block, CrossBlock
from lmwright.model.cache import PagedCache
from lmwright.model.config import ModelConfig
from lmwright.model.context import CachedRow, Context, Memory, PackedContext
from lmwright.model.heads import HEADS, LanguageHead, Pooler
from lmwright.model.stack import Stack

# Shapes: B batch, T tokens, S source tokens, C model width, V vocabulary, N packed tokens.


class DecoderLM(nn.Module):
    """A causal language model: it says what comes next."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.decoder = Stack(config, Block)
        self.head = LanguageHead(config)
        # The format of activations; weights may be wider (fp32 masters while training).
        self.compute_dtype = torch.float32
        tie(self)

    @property
    def ties(self) -> dict[str, str]:
        """Parameters that are others under a second name."""
        return {"head.weight": "decoder.embedding.weight"} if self.config.ties_embeddings else {}

    def hidden(self, tokens: Tensor, context: Context) -> Tensor:
        """Return the normed last hidden states (B, T, C) of tokens (B, T)."""
        return self.decoder(tokens, context)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return logits (B, T, V) of plain rows: no padding, no packing, no cache."""
        context = self.decoder.causal(tokens, self.compute_dtype)
        return self.head(self.hidden(tokens, context))

    def packed_hidden(self, tokens: Tensor, positions: Tensor, segments: Tensor) -> Tensor:
        """Return the last hidden states (N, C) of packed samples, none of which sees another.

        All are (N,) int64: positions restart at 0 with each sample, which `segments` numbers.
        """
        grid = torch.arange(int(positions.max()) + 1, device=tokens.device)[None]
        context = PackedContext(
            positions[None],
            self.compute_dtype,
            segments=segments,
            rotations=self.decoder.rotations(grid, self.compute_dtype),
        )
        return self.hidden(tokens[None], context)[0]

    def masked_context(self, positions: Tensor, mask: Tensor) -> Context:
        """Describe rows at `positions` (B, T) with a mask (B, 1, T, T) made elsewhere."""
        return self.decoder.masked(positions, mask, self.compute_dtype)

    def cached_context(self, rows: Sequence[CachedRow], cache: PagedCache) -> Context:
        """Describe new tokens of several sequences, one behind the other in a single row (1, N)."""
        return self.decoder.cached(rows, cache, self.compute_dtype)

    def new_cache(self) -> PagedCache:
        """Return an empty cache that fits this model's decoder."""
        return PagedCache(len(self.decoder.blocks), self.decoder.embedding.weight.device)


class EncoderLM(nn.Module):
    """A model that reads a text in both directions, with a head for its task."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Stack(config, Block)
        # Only what was pre-trained with one has it; a sequence head brings its own.
        self.pooler = Pooler(config) if config.has_pooler else None
        self.head = HEADS[config.head](config)
        self.compute_dtype = torch.float32
        tie(self)

    @property
    def ties(self) -> dict[str, str]:
        """Parameters that are others under a second name."""
        is_tied = self.config.ties_embeddings and self.config.head in ("masked", "pretraining")
        return {"head.out.weight": "encoder.embedding.weight"} if is_tied else {}

    def hidden(
        self, tokens: Tensor, *, mask: Tensor | None = None, types: Tensor | None = None
    ) -> Tensor:
        """Return the last hidden states (B, T, C) of tokens (B, T).

        `mask` (B, T) is True at tokens and False at padding, which follows them; `types` (B, T) are
        0 in the first text of a pair and 1 in the second.
        """
        dtype = self.compute_dtype
        context = self.encoder.bidirectional(tokens, dtype, mask=mask, types=types)
        return self.encoder(tokens, context)

    def forward(
        self, tokens: Tensor, *, mask: Tensor | None = None, types: Tensor | None = None
    ) -> Tensor:
        """Return what the head says: of each token (B, T, ...), or of each text (B, ...)."""
        return self.head(self.hidden(tokens, mask=mask, types=types))


class EncoderDecoderLM(nn.Module):
    """A model that reads one text and writes another."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Stack(config, Block)
        self.decoder = Stack(config, CrossBlock)
        self.head = LanguageHead(config)
        self.compute_dtype = torch.float32
        tie(self)

    @property
    def ties(self) -> dict[str, str]:
        """Parameters that are others under a second name."""
        names = ["decoder.embedding.weight"]
        names += ["head.weight"] if self.config.ties_embeddings else []
        return dict.fromkeys(names, "encoder.embedding.weight")

    def encode(self, source: Tensor, *, mask: Tensor | None = None) -> Memory:
        """Read source tokens (B, S); `mask` (B, S) is False at padding, which follows them."""
        context = self.encoder.bidirectional(source, self.compute_dtype, mask=mask, types=None)
        return Memory(self.encoder(source, context), mask)

    def hidden(self, tokens: Tensor, context: Context) -> Tensor:
        """Return the decoder's last hidden states (B, T, C) of tokens (B, T)."""
        return self.decoder(tokens, context)

    def forward(self, source: Tensor, tokens: Tensor, *, mask: Tensor | None = None) -> Tensor:
        """Return logits (B, T, V) of target tokens (B, T), which begin with the start token."""
        memory = self.encode(source, mask=mask)
        context = self.decoder.causal(tokens, self.compute_dtype, memory=memory)
        return self.head(self.hidden(tokens, context))

    def cached_context(self, rows: Sequence[CachedRow], cache: PagedCache) -> Context:
        """Describe new tokens of several sequences, one behind the other in a single row (1, N)."""
        return self.decoder.cached(rows, cache, self.compute_dtype)

    def new_cache(self) -> PagedCache:
        """Return an empty cache that fits this model's decoder."""
        return PagedCache(len(self.decoder.blocks), self.decoder.embedding.weight.device)


Model = DecoderLM | EncoderLM | EncoderDecoderLM


def tie(model: Model) -> None:
    """Make one parameter of those that `ties` names."""
    for name, other in model.ties.items():
        model.get_submodule(name.removesuffix(".weight")).weight = model.get_parameter(other)
