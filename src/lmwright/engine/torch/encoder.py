"""Models that read only, on torch: vectors and classes of whole texts."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from lmwright.engine.backend import Capability
from lmwright.engine.request import Classification
from lmwright.engine.torch.outputs import embedded, model_info, save_modules
from lmwright.engine.torch.padding import batches, padded
from lmwright.formats.sentence_transformers import Pooling
from lmwright.model.heads import answers
from lmwright.model.transformer import EncoderLM
from lmwright.tokenizer.encode import Encoding

# Shapes: B texts, T tokens, C model width, K classes.

HEAD_CAPABILITIES: dict[str, Capability] = {"sequence": "classify", "tokens": "classify_tokens"}


class TorchEncoder:
    """An `EncoderLM` that embeds texts and, with a head for it, classifies them or their tokens."""

    def __init__(self, model: EncoderLM, pooling: Pooling | None = None) -> None:
        self.model = model.eval()
        self.pooling = pooling
        limit = model.config.max_positions
        most = pooling.max_tokens if pooling is not None else None
        self.info = model_info(model, min(limit, most or limit))
        head = HEAD_CAPABILITIES.get(model.config.head)
        self.capabilities: frozenset[Capability] = frozenset({"embed", *([head] if head else [])})
        self._device = model.encoder.embedding.weight.device

    @torch.inference_mode()
    def embed(self, prompts: Sequence[Sequence[int]]) -> np.ndarray:
        """Return the pooled last hidden states of each text, (N, C) fp32."""
        return embedded(
            prompts,
            self.model,
            self.pooling,
            read=lambda tokens, mask: self.model.hidden(tokens, mask=mask),
        )

    def classify(self, texts: Sequence[Encoding]) -> list[Classification]:
        """Return what the head says of each text."""
        return [self._said(values) for values in self._values(texts)]

    def classify_tokens(self, texts: Sequence[Encoding]) -> list[list[Classification]]:
        """Return what the head says of each token of each text."""
        return [[self._said(values) for values in rows] for rows in self._values(texts)]

    def save(self, folder: Path) -> None:
        """Write weights and configuration as a Hugging Face folder, without the tokenizer."""
        save_modules(self.model, self.pooling, folder)

    def _said(self, values: np.ndarray) -> Classification:
        config = self.model.config
        return Classification(config.labels, tuple(map(float, values)), config.problem)

    @torch.inference_mode()
    def _values(self, texts: Sequence[Encoding]) -> list[np.ndarray]:
        """Return what the head says of each text, (K,), or of each of its tokens, (T, K); fp32."""
        config = self.model.config
        found: list[np.ndarray] = [np.zeros(0)] * len(texts)
        for numbers in batches([len(text.ids) for text in texts]):
            tokens, mask = padded([texts[i].ids for i in numbers], self._device)
            types = None
            if config.n_token_types > 1:
                types, _ = padded([texts[i].segments for i in numbers], self._device)
            logits = self.model(tokens, mask=mask, types=types)
            said = answers(logits, config.problem).cpu().numpy()
            for i, row in zip(numbers, said, strict=True):
                found[i] = row[: len(texts[i].ids)] if row.ndim == 2 else row
        return found
