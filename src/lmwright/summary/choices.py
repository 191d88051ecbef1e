"""The choices of an architecture in words: where it differs from a plain pre-norm decoder.

Plain is RMSNorm before each branch and at the end, rotary positions of base 10,000, keys and values
for each head, SwiGLU, no biases, a head of its own.
"""

import math
from collections.abc import Iterator

from lmwright.formats.sentence_transformers import Pooling
from lmwright.model.config import ModelConfig, Rope

HEADS = {
    "language": "says which token comes next",
    "masked": "says which token is hidden behind a mask",
    "pretraining": "says which token is hidden, and whether a text follows another",
    "sequence": "classifies a text",
    "tokens": "classifies each token",
    "none": "no head: it gives hidden states",
}
ACTIVATIONS = {
    "silu": "SiLU",
    "gelu": "GELU",
    "gelu_tanh": "GELU (tanh)",
    "relu": "ReLU",
    "tanh": "tanh",
}
# A list of layers longer than this says less than how many they are.
MAX_LISTED = 12


def choices(config: ModelConfig) -> list[str]:
    """Return a phrase for each choice that a plain pre-norm decoder does not make."""
    return [
        *_positions(config),
        *_norms(config),
        *_attention(config),
        *_feed_forward(config),
        *_ends(config),
    ]


def head(config: ModelConfig) -> str:
    """Return what the head does, with its classes."""
    if not config.labels:
        return HEADS[config.head]
    if config.problem == "regression":
        n_numbers = len(config.labels)
        return f"gives a text {'a number' if n_numbers == 1 else f'{n_numbers} numbers'}"
    several = ", several at once" if config.problem == "multi_label" else ""
    shown = ", ".join(config.labels[:8]) + (", ..." if len(config.labels) > 8 else "")
    return f"{HEADS[config.head]}: {len(config.labels)} classes{several} ({shown})"


def pooled(pooling: Pooling) -> str:
    """Return how one vector is made of a text's many."""
    kinds = " and ".join(kind.replace("_", " ") for kind in pooling.kinds)
    length = ", scaled to length 1" if pooling.is_normalized else ""
    prompt = f", behind the prompt {pooling.prompt!r}" if pooling.prompt else ""
    return f"a text as one vector: {kinds} of its tokens{length}{prompt}"


def _positions(config: ModelConfig) -> Iterator[str]:
    if config.positions == "rotary":
        yield from _rope(config.rope)
        if config.local_rope is not None:
            base = f"base {config.local_rope.theta:,.0f}"
            yield f"rotary {base} in the layers with a window"
    elif config.positions == "learned":
        behind = f", behind {config.position_offset} unused" if config.position_offset else ""
        yield f"a learned vector for each of {config.max_positions:,} positions{behind}"
    elif config.positions == "sinusoidal":
        yield "fixed sinusoids for positions"
    else:
        yield (
            f"instead of positions a learned bias for each of {config.relative_buckets} ranges of "
            f"distances, the last from {config.relative_max_distance} tokens on"
        )


def _rope(rope: Rope) -> Iterator[str]:
    if rope.theta != 10_000:
        yield f"rotary base {rope.theta:,.0f}"
    if rope.fraction != 1:
        yield f"only {rope.fraction:.0%} of each head is rotated"
    if rope.scaling in ("linear", "dynamic"):
        yield f"positions stretched {rope.factor:g} times ({rope.scaling})"
    elif rope.scaling != "none":
        origin = f"from {rope.original_max_positions:,} tokens"
        yield f"positions stretched {origin} by {rope.factor:g} ({rope.scaling})"


def _norms(config: ModelConfig) -> Iterator[str]:
    if config.norm == "layer":
        yield "LayerNorm instead of RMSNorm"
    places = {
        ("in", "out"): "norms before and behind each branch",
        ("out",): "norms behind each branch instead of before it",
        ("sum",): "norms behind each sum (post-norm)",
    }
    if config.norm_places != ("in",):
        usual = "norms " + " and ".join(config.norm_places)
        yield places.get(config.norm_places, usual)
    if config.norm_offset:
        yield f"norms multiply by {config.norm_offset:g} + weight"
    if config.has_embedding_norm:
        yield "a norm behind the embedding"
    if not config.has_final_norm:
        yield "no norm before the head"
    if config.qk_norm != "none":
        where = "head by head" if config.qk_norm == "head" else "in their full width"
        yield f"queries and keys are normed {where}"


def _attention(config: ModelConfig) -> Iterator[str]:
    if config.n_kv_heads != config.n_heads:
        heads = "head" if config.n_kv_heads == 1 else "heads"
        yield f"{config.n_kv_heads} key/value {heads} for {config.n_heads} query heads"
    if config.n_heads * config.d_head != config.d_model:
        yield f"heads together {config.n_heads * config.d_head:,} wide, not {config.d_model:,}"
    usual = 1 / math.sqrt(config.d_head)
    if config.attention_scale is not None and not math.isclose(config.attention_scale, usual):
        is_one = config.attention_scale == 1
        how = "not scaled" if is_one else f"scaled by 1 / sqrt({config.attention_scale**-2:g})"
        yield f"attention scores are {how}"
    if config.attention_softcap is not None:
        yield f"attention scores capped at {config.attention_softcap:g}"
    if config.sliding_window is not None:
        yield f"a window of {config.sliding_window:,} tokens in {_local_layers(config)}"


def _local_layers(config: ModelConfig) -> str:
    n_layers = config.n_decoder_layers or config.n_layers
    rest = [i + 1 for i in range(n_layers) if not config.is_local(i)]
    if not rest:
        return "all layers"
    n_local = n_layers - len(rest)
    if len(rest) > MAX_LISTED:
        return f"{n_local} of {n_layers} layers"
    return f"{n_local} of {n_layers} layers (not in {', '.join(map(str, rest))})"


def _feed_forward(config: ModelConfig) -> Iterator[str]:
    activation = ACTIVATIONS[config.activation]
    if not config.is_gated:
        yield f"feed-forward without a gate, {activation}"
    elif config.activation != "silu":
        yield f"the gate is {activation}"
    named = {
        "queries, keys, values": config.qkv_bias,
        "attention's output": config.out_bias,
        "feed-forward": config.mlp_bias,
    }
    biased = [name for name, has_bias in named.items() if has_bias]
    if len(biased) == len(named):
        yield "biases in attention and feed-forward"
    elif biased:
        yield f"biases of {' and '.join(biased)}"


def _ends(config: ModelConfig) -> Iterator[str]:
    if config.embedding_scale != 1:
        yield f"embeddings times {config.embedding_scale:.4g}"
    if config.n_token_types:
        yield f"{config.n_token_types} token types"
    if config.ties_embeddings and config.head in ("language", "masked", "pretraining"):
        yield "the head is the embedding once more"
    if config.head_scale != 1:
        yield f"states times {config.head_scale:.4g} before the head"
    if config.head_bias:
        yield "a bias in the head"
    if config.logit_softcap is not None:
        yield f"logits capped at {config.logit_softcap:g}"
    if config.has_pooler:
        yield "a pooler on the first token"
