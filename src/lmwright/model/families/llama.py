"""Llama 2 and 3, SmolLM2, Mistral: RMSNorm, rotary positions, grouped heads, SwiGLU."""

from dataclasses import replace

from lmwright.model.config import ModelConfig
from lmwright.model.families.family import DECODER_KEYS, ConfigJson, Family, Gguf, table
from lmwright.model.families.windows import layer_types, read_layer_types
from lmwright.model.transformer import DecoderLM

ROWS = table("""
decoder.embedding                                        model.embed_tokens                                             token_embd
decoder.blocks.{i}.{attention,mlp}_residual.norm_in      model.layers.{i}.{input_layernorm,post_attention_layernorm}    blk.{i}.{attn,ffn}_norm
decoder.blocks.{i}.attention.{q,k,v,out}                 model.layers.{i}.self_attn.{q,k,v,o}_proj                      blk.{i}.attn_{q,k,v,output}
decoder.blocks.{i}.mlp.{gate,up,down}                    model.layers.{i}.mlp.{gate,up,down}_proj                       blk.{i}.ffn_{gate,up,down}
decoder.norm                                             model.norm                                                     output_norm
head                                                     lm_head                                                        output
""")  # noqa: E501


LLAMA = Family(
    name="llama",
    assembly=DecoderLM,
    architectures={"language": "LlamaForCausalLM"},
    keys=DECODER_KEYS,
    rows=ROWS,
    defaults={
        "max_position_embeddings": 2048,
        "rms_norm_eps": 1e-6,
        "hidden_act": "silu",
        "tie_word_embeddings": False,
    },
    only={"attention_bias": False, "mlp_bias": False},
    # Some writers store the tied head a second time.
    copies={"lm_head.weight": "model.embed_tokens.weight"},
    prefix="model.",
    ignored=("rotary_emb.inv_freq",),
    gguf=Gguf("llama", is_permuted=True),
)
WINDOW = {"sliding_window": "sliding_window"}


def read(settings: ConfigJson) -> dict[str, object]:
    """Return which layers have the window; Ministral's files call themselves Mistral's."""
    return {"local_layers": read_layer_types(settings, ())}


def write(config: ModelConfig) -> dict[str, object]:
    """Return the layers' types where they differ."""
    return {"layer_types": layer_types(config)} if config.local_layers else {}


# Newer Mistrals have no window; GGUF calls them "llama".
MISTRAL = replace(
    LLAMA,
    name="mistral",
    architectures={"language": "MistralForCausalLM"},
    defaults={**LLAMA.defaults, "max_position_embeddings": 131_072, "sliding_window": 4096},
    keys={**LLAMA.keys, **WINDOW},
    only={},
    read=read,
    write=write,
)
