"""Qwen 2 and 2.5 (biases on q, k, v) and Qwen 3 (normed queries and keys instead)."""

from dataclasses import replace

from lmwright.model.config import ModelConfig
from lmwright.model.families.family import ConfigJson, Family, Gguf, table
from lmwright.model.families.llama import LLAMA
from lmwright.model.families.windows import layer_types, read_layer_types

QK_NORMS = table("""
decoder.blocks.{i}.attention.{q,k}_norm  model.layers.{i}.self_attn.{q,k}_norm  blk.{i}.attn_{q,k}_norm
""")  # noqa: E501


def read(settings: ConfigJson) -> dict[str, object]:
    """Return the windows; only the layers from `max_window_layers` on have one."""
    if not settings["use_sliding_window"]:
        return {}
    n_layers, first = settings["num_hidden_layers"], settings["max_window_layers"]
    local = read_layer_types(settings, tuple(i >= first for i in range(n_layers)))
    return {"sliding_window": settings["sliding_window"], "local_layers": local}


def write(config: ModelConfig) -> dict[str, object]:
    """Return what the family says besides the keys."""
    return {
        "use_sliding_window": config.sliding_window is not None,
        "sliding_window": config.sliding_window,
        "layer_types": layer_types(config),
    }


QWEN2 = replace(
    LLAMA,
    name="qwen2",
    architectures={"language": "Qwen2ForCausalLM"},
    choices={"qkv_bias": True},
    defaults={
        **LLAMA.defaults,
        "max_position_embeddings": 32_768,
        "use_sliding_window": False,
        "sliding_window": 4096,
        "max_window_layers": 28,
    },
    only={},
    read=read,
    write=write,
    gguf=Gguf("qwen2"),
)
QWEN3: Family = replace(
    QWEN2,
    name="qwen3",
    architectures={"language": "Qwen3ForCausalLM"},
    rows=(*LLAMA.rows, *QK_NORMS),
    choices={"qk_norm": "head"},
    defaults={**QWEN2.defaults, "head_dim": 128},
    only={"attention_bias": False},
    gguf=Gguf("qwen3"),
)
