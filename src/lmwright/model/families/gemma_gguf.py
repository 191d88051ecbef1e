"""What Gemma's GGUF files say, and what llama.cpp knows without them."""

import math
from collections.abc import Mapping
from typing import Any

from lmwright.model.config import ModelConfig, Rope
from lmwright.model.families.family import Settings

# Spelled alike in config.json and GGUF.
CAPS = {
    "attention_softcap": "attn_logit_softcapping",
    "logit_softcap": "final_logit_softcapping",
}


def gguf_fields(
    every: int, *, big: int, local_rope: Rope | None, usual_caps: Mapping[str, float]
) -> Any:
    """Return what llama.cpp knows by heart: caps, the order of windows, the scale of one size."""

    def read_gguf(keys: Settings, config: ModelConfig) -> dict[str, Any]:
        # The largest of each generation (so many layers) scales by its own head width.
        width = config.d_model // config.n_heads if config.n_layers == big else config.d_head
        return {
            "embedding_scale": math.sqrt(config.d_model),
            "attention_scale": width**-0.5,
            **{name: keys.get(key, usual_caps.get(name)) for name, key in CAPS.items()},
            "local_layers": tuple(bool((i + 1) % every) for i in range(config.n_layers)),
            "local_rope": local_rope,
        }

    return read_gguf


def write_gguf(config: ModelConfig) -> dict[str, Any]:
    """Return the caps."""
    caps = {key: getattr(config, name) for name, key in CAPS.items()}
    return {key: float(cap) for key, cap in caps.items() if cap is not None}
