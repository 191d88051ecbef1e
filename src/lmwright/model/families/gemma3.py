"""Gemma 3: normed queries and keys for soft caps, most layers local with a rope of their own."""

from dataclasses import replace
from functools import partial

from lmwright.model.config import Rope
from lmwright.model.families.gemma2 import CAPS, GEMMA2, GGUF, by_heart
from lmwright.model.families.qwen import QK_NORMS

GEMMA3 = replace(
    GEMMA2,
    name="gemma3_text",
    architectures={"language": "Gemma3ForCausalLM"},
    rows=(*GEMMA2.rows, *QK_NORMS),
    choices={**GEMMA2.choices, "qk_norm": "head"},
    defaults={
        **{key: value for key, value in GEMMA2.defaults.items() if "softcapping" not in key},
        "max_position_embeddings": 131_072,
        "rope_theta": 1_000_000.0,
        "rope_local_base_freq": 10_000.0,
        "sliding_window_pattern": 6,
    },
    only={
        **{key: value for key, value in GEMMA2.only.items() if key != "sliding_window_pattern"},
        # transformers has the setting and does not heed it.
        CAPS["attention_softcap"]: None,
    },
    keys={name: key for name, key in GEMMA2.keys.items() if name != "attention_softcap"},
    gguf=replace(
        GGUF,
        architecture="gemma3",
        keys={"logit_softcap": CAPS["logit_softcap"]},
        defaults={},
        read=partial(by_heart, every=6, big=62, local_rope=Rope(theta=10_000.0)),
    ),
)
