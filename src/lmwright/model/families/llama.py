"""Llama 2 and 3, SmolLM2, Mistral: RMSNorm, rotary positions, grouped heads, SwiGLU."""

from typing import Any

from lmwright.core.errors import ModelError
from lmwright.model.config import ModelConfig, Rope
from lmwright.model.families.family import Family, TensorName

TENSORS = tuple(
    TensorName(*names)
    for names in (
        ("embedding.weight", "model.embed_tokens.weight", "token_embd.weight"),
        ("norm.weight", "model.norm.weight", "output_norm.weight"),
        ("head.weight", "lm_head.weight", "output.weight"),
        *(
            (f"blocks.{{i}}.{ours}.weight", f"model.layers.{{i}}.{theirs}.weight",
             f"blk.{{i}}.{gguf}.weight")
            for ours, theirs, gguf in (
                ("attention_norm", "input_layernorm", "attn_norm"),
                ("attention.q", "self_attn.q_proj", "attn_q"),
                ("attention.k", "self_attn.k_proj", "attn_k"),
                ("attention.v", "self_attn.v_proj", "attn_v"),
                ("attention.out", "self_attn.o_proj", "attn_output"),
                ("mlp_norm", "post_attention_layernorm", "ffn_norm"),
                ("mlp.gate", "mlp.gate_proj", "ffn_gate"),
                ("mlp.up", "mlp.up_proj", "ffn_up"),
                ("mlp.down", "mlp.down_proj", "ffn_down"),
            )
        ),
    )
)  # fmt: skip


def read_config(config: dict[str, Any]) -> ModelConfig:
    """Translate config.json; a setting that this family's code does not cover is an error."""
    for key, only in (("hidden_act", "silu"), ("attention_bias", False), ("mlp_bias", False)):
        if config.get(key, only) != only:
            raise ModelError(f"config.json: {key} = {config[key]!r}; only {only!r} is supported")
    missing = [key for key in REQUIRED if key not in config]
    if missing:
        raise ModelError(f"config.json: {', '.join(missing)} missing")
    n_heads = config["num_attention_heads"]
    if not isinstance(n_heads, int) or n_heads < 1:
        raise ModelError(f"config.json: num_attention_heads = {n_heads!r}")
    n_kv_heads = config.get("num_key_value_heads")
    eos = config.get("eos_token_id")
    return ModelConfig(
        family=config["model_type"],
        vocab_size=config["vocab_size"],
        d_model=config["hidden_size"],
        n_layers=config["num_hidden_layers"],
        n_heads=n_heads,
        n_kv_heads=n_heads if n_kv_heads is None else n_kv_heads,
        d_head=config.get("head_dim") or config["hidden_size"] // n_heads,
        d_ff=config["intermediate_size"],
        max_positions=config.get("max_position_embeddings", 2048),
        norm_eps=config.get("rms_norm_eps", 1e-6),
        rope=read_rope(config),
        sliding_window=config.get("sliding_window"),
        ties_embeddings=config.get("tie_word_embeddings", False),
        bos_id=config.get("bos_token_id"),
        eos_ids=() if eos is None else tuple(eos) if isinstance(eos, list) else (eos,),
        pad_id=config.get("pad_token_id"),
    )


REQUIRED = (
    "model_type", "vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads",
    "intermediate_size",
)  # fmt: skip


def read_rope(config: dict[str, Any]) -> Rope:
    """Read both spellings: `rope_theta` + `rope_scaling`, and transformers 5's one table."""
    table = config.get("rope_parameters") or config.get("rope_scaling") or {}
    kind = table.get("rope_type", table.get("type", "default"))
    if kind not in ("default", "linear", "llama3"):
        raise ModelError(f"config.json: rope_type {kind!r}; known: default, linear, llama3")
    return Rope(
        theta=float(table.get("rope_theta", config.get("rope_theta", 10_000.0))),
        scaling="none" if kind == "default" else kind,
        factor=float(table.get("factor", 1.0)),
        low_freq_factor=float(table.get("low_freq_factor", 1.0)),
        high_freq_factor=float(table.get("high_freq_factor", 4.0)),
        original_max_positions=int(table.get("original_max_position_embeddings", 8192)),
    )


