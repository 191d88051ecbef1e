"""The backend of models that read only: vectors and classes of whole texts."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from lmwright.engine.torch.padding import batches, padded
from lmwright.formats.sentence_transformers import Pooling
from lmwright.model.heads import answers
from lmwright.model.pooling import pool
from lmwright.model.transformer import EncoderLM
from lmwright.tokenizer.encode import Encoding

# Shapes: B texts, T tokens, C model width, K classes.

# What is usual where a folder says nothing: the mean over the tokens, special ones included.
MEAN = Pooling(kinds=("mean",), is_normalized=False)


class EncoderBackend:
    """An `EncoderLM` that embeds texts and, with a head for it, classifies them or their tokens."""

    def __init__(self, model: EncoderLM, pooling: Pooling | None = None) -> None:
        self.model = model.eval()
        self.pooling = pooling or MEAN
        self.device = model.encoder.embedding.weight.device
        limit = model.config.max_positions
        self.context_length = min(limit, self.pooling.max_tokens or limit)

    @torch.inference_mode()
    def embed(self, prompts: Sequence[Sequence[int]]) -> np.ndarray:
        """Return the pooled last hidden states of each text, (N, C) fp32."""
        n_kinds = len(self.pooling.kinds)
        vectors = np.zeros((len(prompts), n_kinds * self.model.config.d_model), dtype=np.float32)
        for numbers in batches([len(prompt) for prompt in prompts]):
            tokens, mask = padded([prompts[i] for i in numbers], self.device)
            hidden = self.model.hidden(tokens, mask=mask)
            vectors[numbers] = pooled(hidden, mask, self.pooling)
        return vectors

    @torch.inference_mode()
    def classify(self, texts: Sequence[Encoding]) -> list[np.ndarray]:
        """Return what the head says of each text, (K,), or of each of its tokens, (T, K); fp32."""
        config = self.model.config
        found: list[np.ndarray] = [np.zeros(0)] * len(texts)
        for numbers in batches([len(text.ids) for text in texts]):
            tokens, mask = padded([texts[i].ids for i in numbers], self.device)
            types = None
            if config.n_token_types > 1:
                types, _ = padded([texts[i].segments for i in numbers], self.device)
            logits = self.model(tokens, mask=mask, types=types)
            said = answers(logits, config.problem).cpu().numpy()
            for i, row in zip(numbers, said, strict=True):
                found[i] = row[: len(texts[i].ids)] if row.ndim == 2 else row
        return found


def pooled(hidden: Tensor, mask: Tensor | None, pooling: Pooling) -> np.ndarray:
    """Return one vector a text, (B, C) fp32, of hidden states (B, T, C)."""
    if mask is None:
        mask = torch.ones(hidden.shape[:2], dtype=torch.bool, device=hidden.device)
    return pool(hidden, mask, pooling).cpu().numpy()
