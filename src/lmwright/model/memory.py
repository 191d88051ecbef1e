"""How much memory a model takes: by its configuration to run it, by its size alone to plan a step.

Imports no torch: models are summarised and recipes estimated before anything is loaded.
"""

from dataclasses import dataclass

from lmwright.core.stage import PROCESS_BYTES
from lmwright.model.config import ModelConfig

DTYPE_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
# Of each token and channel: the stream, a normed copy, a branch; and a norm's two copies in fp32.
N_STREAMS, NORM_BYTES = 3, 8
# Of each pair of tokens, where it is not fused away: who sees whom, made from distances (int64).
MASK_BYTES, DISTANCE_BYTES = 1, 8
# What the allocator holds for each byte in use; with it, peaks of two decoders read at 512 to 4096
# tokens, in bf16 and fp32, are met within a third.
ALLOCATED = 1.4
# For the backward pass, about so many bytes a token and square root of a parameter are kept.
BACKWARD_BYTES = 100.0


@dataclass(frozen=True)
class MemoryNeed:
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


@dataclass(frozen=True)
class MemoryModel:
    """What decides how much memory a model takes while it runs."""

    config: ModelConfig
    # "decoder", "encoder" or "encoder-decoder".
    assembly: str
    n_params: int
    # Of weights and activations while it computes: a name of `DTYPE_BYTES`.
    dtype: str
    # Tokens that pass through the model at once, in all rows together.
    max_chunk: int

    def need(self, context: int, *, batch: int = 1) -> MemoryNeed:
        """Return what `batch` texts of `context` tokens take."""
        weights = self.n_params * DTYPE_BYTES[self.dtype]
        kept = batch * context * self.cache_bytes_per_token
        cross = kept if self.assembly == "encoder-decoder" else 0
        activations = self._activation_bytes(context, batch)
        total = PROCESS_BYTES + weights + kept + cross + activations
        return MemoryNeed(context, batch, weights, kept, cross, activations, total)

    @property
    def cache_bytes_per_token(self) -> int:
        """The bytes of a token's keys and values: all layers keep them, windowed ones, too."""
        config = self.config
        n_layers = {
            "decoder": config.n_layers,
            "encoder": 0,
            "encoder-decoder": config.n_decoder_layers,
        }[self.assembly]
        return 2 * n_layers * config.n_kv_heads * config.d_head * DTYPE_BYTES[self.dtype]

    def _activation_bytes(self, length: int, batch: int) -> int:
        """Return about the most that reading `batch` texts of `length` tokens holds at a time."""
        config, n_bytes = self.config, DTYPE_BYTES[self.dtype]
        if self.assembly == "decoder":  # all rows together, piece by piece
            n_rows, n_new = batch, min(length, max(1, self.max_chunk // batch))
        else:  # whole rows, as many as are read at once
            n_rows, n_new = min(batch, max(1, self.max_chunk // length)), length
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


def inference_bytes(n_params: int, *, n_models: int = 1) -> int:
    """Return about what models of `n_params` take in fp32, side by side, with short texts."""
    # Besides the weights, keys, values and activations: half as much again as one model.
    return PROCESS_BYTES + (4 * n_models + 2) * n_params


def training_bytes(n_params: int, *, trains_all: bool, micro_batch_tokens: int) -> int:
    """Return about what training takes: all weights, or a small part that is added to them.

    All: bf16 weights with fp32 master weights, gradients and the two moments of AdamW.
    """
    activations = micro_batch_tokens * BACKWARD_BYTES * n_params**0.5
    return PROCESS_BYTES + (18 if trains_all else 2) * n_params + int(activations)