def write_config(config: ModelConfig) -> dict[str, Any]:
    """Write the keys of config.json, in the spelling that old and new transformers read."""
    rope = config.rope
    scaling: dict[str, Any] = {"rope_type": "default"}
    if rope.scaling != "none":
        scaling = {"rope_type": rope.scaling, "factor": rope.factor}
    if rope.scaling == "llama3":
        scaling |= {
            "low_freq_factor": rope.low_freq_factor,
            "high_freq_factor": rope.high_freq_factor,
            "original_max_position_embeddings": rope.original_max_positions,
        }
    eos = list(config.eos_ids)
    return {
        "vocab_size": config.vocab_size,
        "hidden_size": config.d_model,
        "num_hidden_layers": config.n_layers,
        "num_attention_heads": config.n_heads,
        "num_key_value_heads": config.n_kv_heads,
        "head_dim": config.d_head,
        "intermediate_size": config.d_ff,
        "max_position_embeddings": config.max_positions,
        "rms_norm_eps": config.norm_eps,
        "hidden_act": "silu",
        "rope_theta": rope.theta,
        "rope_scaling": scaling if rope.scaling != "none" else None,
        "rope_parameters": {**scaling, "rope_theta": rope.theta},
        "tie_word_embeddings": config.ties_embeddings,
        "bos_token_id": config.bos_id,
        "eos_token_id": eos[0] if len(eos) == 1 else eos or None,
        "pad_token_id": config.pad_id,
        **({"sliding_window": config.sliding_window} if config.family == "mistral" else {}),
    }


def read_gguf_config(metadata: dict[str, Any]) -> ModelConfig:
    """Translate the metadata of a GGUF whose architecture is `llama`."""
    scaling = metadata.get("llama.rope.scaling.type", "none")
    if scaling not in ("none", "linear"):
        raise ModelError(f"llama.rope.scaling.type {scaling!r}; known: none, linear")
    try:
        d_model = metadata["llama.embedding_length"]
        n_heads = metadata["llama.attention.head_count"]
        return ModelConfig(
            family="llama",
            vocab_size=len(metadata["tokenizer.ggml.tokens"]),
            d_model=d_model,
            n_layers=metadata["llama.block_count"],
            n_heads=n_heads,
            n_kv_heads=metadata.get("llama.attention.head_count_kv", n_heads),
            d_head=metadata.get("llama.rope.dimension_count", d_model // max(n_heads, 1)),
            d_ff=metadata["llama.feed_forward_length"],
            max_positions=metadata["llama.context_length"],
            norm_eps=metadata["llama.attention.layer_norm_rms_epsilon"],
            rope=Rope(
                theta=metadata.get("llama.rope.freq_base", 10_000.0),
                scaling=scaling,
                factor=metadata.get("llama.rope.scaling.factor", 1.0),
            ),
            bos_id=metadata.get("tokenizer.ggml.bos_token_id"),
            eos_ids=tuple(
                metadata[key]
                for key in ("tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id")
                if key in metadata
            ),
            pad_id=metadata.get("tokenizer.ggml.padding_token_id"),
        )
    except KeyError as error:
        raise ModelError(f"GGUF metadata: {error.args[0]} missing") from None


LLAMA = Family(
    "llama", "LlamaForCausalLM", read_config, write_config, read_gguf_config, TENSORS,
    ignored=("rotary_emb.inv_freq", "rope_freqs.weight"),
)  # fmt: skip
MISTRAL = Family(
    "mistral", "MistralForCausalLM", read_config, write_config, read_gguf_config, TENSORS,
    ignored=("rotary_emb.inv_freq",),
)  # fmt: skip
