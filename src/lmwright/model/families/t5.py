"""T5 and T5 v1.1 (Flan-T5, gated): biases a distance, scores that are not scaled."""

from collections.abc import Collection
from dataclasses import replace
from typing import Any

from lmwright.core.errors import ModelError
from lmwright.model.config import ModelConfig
from lmwright.model.families.family import ConfigJson, Family, table
from lmwright.model.transformer import EncoderDecoderLM

ROWS = table("""
encoder.embedding                                    shared
encoder.blocks.{i}.attention.{q,k,v,out}             encoder.block.{i}.layer.0.SelfAttention.{q,k,v,o}
encoder.blocks.{i}.{attention,mlp}_residual.norm_in  encoder.block.{i}.layer.{0,1}.layer_norm
encoder.blocks.{i}.mlp.down                          encoder.block.{i}.layer.1.DenseReluDense.wo
{encoder,decoder}.relative                           {encoder,decoder}.block.0.layer.0.SelfAttention.relative_attention_bias
decoder.blocks.{i}.attention.{q,k,v,out}             decoder.block.{i}.layer.0.SelfAttention.{q,k,v,o}
decoder.blocks.{i}.cross_attention.{q,k,v,out}       decoder.block.{i}.layer.1.EncDecAttention.{q,k,v,o}
decoder.blocks.{i}.{attention,cross,mlp}_residual.norm_in  decoder.block.{i}.layer.{0,1,2}.layer_norm
decoder.blocks.{i}.mlp.down                          decoder.block.{i}.layer.2.DenseReluDense.wo
{encoder,decoder}.norm                               {encoder,decoder}.final_layer_norm
head                                                 lm_head
""")  # noqa: E501
UP = "{encoder,decoder}.blocks.{i}.mlp.up {encoder,decoder}.block.{i}.layer.{1,2}.DenseReluDense.wi"
GATED = table("""
{encoder,decoder}.blocks.{i}.mlp.gate  {encoder,decoder}.block.{i}.layer.{1,2}.DenseReluDense.wi_0
{encoder,decoder}.blocks.{i}.mlp.up    {encoder,decoder}.block.{i}.layer.{1,2}.DenseReluDense.wi_1
""")
FEED_FORWARD = {"relu": ("relu", False), "gated-gelu": ("gelu_new", True)}
# Relative positions have no end; this bounds the memory of a row's scores.
MAX_POSITIONS = 16_384


def read(settings: ConfigJson) -> dict[str, Any]:
    """Return the feed-forward kind, and whether logits are scaled (where the head is tied)."""
    kind = settings["feed_forward_proj"]
    if kind not in FEED_FORWARD:
        raise ModelError(f"feed_forward_proj {kind!r}; known: {', '.join(FEED_FORWARD)}")
    activation, is_gated = FEED_FORWARD[kind]
    is_scaled = settings.get("scale_decoder_outputs", settings["tie_word_embeddings"])
    return {
        "activation": activation,
        "is_gated": is_gated,
        "n_decoder_layers": settings.get("num_decoder_layers", settings["num_layers"]),
        "max_positions": MAX_POSITIONS,
        "head_scale": settings["d_model"] ** -0.5 if is_scaled else 1.0,
    }


def refine(config: ModelConfig, names: Collection[str]) -> ModelConfig:
    """Believe the file: transformers 5 writes `tie_word_embeddings` = true in any case."""
    return replace(config, ties_embeddings="lm_head.weight" not in names)


def write(config: ModelConfig) -> dict[str, Any]:
    """Return what the family says besides the keys."""
    return {
        "feed_forward_proj": "gated-gelu" if config.is_gated else "relu",
        "scale_decoder_outputs": config.head_scale != 1,
    }


T5 = Family(
    name="t5",
    assembly=EncoderDecoderLM,
    architectures={"language": "T5ForConditionalGeneration"},
    keys={
        **{name: name for name in ("vocab_size", "d_model", "d_ff")},
        "n_layers": "num_layers",
        "n_decoder_layers": "num_decoder_layers",
        "n_heads": "num_heads",
        "d_head": "d_kv",
        "ties_embeddings": "tie_word_embeddings",
        "norm_eps": "layer_norm_epsilon",
        "relative_buckets": "relative_attention_num_buckets",
        "relative_max_distance": "relative_attention_max_distance",
    },
    rows=ROWS,
    more_rows=lambda config: GATED if config.is_gated else table(UP),
    choices={"positions": "relative", "attention_scale": 1.0},
    defaults={
        "d_kv": 64,
        "layer_norm_epsilon": 1e-6,
        "relative_attention_num_buckets": 32,
        "relative_attention_max_distance": 128,
        "feed_forward_proj": "relu",
        "tie_word_embeddings": True,
        "decoder_start_token_id": 0,
        "eos_token_id": 1,
        "pad_token_id": 0,
    },
    read=read,
    refine=refine,
    write=write,
    ignored=("EncDecAttention.relative_attention_bias.weight",),
    copies={f"{tower}.embed_tokens.weight": "shared.weight" for tower in ("encoder", "decoder")},
)
