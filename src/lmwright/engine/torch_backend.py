"""The backend on torch: any device, any family of the model core."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from lmwright.engine.forest import Forest
from lmwright.model.cache import KVCache
from lmwright.model.transformer import DecoderLM

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

    def __init__(self, model: DecoderLM) -> None:
        self.model = model.eval()
        self.context_length = model.config.max_positions
        self.device = model.embedding.weight.device

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
    def score(self, forest: Forest) -> tuple[np.ndarray, np.ndarray]:
        """Return for each edge its log-probability (E,) float64 and whether it is the likeliest."""
        mask = torch.from_numpy(forest.mask).to(self.device)[None, None]  # (1, 1, N, N)
        positions = self._tensor(forest.positions)[None]
        window = self.model.config.sliding_window
        if window is not None:
            mask = mask & (positions[0, :, None] - positions[0, None, :] < window)
        context = self.model.masked_context(positions, mask)
        hidden = self.model.hidden(self._tensor(forest.tokens)[None], context)[0]  # (N, C)
        nodes, targets = self._tensor(forest.edge_nodes), self._tensor(forest.edge_targets)
        logprobs, greedy = [], []
        for start in range(0, len(nodes), MAX_LOGIT_ROWS):
            part = slice(start, start + MAX_LOGIT_ROWS)
            logits = self.model.head(hidden[nodes[part]]).float()  # (E', V)
            chosen = logits.gather(1, targets[part, None])[:, 0]
            logprobs.append(chosen - logits.logsumexp(dim=1))
            greedy.append(logits.argmax(dim=1) == targets[part])
        return torch.cat(logprobs).double().cpu().numpy(), torch.cat(greedy).cpu().numpy()

    @torch.inference_mode()
    def embed(self, prompts: Sequence[Sequence[int]]) -> np.ndarray:
        """Return the mean of the last hidden states of each prompt, (N, d_model) fp32."""
        if not prompts:
            return np.zeros((0, self.model.config.d_model), dtype=np.float32)
        vectors = []
        for prompt in prompts:
            hidden = self._read(self.model.new_cache(), self._tensor([prompt]), 0)
            vectors.append(hidden[0].float().mean(dim=0))
        return torch.stack(vectors).cpu().numpy()

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


def next_logits(model: DecoderLM, hidden: Tensor) -> np.ndarray:
    """Return the logits (B, V) fp32 of the last hidden states (B, C)."""
    return model.head(hidden).float().cpu().numpy()


def _n_shared(prompts: Sequence[Sequence[int]]) -> int:
    """Count the tokens that all prompts begin with; each keeps at least one of its own."""
    if len(prompts) == 1:
        return 0
    limit = min(len(prompt) for prompt in prompts) - 1
    for i in range(limit):
        if any(prompt[i] != prompts[0][i] for prompt in prompts):
            return i
    return limit
