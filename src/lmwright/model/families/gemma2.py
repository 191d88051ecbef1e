"""Gemma 2: norms around each branch, soft caps, a window in every second layer."""

import math
from typing import Any

from lmwright.core.errors import ModelError
from lmwright.model.config import ModelConfig
from lmwright.model.families.family import DECODER_KEYS, Family, Gguf, Settings, table
from lmwright.model.families.gemma_gguf import CAPS, gguf_fields, write_gguf
from lmwright.model.families.llama import LLAMA
from lmwright.model.families.rope import read_rope, write_rope
from lmwright.model.families.windows import GLOBAL, LOCAL, layer_types, read_layer_types
from lmwright.model.transformer import DecoderLM

NORMS = table("""
decoder.blocks.{i}.{attention,mlp}_residual.norm_out  model.layers.{i}.post_{attention,feedforward}_layernorm  blk.{i}.post_{attention,ffw}_norm
decoder.blocks.{i}.mlp_residual.norm_in               model.layers.{i}.pre_feedforward_layernorm               blk.{i}.ffn_norm
""")  # noqa: E501
USUAL_CAPS = {"attention_softcap": 50.0, "logit_softcap": 30.0}
ROWS = (*(row for row in LLAMA.rows if "mlp_residual" not in row.ours[0]), *NORMS)


def read(settings: Settings) -> dict[str, Any]:
    """Return scales, caps, windows and ropes."""
    every = settings["sliding_window_pattern"]
    n_layers = settings["num_hidden_layers"]
    usual = tuple(bool((i + 1) % every) for i in range(n_layers))
    ropes = settings.get("rope_parameters") or {}
    if not isinstance(ropes.get(GLOBAL, {}), dict):
        raise ModelError(f"rope_parameters.{GLOBAL} is no table")
    fields = {
        "rope": read_rope(settings, ropes.get(GLOBAL)),
        "embedding_scale": math.sqrt(settings["hidden_size"]),
        "attention_scale": settings["query_pre_attn_scalar"] ** -0.5,
        "local_layers": read_layer_types(settings, usual),
    }
    local = ropes.get(LOCAL, {"rope_theta": settings.get("rope_local_base_freq")})
    if local["rope_theta"] is not None:
        fields["local_rope"] = read_rope(settings, local)
    return fields


def write(config: ModelConfig) -> dict[str, Any]:
    """Return what the family says besides the keys."""
    assert config.attention_scale is not None
    settings: dict[str, Any] = {
        "query_pre_attn_scalar": round(config.attention_scale**-2),
        "layer_types": layer_types(config),
        "rope_parameters": write_rope(config),
        "rope_theta": config.rope.theta,
    }
    if config.local_rope is not None:
        local = write_rope(config, config.local_rope)
        settings["rope_parameters"] = {GLOBAL: write_rope(config), LOCAL: local}
        settings["rope_local_base_freq"] = config.local_rope.theta
    return settings


GEMMA2 = Family(
    name="gemma2",
    assembly=DecoderLM,
    architectures={"language": "Gemma2ForCausalLM"},
    keys={
        **DECODER_KEYS,
        **CAPS,
        "activation": "hidden_activation",
        "sliding_window": "sliding_window",
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
    only={"attention_bias": False, "use_bidirectional_attention": False},
    read=read,
    write=write,
    # Some writers store the tied head a second time.
    copies={"lm_head.weight": "model.embed_tokens.weight"},
    prefix="model.",
    gguf=Gguf(
        "gemma2",
        norm_shift=1.0,
        has_windows=True,
        read=gguf_fields(2, big=46, local_rope=None, usual_caps=USUAL_CAPS),
        write=write_gguf,
    ),
)
