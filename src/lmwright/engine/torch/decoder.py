"""The backend on torch: any device, any family of the model core."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from lmwright.engine.backend import EdgeScores, Rules
from lmwright.engine.forest import Forest
from lmwright.engine.torch.encoder import MEAN, pooled
from lmwright.formats.sentence_transformers import Pooling
from lmwright.model.cache import KVCache
from lmwright.model.transformer import DecoderLM, EncoderDecoderLM

# Shapes: B batch, T tokens, V vocabulary.

# Tokens that pass through the model at once, for the whole batch: bounds the memory of a prefill.
MAX_CHUNK = 2048
# Rows of logits that are held at once while scoring: each is a vocabulary long.
MAX_LOGIT_ROWS = 256


class TorchRows:
    """The cache of a batch with the length of each row."""

    def __init__(self, model: DecoderLM, cache: KVCache, lengths: Tensor) -> None:
        self._model, self._cache = model, cache
        self._lengths = lengths  # (B,) int64

    @torch.inference_mode()
    def decode(self, token_ids: Sequence[int]) -> np.ndarray:
        """Append one token a row; return the next-token logits (B, V) fp32."""
        tokens = torch.tensor(token_ids, device=self._lengths.device)[:, None]  # (B, 1)
        context = self._model.cached_context(self._lengths[:, None], self._cache)
        hidden = self._model.hidden(tokens, context)  # (B, 1, C)
        self._lengths = self._lengths + 1
        return next_logits(self._model, hidden[:, 0])

    def select(self, rows: Sequence[int]) -> None:
        """Keep only these rows, in this order."""
        index = torch.tensor(rows, device=self._lengths.device)
        self._cache.select(index)
        self._lengths = self._lengths[index]


class TorchBackend:
    """A `DecoderLM` behind the engine's interface."""

    def __init__(self, model: DecoderLM, pooling: Pooling | None = None) -> None:
        """`pooling` is of a decoder that was trained to embed; without one, vectors are means."""
        self.model = model.eval()
        self.pooling = pooling or MEAN
        self.context_length = model.config.max_positions
        self.device = model.decoder.embedding.weight.device
        self.rules = Rules(suppressed_ids=model.config.suppressed_ids)

    def before(self, prompt: Sequence[int]) -> Sequence[int]:
        """Return the prompt: an answer stands behind it, in the same row."""
        return prompt

    @torch.inference_mode()
    def prefill(self, prompts: Sequence[Sequence[int]]) -> tuple[TorchRows, np.ndarray]:
        """Read prompts of any lengths; return the rows and the next-token logits (B, V) fp32."""
        cache = self.model.new_cache()
        n_shared = _n_shared(prompts)
        if n_shared:
            # A common beginning (a system message) is read once, for all rows.
            self._read(cache, self._tensor([prompts[0][:n_shared]]), 0)
            cache.select(torch.zeros(len(prompts), dtype=torch.int64, device=self.device))
        rest = [prompt[n_shared:] for prompt in prompts]
        lengths = torch.tensor([len(r) for r in rest], device=self.device)
        width = int(lengths.max())
        # Padded on the right: a padded slot lies behind its row's end and is never looked at.
        tokens = self._tensor([[*r, *[0] * (width - len(r))] for r in rest])  # (B, T)
        hidden = self._read(cache, tokens, n_shared)  # (B, T, C)
        last = hidden[torch.arange(len(rest), device=self.device), lengths - 1]  # (B, C)
        return TorchRows(self.model, cache, lengths + n_shared), next_logits(self.model, last)

    @torch.inference_mode()
    def score(self, forest: Forest, n_top: int = 0) -> EdgeScores:
        """Score the edges of a forest; report the `n_top` likeliest tokens at each of them."""
        mask = torch.from_numpy(forest.mask).to(self.device)[None, None]  # (1, 1, N, N)
        positions = self._tensor(forest.positions)[None]
        context = self.model.masked_context(positions, mask)
        hidden = self.model.hidden(self._tensor(forest.tokens)[None], context)[0]  # (N, C)
        return edge_scores(
            self.model,
            hidden,
            nodes=self._tensor(forest.edge_nodes),
            targets=self._tensor(forest.edge_targets),
            n_top=n_top,
        )

    @torch.inference_mode()
    def embed(self, prompts: Sequence[Sequence[int]]) -> np.ndarray:
        """Return the pooled last hidden states of each prompt, (N, C) fp32."""
        n_kinds = len(self.pooling.kinds)
        vectors = np.zeros((len(prompts), n_kinds * self.model.config.d_model), dtype=np.float32)
        for i, prompt in enumerate(prompts):
            hidden = self._read(self.model.new_cache(), self._tensor([prompt]), 0)
            vectors[i] = pooled(hidden, None, self.pooling)[0]
        return vectors

    def _read(self, cache: KVCache, tokens: Tensor, start: int) -> Tensor:
        """Pass tokens (B, T) at positions `start`.. through the model, chunk by chunk."""
        n_rows, n_tokens = tokens.shape
        step = max(1, MAX_CHUNK // n_rows)
        hidden = []
        for begin in range(0, n_tokens, step):
            part = tokens[:, begin : begin + step]
            positions = torch.arange(part.shape[1], device=self.device) + start + begin
            context = self.model.cached_context(positions.expand(n_rows, -1), cache)
            hidden.append(self.model.hidden(part, context))
        return torch.cat(hidden, dim=1)

    def _tensor(self, ids: object) -> Tensor:
        return torch.as_tensor(ids, dtype=torch.int64, device=self.device)


def next_logits(model: DecoderLM | EncoderDecoderLM, hidden: Tensor) -> np.ndarray:
    """Return the logits (B, V) fp32 of the last hidden states (B, C)."""
    return model.head(hidden).float().cpu().numpy()


def edge_scores(
    model: DecoderLM | EncoderDecoderLM,
    hidden: Tensor,
    *,
    nodes: Tensor,
    targets: Tensor,
    n_top: int,
) -> EdgeScores:
    """Score `targets` (E,), each of which is to follow one of `hidden` (N, C), named by `nodes`."""
    suppressed = torch.tensor(model.config.suppressed_ids, dtype=torch.int64, device=hidden.device)
    logprobs, greedy, top_ids, top_logprobs = [], [], [], []
    for start in range(0, len(nodes), MAX_LOGIT_ROWS):
        part = slice(start, start + MAX_LOGIT_ROWS)
        logits = model.head(hidden[nodes[part]]).float()  # (E', V)
        chosen = logits.gather(1, targets[part, None])[:, 0]
        total = logits.logsumexp(dim=1)
        logprobs.append(chosen - total)
        top = logits.topk(min(n_top, logits.shape[1]), dim=1)  # (E', n_top)
        top_ids.append(top.indices)
        top_logprobs.append(top.values - total[:, None])
        written = logits.index_fill_(1, suppressed, float("-inf")) if len(suppressed) else logits
        greedy.append(written.argmax(dim=1) == targets[part])
    return EdgeScores(
        torch.cat(logprobs).double().cpu().numpy(),
        torch.cat(greedy).cpu().numpy(),
        torch.cat(top_ids).cpu().numpy(),
        torch.cat(top_logprobs).double().cpu().numpy(),
    )


def _n_shared(prompts: Sequence[Sequence[int]]) -> int:
    """Count the tokens that all prompts begin with; each keeps at least one of its own."""
    if len(prompts) == 1:
        return 0
    limit = min(len(prompt) for prompt in prompts) - 1
    for i in range(limit):
        if any(prompt[i] != prompts[0][i] for prompt in prompts):
            return i
    return limit
