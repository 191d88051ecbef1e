"""BART: an encoder and a decoder with norms behind each sum, learned positions from 2 on."""

import math
from typing import Any

from lmwright.core.errors import ModelError
from lmwright.model.config import ModelConfig
from lmwright.model.families.family import (
    CLASSIC,
    COMMON_KEYS,
    POST_NORM,
    ConfigJson,
    Family,
    TensorRow,
    table,
)
from lmwright.model.transformer import EncoderDecoderLM

TOWER = """
{tower}.embedding.{positions,norm}                    model.{tower}.{embed_positions,layernorm_embedding}
{tower}.blocks.{i}.attention.{q,k,v,out}              model.{tower}.layers.{i}.self_attn.{q_proj,k_proj,v_proj,out_proj}
{tower}.blocks.{i}.mlp.{up,down}                      model.{tower}.layers.{i}.{fc1,fc2}
{tower}.blocks.{i}.{attention,mlp}_residual.{place}   model.{tower}.layers.{i}.{self_attn,final}_layer_norm
{tower}.norm                                          model.{tower}.layer_norm
"""  # noqa: E501
REST = """
encoder.embedding                                model.shared
decoder.blocks.{i}.cross_attention.{q,k,v,out}   model.decoder.layers.{i}.encoder_attn.{q_proj,k_proj,v_proj,out_proj}
decoder.blocks.{i}.cross_residual.{place}        model.decoder.layers.{i}.encoder_attn_layer_norm
head                                             lm_head
head.bias                                        final_logits_bias  row
"""  # noqa: E501
# The decoder must be as wide as the encoder, and must have as many heads.
TWINS = ("ffn_dim", "attention_heads")


def rows(place: str) -> tuple[TensorRow, ...]:
    """Return the table of a model whose norms stand at this place."""
    towers = (TOWER.replace("{tower}", tower).strip() for tower in ("encoder", "decoder"))
    return table("\n".join((*towers, REST.strip())).replace("{place}", place))


def read(settings: ConfigJson) -> dict[str, Any]:
    """Return the scale of the embedding."""
    for twin in TWINS:
        theirs, ours = settings.get(f"decoder_{twin}"), settings[f"encoder_{twin}"]
        if theirs not in (None, ours):
            raise ModelError(
                f"decoder_{twin} = {theirs} with encoder_{twin} = {ours}; only towers "
                "of the same width are built"
            )
    is_scaled = settings["scale_embedding"]
    return {"embedding_scale": math.sqrt(settings["d_model"]) if is_scaled else 1.0}


def write(config: ModelConfig) -> dict[str, Any]:
    """Return what the family says besides the keys."""
    return {
        "scale_embedding": config.embedding_scale != 1,
        "decoder_ffn_dim": config.d_ff,
        "decoder_attention_heads": config.n_heads,
    }


BART = Family(
    name="bart",
    assembly=EncoderDecoderLM,
    architectures={"language": "BartForConditionalGeneration"},
    keys={
        **COMMON_KEYS,
        "d_model": "d_model",
        "n_layers": "encoder_layers",
        "n_decoder_layers": "decoder_layers",
        "n_heads": "encoder_attention_heads",
        "d_ff": "encoder_ffn_dim",
        "activation": "activation_function",
    },
    rows=rows("norm_sum"),
    choices={**CLASSIC, **POST_NORM, "position_offset": 2, "head_bias": True},
    defaults={
        "activation_function": "gelu",
        "scale_embedding": False,
        "tie_word_embeddings": True,
        "decoder_start_token_id": 2,
        "bos_token_id": 0,
        "pad_token_id": 1,
        "eos_token_id": 2,
    },
    read=read,
    write=write,
    zeros=("final_logits_bias",),
    copies={
        f"{name}.weight": "model.shared.weight"
        for name in ("lm_head", "model.encoder.embed_tokens", "model.decoder.embed_tokens")
    },
)
