"""How much memory a model takes to run: weights, keys and values, activations."""

from collections.abc import Sequence
from dataclasses import dataclass

from lmwright.core.errors import RequestError
from lmwright.core.stage import PROCESS_BYTES
from lmwright.engine.torch.padding import MAX_TOKENS
from lmwright.engine.torch.session import MAX_CHUNK
from lmwright.summary.inventory import Inventory

# Shown unless a context is asked for, besides the model's longest.
CONTEXTS = (512, 2048)
DTYPE_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
# Of each token and channel: the stream, a normed copy, a branch; and a norm's two copies in fp32.
N_STREAMS, NORM_BYTES = 3, 8
# Of each pair of tokens, where it is not fused away: who sees whom, made from distances (int64).
MASK_BYTES, DISTANCE_BYTES = 1, 8
# What the allocator holds for each byte in use; with it, peaks of two decoders read at 512 to 4096
# tokens, in bf16 and fp32, are met within a third.
ALLOCATED = 1.4


@dataclass(frozen=True)
class Need:
    """Bytes for `batch` texts of `context` tokens; an encoder-decoder reads and writes so many."""

    context: int
    batch: int
    # In the format that it computes with, whatever the format of the file.
    weight_bytes: int
    # Keys and values of the tokens so far, in all layers.
    cache_bytes: int
    # Those of the encoder's tokens, in all layers of the decoder.
    cross_cache_bytes: int
    # The most that one pass holds besides: an estimate.
    activation_bytes: int
    total_bytes: int


def contexts(longest: int, asked: int | None) -> list[int]:
    """Return the lengths to show: the one that was asked for, or a few up to the longest."""
    if asked is None:
        return sorted({min(length, longest) for length in (*CONTEXTS, longest)})
    if not 1 <= asked <= longest:
        raise RequestError(f"--context {asked}: this model reads 1 to {longest:,} tokens")
    return [asked]


def needs(
    inventory: Inventory, *, lengths: Sequence[int], batch: int, dtype: str
) -> tuple[Need, ...]:
    """Return what each length takes, with weights and activations in `dtype`."""
    if batch < 1:
        raise RequestError(f"--batch {batch}: expected 1 or more")
    weights = inventory.n_params * DTYPE_BYTES[dtype]
    found = []
    for length in lengths:
        kept = batch * length * cache_bytes_per_token(inventory, dtype)
        cross = kept if inventory.assembly == "encoder-decoder" else 0
        activations = _activation_bytes(inventory, length, batch=batch, dtype=dtype)
        total = PROCESS_BYTES + weights + kept + cross + activations
        found.append(Need(length, batch, weights, kept, cross, activations, total))
    return tuple(found)


def cache_bytes_per_token(inventory: Inventory, dtype: str) -> int:
    """Return the bytes of a token's keys and values: all layers keep them, windowed ones, too."""
    config = inventory.config
    n_layers = {
        "decoder": config.n_layers,
        "encoder": 0,
        "encoder-decoder": config.n_decoder_layers,
    }[inventory.assembly]
    return 2 * n_layers * config.n_kv_heads * config.d_head * DTYPE_BYTES[dtype]


def _activation_bytes(inventory: Inventory, length: int, *, batch: int, dtype: str) -> int:
    """Return about the most that reading `batch` texts of `length` tokens holds at a time."""
    config, n_bytes = inventory.config, DTYPE_BYTES[dtype]
    if inventory.assembly == "decoder":  # all rows together, piece by piece
        n_rows, n_new = batch, min(length, max(1, MAX_CHUNK // batch))
    else:  # whole rows, as many as are read at once
        n_rows, n_new = min(batch, max(1, MAX_TOKENS // length)), length
    n_tokens, n_pairs = n_rows * n_new, n_rows * n_new * length
    stream = n_tokens * config.d_model * (N_STREAMS * n_bytes + NORM_BYTES)
    mlp = n_tokens * config.d_ff * (3 if config.is_gated else 2) * n_bytes
    # Queries and the mix, keys and values, and again while they are rotated or laid out.
    heads = 4 * n_tokens * (config.n_heads + config.n_kv_heads) * config.d_head * n_bytes
    if config.n_kv_heads != config.n_heads:  # keys and values are repeated for all heads
        heads += 2 * batch * length * config.n_heads * config.d_head * n_bytes
    masks = 0
    window = config.sliding_window
    if n_new < length or (window is not None and window < length):
        masks = n_pairs * (len(config.windows) * MASK_BYTES + n_bytes)
    if config.positions == "relative":
        masks = n_pairs * (config.n_heads * n_bytes + 4 * DISTANCE_BYTES)
    if config.attention_softcap is not None:  # no fused kernel: scores of all heads, thrice
        heads += 3 * n_pairs * config.n_heads * n_bytes
    layer = masks + int(ALLOCATED * (stream + max(mlp, heads)))
    # The last states, and fp32 logits of the next token.
    logits = batch * config.vocab_size * 4 if config.head == "language" else 0
    states = 2 * batch * length * config.d_model * n_bytes
    return max(layer, logits) + states
