"""Phi-3 and Phi-4-mini: Llama with q, k, v in one matrix, and gate and up in another."""

from dataclasses import replace

from lmwright.model.families.family import Gguf, table
from lmwright.model.families.llama import LLAMA, WINDOW

FUSED = table("""
decoder.blocks.{i}.attention.q+decoder.blocks.{i}.attention.k+decoder.blocks.{i}.attention.v  model.layers.{i}.self_attn.qkv_proj  blk.{i}.attn_qkv
decoder.blocks.{i}.mlp.gate+decoder.blocks.{i}.mlp.up  model.layers.{i}.mlp.gate_up_proj  blk.{i}.ffn_up
""")  # noqa: E501
SPLIT = ("attention.q", "attention.k", "attention.v", "mlp.gate", "mlp.up")

PHI3 = replace(
    LLAMA,
    name="phi3",
    architectures={"language": "Phi3ForCausalLM"},
    rows=(*(row for row in LLAMA.rows if not row.ours[0].endswith(SPLIT)), *FUSED),
    defaults={**LLAMA.defaults, "max_position_embeddings": 4096, "rms_norm_eps": 1e-5},
    keys={**LLAMA.keys, **WINDOW},
    only={},
    rotates_parts=True,
    gguf=Gguf("phi3"),
)
