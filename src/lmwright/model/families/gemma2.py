"""Gemma 2: norms around each branch, soft caps, a window in every second layer."""

import math
from dataclasses import replace
from functools import partial
from typing import Any

from lmwright.model.config import ModelConfig, Rope
from lmwright.model.families.family import ConfigJson, Gguf, table
from lmwright.model.families.llama import LLAMA, WINDOW
from lmwright.model.families.windows import every_nth_global, layer_types, read_layer_types

NORMS = table("""
decoder.blocks.{i}.{attention,mlp}_residual.norm_out  model.layers.{i}.post_{attention,feedforward}_layernorm  blk.{i}.post_{attention,ffw}_norm
decoder.blocks.{i}.mlp_residual.norm_in               model.layers.{i}.pre_feedforward_layernorm               blk.{i}.ffn_norm
""")  # noqa: E501
# Spelled alike in config.json and GGUF.
CAPS = {
    "attention_softcap": "attn_logit_softcapping",
    "logit_softcap": "final_logit_softcapping",
}
USUAL_CAPS = {"attention_softcap": 50.0, "logit_softcap": 30.0}
ROWS = (*(row for row in LLAMA.rows if "mlp_residual" not in row.ours[0]), *NORMS)


def read(settings: ConfigJson) -> dict[str, Any]:
    """Return scales and windows."""
    usual = every_nth_global(settings["sliding_window_pattern"], settings["num_hidden_layers"])
    return {
        "embedding_scale": math.sqrt(settings["hidden_size"]),
        "attention_scale": settings["query_pre_attn_scalar"] ** -0.5,
        "local_layers": read_layer_types(settings, usual),
    }


def write(config: ModelConfig) -> dict[str, Any]:
    """Return what the family says besides the keys."""
    assert config.attention_scale is not None
    scale = round(config.attention_scale**-2)
    return {"query_pre_attn_scalar": scale, "layer_types": layer_types(config)}


def by_heart(
    config: ModelConfig, *, every: int, big: int, local_rope: Rope | None = None
) -> dict[str, Any]:
    """Return what llama.cpp knows of a generation without its files."""
    # The largest of each generation (so many layers) scales by its own head width.
    width = config.d_model // config.n_heads if config.n_layers == big else config.d_head
    return {
        "embedding_scale": math.sqrt(config.d_model),
        "attention_scale": width**-0.5,
        "local_layers": every_nth_global(every, config.n_layers),
        "local_rope": local_rope,
    }


GGUF = Gguf(
    "gemma2",
    norm_shift=1.0,
    has_windows=True,
    keys=CAPS,
    defaults=USUAL_CAPS,
    read=partial(by_heart, every=2, big=46),
)
GEMMA2 = replace(
    LLAMA,
    name="gemma2",
    architectures={"language": "Gemma2ForCausalLM"},
    keys={
        **LLAMA.keys,
        **CAPS,
        **WINDOW,
        "activation": "hidden_activation",
    },
    rows=ROWS,
    choices={"norm_offset": 1.0, "norm_places": ("in", "out")},
    defaults={
        "head_dim": 256,
        "hidden_activation": "gelu_pytorch_tanh",
        "max_position_embeddings": 8192,
        "rms_norm_eps": 1e-6,
        "tie_word_embeddings": True,
        "query_pre_attn_scalar": 256,
        **{CAPS[name]: cap for name, cap in USUAL_CAPS.items()},
        "sliding_window": 4096,
        "sliding_window_pattern": 2,
    },
    # transformers takes 2 whatever the setting says.
    only={
        "attention_bias": False,
        "use_bidirectional_attention": False,
        "sliding_window_pattern": 2,
    },
    read=read,
    write=write,
    ignored=(),
    gguf=GGUF,
)
