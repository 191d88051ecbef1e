"""OLMo 2: norms behind the branches only, queries and keys normed in their full width."""

from dataclasses import replace

from lmwright.model.families.family import Gguf, table
from lmwright.model.families.llama import LLAMA
from lmwright.model.families.qwen import QK_NORMS

NORMS = table("""
decoder.blocks.{i}.{attention,mlp}_residual.norm_out  model.layers.{i}.post_{attention,feedforward}_layernorm  blk.{i}.post_{attention,ffw}_norm
""")  # noqa: E501

OLMO2 = replace(
    LLAMA,
    name="olmo2",
    architectures={"language": "Olmo2ForCausalLM"},
    rows=(*(row for row in LLAMA.rows if "residual" not in row.ours[0]), *NORMS, *QK_NORMS),
    choices={"norm_places": ("out",), "qk_norm": "width"},
    defaults={**LLAMA.defaults, "rms_norm_eps": 1e-5},
    only={"attention_bias": False},
    gguf=Gguf("olmo2"),
)
