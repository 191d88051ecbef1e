"""What the backends on torch make of hidden states, and what they say of their modules."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lmwright.engine.backend import EdgeScores
from lmwright.engine.info import KINDS, ModelInfo
from lmwright.engine.torch.padding import MAX_TOKENS, batches, padded
from lmwright.formats.sentence_transformers import Pooling, write_pooling
from lmwright.model.pooling import pool
from lmwright.model.transformer import DecoderLM, EncoderDecoderLM, Model

# Shapes: B rows, T tokens, N states, E edges, C model width, V vocabulary.

# Rows of logits that are held at once while scoring: each is a vocabulary long.
MAX_LOGIT_ROWS = 256
# What is usual where a folder says nothing: the mean over the tokens, special ones included.
MEAN = Pooling(kinds=("mean",), is_normalized=False)


def model_info(model: Model, context_length: int) -> ModelInfo:
    """Describe modules; the bytes are those in memory."""
    parameters = list(model.parameters())
    n_params = sum(parameter.numel() for parameter in parameters)
    size_bytes = sum(parameter.numel() * parameter.element_size() for parameter in parameters)
    return ModelInfo(
        architecture=model.config.family,
        n_params=n_params,
        size_bytes=size_bytes,
        bits_per_weight=8 * size_bytes / n_params,
        context_length=context_length,
        dtype=str(model.compute_dtype).removeprefix("torch."),
        device=str(parameters[0].device),
        kind=KINDS[type(model).__name__],
        vocab_size=model.config.vocab_size,
    )


def save_modules(model: Model, pooling: Pooling | None, folder: Path) -> None:
    """Write weights, configuration and pooling, in the format that the model computes in."""
    from lmwright.model.checkpoint import save

    save(model, folder, model.compute_dtype)
    if pooling is not None:
        write_pooling(folder, pooling, d_model=model.config.d_model)


def embedded(
    prompts: Sequence[Sequence[int]],
    model: Model,
    pooling: Pooling | None,
    *,
    read: Callable[[Tensor, Tensor | None], Tensor],
    max_tokens: int = MAX_TOKENS,
) -> np.ndarray:
    """Return one vector a text, (N, C) fp32; `read` makes hidden states of tokens and a mask."""
    pooling = pooling or MEAN
    width = len(pooling.kinds) * model.config.d_model
    vectors = np.zeros((len(prompts), width), dtype=np.float32)
    for numbers in batches([len(prompt) for prompt in prompts], max_tokens):
        tokens, mask = padded([prompts[i] for i in numbers], next(model.parameters()).device)
        hidden = read(tokens, mask)  # (B, T, C)
        seen = torch.ones_like(tokens, dtype=torch.bool) if mask is None else mask
        vectors[numbers] = pool(hidden, seen, pooling).cpu().numpy()
    return vectors


def edge_scores(
    model: DecoderLM | EncoderDecoderLM,
    hidden: Tensor,
    *,
    nodes: Sequence[int] | np.ndarray,
    targets: Sequence[int] | np.ndarray,
    n_top: int,
) -> EdgeScores:
    """Score `targets` (E,), each of which is to follow one of `hidden` (N, C), named by `nodes`."""
    ids = (model.config.suppressed_ids, nodes, targets)
    suppressed, at, wanted = (
        torch.as_tensor(each, dtype=torch.int64, device=hidden.device) for each in ids
    )
    parts = []
    for start in range(0, len(at), MAX_LOGIT_ROWS):
        part = slice(start, start + MAX_LOGIT_ROWS)
        logits = model.head(hidden[at[part]]).float()  # (E', V)
        chosen = logits.gather(1, wanted[part, None])[:, 0]
        total = logits.logsumexp(dim=1)
        top = logits.topk(min(n_top, logits.shape[1]), dim=1)  # (E', n_top)
        written = logits.index_fill_(1, suppressed, float("-inf")) if len(suppressed) else logits
        is_greedy = written.argmax(dim=1) == wanted[part]
        found = ((chosen - total).double(), is_greedy, top.indices)
        parts.append((*found, (top.values - total[:, None]).double()))
    return EdgeScores(*(torch.cat(column).cpu().numpy() for column in zip(*parts, strict=True)))
