"""The backend of models that read one text and write another: the prompt is the source."""

from collections.abc import Sequence

import numpy as np
import torch

from lmwright.core.errors import ModelError
from lmwright.engine.backend import EdgeScores, Rules
from lmwright.engine.scoring import Pair
from lmwright.engine.torch.decoder import edge_scores, next_logits
from lmwright.engine.torch.encoder import MEAN, pooled
from lmwright.engine.torch.padding import batches, lengths_mask, padded
from lmwright.formats.sentence_transformers import Pooling
from lmwright.model.cache import KVCache
from lmwright.model.context import Memory
from lmwright.model.transformer import EncoderDecoderLM
from lmwright.tokenizer.encode import Tokenizer

# Shapes: B batch, S source tokens, T target tokens, C model width, V vocabulary.


class Seq2SeqRows:
    """The cache of a batch with the sources that its rows read; all rows are equally long."""

    def __init__(self, model: EncoderDecoderLM, memory: Memory) -> None:
        self._model, self._memory = model, memory
        self._cache: KVCache = model.new_cache()
        self._sources = list(range(len(memory.hidden)))  # whose source each row reads
        self._length = 0

    @torch.inference_mode()
    def decode(self, token_ids: Sequence[int]) -> np.ndarray:
        """Append one token a row; return the next-token logits (B, V) fp32."""
        device = self._memory.hidden.device
        tokens = torch.tensor(token_ids, device=device)[:, None]  # (B, 1)
        positions = torch.full_like(tokens, self._length)
        context = self._model.cached_context(positions, self._cache, self._memory)
        hidden = self._model.hidden(tokens, context)  # (B, 1, C)
        self._length += 1
        return next_logits(self._model, hidden[:, 0])

    @torch.inference_mode()
    def select(self, rows: Sequence[int]) -> None:
        """Keep only these rows, in this order; a row may be kept several times."""
        index = torch.tensor(rows, device=self._memory.hidden.device)
        self._cache.select(index)
        sources = [self._sources[row] for row in rows]
        # Beams of one prompt change places all the time, and their source stays the same.
        if sources != self._sources:
            self._memory.select(index)
            self._sources = sources


class Seq2SeqBackend:
    """An `EncoderDecoderLM` behind the engine's interface.

    An answer that reaches its limit ends there. Where transformers' configuration has a
    forced_eos_token_id, its last token would be replaced by an EOS, as if it were complete.
    """

    def __init__(
        self, model: EncoderDecoderLM, tokenizer: Tokenizer, pooling: Pooling | None = None
    ) -> None:
        """`tokenizer` knows the language that is to be written, where there is a choice."""
        self.model = model.eval()
        self.pooling = pooling or MEAN
        self.context_length = model.config.max_positions
        self.device = model.encoder.embedding.weight.device
        self._tokenizer = tokenizer

    @property
    def start_id(self) -> int:
        """The token that the decoder is given first."""
        id_ = self._language_id("behind")
        id_ = self.model.config.decoder_start_id if id_ is None else id_
        if id_ is None:
            raise ModelError(
                "the model's config.json has no decoder_start_token_id: nothing says what an "
                "answer begins with. Add it, or name the target language"
            )
        return id_

    @property
    def rules(self) -> Rules:
        """The token that each answer begins with, if any, and those that are never written."""
        first = self._language_id("before")
        first = self.model.config.forced_bos_id if first is None else first
        return Rules(first, self.model.config.suppressed_ids)

    def before(self, prompt: Sequence[int]) -> Sequence[int]:  # noqa: ARG002
        """Return the start token: the source stands in no row of the decoder."""
        return (self.start_id,)

    @torch.inference_mode()
    def prefill(self, prompts: Sequence[Sequence[int]]) -> tuple[Seq2SeqRows, np.ndarray]:
        """Read sources of any lengths; return the rows and the first token's logits (B, V) fp32."""
        rows = Seq2SeqRows(self.model, self._read(prompts))
        return rows, rows.decode([self.start_id] * len(prompts))

    @torch.inference_mode()
    def score(self, pairs: Sequence[Pair], n_top: int = 0) -> EdgeScores:
        """Score the answers of pairs, one behind the other, each led along its own tokens."""
        sources = list(dict.fromkeys(pair.source_ids for pair in pairs))  # a source is read once
        memory = self._read(sources)
        places = {source: i for i, source in enumerate(sources)}
        rows = [places[pair.source_ids] for pair in pairs]
        memory.select(torch.tensor(rows, device=self.device))
        # Padding comes behind an answer's tokens, none of which looks ahead.
        tokens, _ = padded([pair.answer.token_ids[:-1] for pair in pairs], self.device)
        positions = torch.arange(tokens.shape[1], device=self.device).expand_as(tokens)
        context = self.model.decoder.causal(positions, self.model.compute_dtype, memory=memory)
        hidden = self.model.hidden(tokens, context).flatten(0, 1)  # (B * T, C)
        nodes, targets = [], []
        for row, pair in enumerate(pairs):
            ids, n_given = pair.answer.token_ids, pair.answer.n_context
            nodes += [row * tokens.shape[1] + i - 1 for i in range(n_given, len(ids))]
            targets += ids[n_given:]
        return edge_scores(
            self.model,
            hidden,
            nodes=torch.tensor(nodes, device=self.device),
            targets=torch.tensor(targets, device=self.device),
            n_top=n_top,
        )

    @torch.inference_mode()
    def embed(self, prompts: Sequence[Sequence[int]]) -> np.ndarray:
        """Return the encoder's pooled last hidden states of each source, (N, C) fp32."""
        n_kinds = len(self.pooling.kinds)
        vectors = np.zeros((len(prompts), n_kinds * self.model.config.d_model), dtype=np.float32)
        for numbers in batches([len(prompt) for prompt in prompts]):
            tokens, mask = padded([prompts[i] for i in numbers], self.device)
            hidden = self.model.encode(tokens, mask=mask).hidden
            vectors[numbers] = pooled(hidden, mask, self.pooling)
        return vectors

    def _read(self, sources: Sequence[Sequence[int]]) -> Memory:
        """Return what the decoder reads of sources of any lengths, in their order."""
        lengths = [len(source) for source in sources]
        config, dtype = self.model.config, self.model.compute_dtype
        shape = (len(sources), max(lengths), config.d_model)
        hidden = torch.zeros(shape, dtype=dtype, device=self.device)  # (B, S, C)
        for numbers in batches(lengths):
            tokens, mask = padded([sources[i] for i in numbers], self.device)
            hidden[numbers, : tokens.shape[1]] = self.model.encode(tokens, mask=mask).hidden
        return Memory(hidden, lengths_mask(lengths, self.device))

    def _language_id(self, layout: str) -> int | None:
        translation = self._tokenizer.translation
        if translation is None or translation.layout != layout or translation.target_lang is None:
            return None
        return translation.language_id(translation.target_lang)
