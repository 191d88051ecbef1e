"""GPT-2: learned positions, LayerNorm, q, k, v in one matrix that is stored transposed."""

from lmwright.model.config import ModelConfig
from lmwright.model.families.family import CLASSIC, ConfigJson, Family, Gguf, table
from lmwright.model.transformer import DecoderLM

ROWS = table("""
decoder.embedding                                    transformer.wte                      token_embd
decoder.embedding.positions                          transformer.wpe                      position_embd
decoder.blocks.{i}.{attention,mlp}_residual.norm_in  transformer.h.{i}.ln_{1,2}           blk.{i}.{attn,ffn}_norm
decoder.blocks.{i}.attention.q+decoder.blocks.{i}.attention.k+decoder.blocks.{i}.attention.v  transformer.h.{i}.attn.c_attn  blk.{i}.attn_qkv  transposed
decoder.blocks.{i}.attention.out                     transformer.h.{i}.attn.c_proj        blk.{i}.attn_output      transposed
decoder.blocks.{i}.mlp.{up,down}                     transformer.h.{i}.mlp.{c_fc,c_proj}  blk.{i}.ffn_{up,down}    transposed
decoder.norm                                         transformer.ln_f                     output_norm
head                                                 lm_head                              output
""")  # noqa: E501


def read(settings: ConfigJson) -> dict[str, object]:
    """Return the feed-forward width, which is four times the model's unless it is given."""
    return {"d_ff": settings.get("n_inner") or 4 * settings["n_embd"]}


def write(config: ModelConfig) -> dict[str, object]:
    """Return what the family says besides the keys."""
    return {"n_inner": config.d_ff}


GPT2 = Family(
    name="gpt2",
    assembly=DecoderLM,
    architectures={"language": "GPT2LMHeadModel"},
    keys={
        "vocab_size": "vocab_size",
        "d_model": "n_embd",
        "n_layers": "n_layer",
        "n_heads": "n_head",
        "max_positions": "n_positions",
        "norm_eps": "layer_norm_epsilon",
        "activation": "activation_function",
        "ties_embeddings": "tie_word_embeddings",
    },
    rows=ROWS,
    choices=CLASSIC,
    defaults={
        "n_positions": 1024,
        "layer_norm_epsilon": 1e-5,
        "activation_function": "gelu_new",
        "tie_word_embeddings": True,
    },
    only={
        "add_cross_attention": False,
        "scale_attn_weights": True,
        "scale_attn_by_inverse_layer_idx": False,
    },
    read=read,
    write=write,
    # Some writers store the tied head a second time.
    copies={"lm_head.weight": "transformer.wte.weight"},
    prefix="transformer.",
    # Causal masks that old files carry.
    ignored=(".attn.bias", ".attn.masked_bias"),
    gguf=Gguf("gpt2"),
)
