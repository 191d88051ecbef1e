"""Models that read one text and write another, on torch: the prompt is the source."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from lmwright.core.errors import ModelError
from lmwright.engine.backend import Capability, EdgeScores, LogitConstraints, Pair
from lmwright.engine.torch.outputs import edge_scores, embedded, model_info, save_modules
from lmwright.engine.torch.padding import batches, lengths_mask, padded
from lmwright.engine.torch.session import TorchSession
from lmwright.formats.sentence_transformers import Pooling
from lmwright.model.context import Memory
from lmwright.model.transformer import EncoderDecoderLM
from lmwright.tokenizer.encode import Tokenizer

# Shapes: B batch, S source tokens, T target tokens, C model width, V vocabulary.


class TorchSeq2Seq:
    """An `EncoderDecoderLM` behind the engine's interface.

    An answer that reaches its limit ends there. Where transformers' configuration has a
    forced_eos_token_id, its last token would be replaced by an EOS, as if it were complete.
    """

    capabilities: frozenset[Capability] = frozenset({"generate", "score", "embed"})

    def __init__(
        self, model: EncoderDecoderLM, tokenizer: Tokenizer, pooling: Pooling | None = None
    ) -> None:
        """`tokenizer` knows the language that is to be written, where there is a choice."""
        self.model = model.eval()
        self.pooling = pooling
        self.info = model_info(model, model.config.max_positions)
        self._device = model.encoder.embedding.weight.device
        self._tokenizer = tokenizer

    def decoder_prefix(self, prompt: Sequence[int]) -> Sequence[int]:  # noqa: ARG002
        """Return the start token: the source stands in no row of the decoder."""
        id_ = self._language_id("behind")
        id_ = self.model.config.decoder_start_id if id_ is None else id_
        if id_ is None:
            raise ModelError(
                "the model's config.json has no decoder_start_token_id: nothing says what an "
                "answer begins with. Add it, or name the target language"
            )
        return (id_,)

    @property
    def constraints(self) -> LogitConstraints:
        """The token that each answer begins with, if any, and those that are never written."""
        first = self._language_id("before")
        first = self.model.config.forced_bos_id if first is None else first
        return LogitConstraints(first, self.model.config.suppressed_ids)

    def open_session(self) -> TorchSession:
        """Return room for keys and values, empty, that nobody else uses."""
        return TorchSession(self.model, self._memories)

    def score(self, pairs: Sequence[Pair], n_top: int = 0) -> list[EdgeScores]:
        """Score the answers of pairs, those of like length together."""
        lengths = [len(pair.source_ids) + len(pair.answer.token_ids) for pair in pairs]
        found: dict[int, EdgeScores] = {}
        for numbers in batches(lengths):
            found |= zip(numbers, self._score([pairs[i] for i in numbers], n_top), strict=True)
        return [found[i] for i in range(len(pairs))]

    @torch.inference_mode()
    def _score(self, pairs: Sequence[Pair], n_top: int) -> list[EdgeScores]:
        sources = list(dict.fromkeys(pair.source_ids for pair in pairs))  # a source is read once
        memory = self._read(sources)
        places = {source: i for i, source in enumerate(sources)}
        rows = [places[pair.source_ids] for pair in pairs]
        memory.select(torch.tensor(rows, device=self._device))
        # Padding comes behind an answer's tokens, none of which looks ahead.
        tokens, _ = padded([pair.answer.token_ids[:-1] for pair in pairs], self._device)
        positions = torch.arange(tokens.shape[1], device=self._device).expand_as(tokens)
        context = self.model.decoder.causal(positions, self.model.compute_dtype, memory=memory)
        hidden = self.model.hidden(tokens, context).flatten(0, 1)  # (B * T, C)
        nodes, targets, places = [], [], []
        for row, pair in enumerate(pairs):
            scored_ids, first = (
                pair.answer.scored_ids,
                row * tokens.shape[1] + pair.answer.n_context,
            )
            places.append(slice(len(nodes), len(nodes) + len(scored_ids)))
            nodes += range(first - 1, first - 1 + len(scored_ids))
            targets += scored_ids
        scores = edge_scores(self.model, hidden, nodes=nodes, targets=targets, n_top=n_top)
        return [scores.at(place) for place in places]

    @torch.inference_mode()
    def embed(self, prompts: Sequence[Sequence[int]]) -> np.ndarray:
        """Return the encoder's pooled last hidden states of each source, (N, C) fp32."""
        return embedded(
            prompts,
            self.model,
            self.pooling,
            read=lambda tokens, mask: self.model.encode(tokens, mask=mask).hidden,
        )

    def save(self, folder: Path) -> None:
        """Write weights and configuration as a Hugging Face folder, without the tokenizer."""
        save_modules(self.model, self.pooling, folder)

    def _memories(self, sources: Sequence[Sequence[int]]) -> list[Memory]:
        """Return what the decoder reads of each source, without padding."""
        hidden = self._read(sources).hidden
        return [
            Memory(row[None, : len(source)], None)
            for row, source in zip(hidden, sources, strict=True)
        ]

    def _read(self, sources: Sequence[Sequence[int]]) -> Memory:
        """Return what the decoder reads of sources of any lengths, in their order."""
        lengths = [len(source) for source in sources]
        config, dtype = self.model.config, self.model.compute_dtype
        shape = (len(sources), max(lengths), config.d_model)
        hidden = torch.zeros(shape, dtype=dtype, device=self._device)  # (B, S, C)
        for numbers in batches(lengths):
            tokens, mask = padded([sources[i] for i in numbers], self._device)
            hidden[numbers, : tokens.shape[1]] = self.model.encode(tokens, mask=mask).hidden
        return Memory(hidden, lengths_mask(lengths, self._device))

    def _language_id(self, layout: str) -> int | None:
        translation = self._tokenizer.translation
        if translation is None or translation.layout != layout or translation.target_lang is None:
            return None
        return translation.language_id(translation.target_lang)
