"""What llama.cpp knows of Gemmas without their files."""

import math
from collections.abc import Callable, Mapping
from typing import Any

from lmwright.model.config import ModelConfig, Rope
from lmwright.model.families.family import Gguf
from lmwright.model.families.windows import every_nth_global

# Spelled alike in config.json and GGUF.
CAPS = {
    "attention_softcap": "attn_logit_softcapping",
    "logit_softcap": "final_logit_softcapping",
}


def gemma_gguf(
    name: str, every: int, *, big: int, local_rope: Rope | None, usual_caps: Mapping[str, float]
) -> Gguf:
    """Return a generation's files: caps, the order of windows, the scale of its `big` model."""
    return Gguf(
        name,
        norm_shift=1.0,
        has_windows=True,
        keys=CAPS,
        defaults=usual_caps,
        read=_by_heart(every, big, local_rope),
    )


def _by_heart(
    every: int, big: int, local_rope: Rope | None
) -> Callable[[ModelConfig], dict[str, Any]]:
    def fields(config: ModelConfig) -> dict[str, Any]:
        # The largest of each generation (so many layers) scales by its own head width.
        width = config.d_model // config.n_heads if config.n_layers == big else config.d_head
        return {
            "embedding_scale": math.sqrt(config.d_model),
            "attention_scale": width**-0.5,
            "local_layers": every_nth_global(every, config.n_layers),
            "local_rope": local_rope,
        }

    return fields
