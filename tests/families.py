"""The models that parity is shown with: tiny and random, one for each choice that a family has.

Weights are large, norms are no ones and biases no zeros, so that a wrong position, mask or norm
moves the logits. tests/differences.py compares them; benchmarks/parity.py prints what it finds.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from lmwright.model.config import Rope

# Of the largest difference of two logits, in fp32; they spread by about 1 to 4.
LIMIT = 1e-4
VOCAB_SIZE = 300


@dataclass(frozen=True)
class Variant:
    """A model of transformers, and how our configuration must show what is special about it."""

    family: str
    # The class, without "Config" and with what comes behind it.
    kind: str
    head: str
    settings: Mapping[str, Any]
    # Our field -> the value that it must have.
    shows: Mapping[str, Any]
    # Our fields as they would be without it: the logits must become others.
    undone: Mapping[str, Any] = field(default_factory=dict)
    # Of a decoder: what the error says if GGUF has no words for it.
    no_gguf: str | None = None
    # transformers 5 builds each T5 with a tied head, and yet opens the files that have their own.
    own_head: bool = False


SIZES = {
    "vocab_size": VOCAB_SIZE, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 128,
    "initializer_range": 0.3, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
GPT2_SIZES = {
    "vocab_size": VOCAB_SIZE, "n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 128,
    "initializer_range": 0.3, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
# Original contexts of 32, so that all bands of frequencies occur among four or eight, and texts of
# 40 tokens are long ones.
ROPES: dict[str, dict[str, Any]] = {
    "linear": {"rope_type": "linear", "rope_theta": 5000.0, "factor": 3.0},
    "dynamic": {"rope_type": "dynamic", "rope_theta": 10_000.0, "factor": 3.0},
    "llama3": {
        "rope_type": "llama3", "rope_theta": 10_000.0, "factor": 8.0, "low_freq_factor": 1.0,
        "high_freq_factor": 4.0, "original_max_position_embeddings": 32,
    },
    "yarn": {
        "rope_type": "yarn", "rope_theta": 10_000.0, "factor": 4.0,
        "original_max_position_embeddings": 32,
    },
    "longrope": {
        "rope_type": "longrope", "rope_theta": 10_000.0, "short_factor": [1.0, 1.1, 1.2, 1.3],
        "long_factor": [1.5, 2.0, 3.0, 4.0], "original_max_position_embeddings": 32,
    },
}  # fmt: skip
LLAMA_31 = {**ROPES["llama3"], "rope_theta": 5e5, "original_max_position_embeddings": 8192}
SHARP_YARN = {**ROPES["yarn"], "attention_factor": 1.5, "beta_fast": 16.0, "beta_slow": 2.0}
PLAIN: dict[str, Any] = {"rope": Rope()}


def _llama(settings: Mapping[str, Any], shows: Mapping[str, Any], **more: Any) -> Variant:
    return Variant("llama", "Llama", "ForCausalLM", {**SIZES, **settings}, shows, **more)


def _qwen(
    generation: int, settings: Mapping[str, Any], shows: Mapping[str, Any], **more: Any
) -> Variant:
    names = f"qwen{generation}", f"Qwen{generation}"
    return Variant(*names, "ForCausalLM", {**SIZES, **settings}, shows, **more)


def _gemma2(settings: Mapping[str, Any], shows: Mapping[str, Any], **more: Any) -> Variant:
    # Caps so low, and a window so short, that they bite.
    sizes = {**SIZES, "num_hidden_layers": 4, "head_dim": 16, "sliding_window": 5}
    caps = {"attn_logit_softcapping": 5.0, "final_logit_softcapping": 4.0}
    scale = {"query_pre_attn_scalar": 16}
    merged = {**sizes, **caps, **scale, **settings}
    return Variant("gemma2", "Gemma2", "ForCausalLM", merged, shows, **more)


def _gemma3(settings: Mapping[str, Any], shows: Mapping[str, Any], **more: Any) -> Variant:
    sizes = {**SIZES, "num_hidden_layers": 7, "head_dim": 16, "sliding_window": 5}
    merged = {**sizes, "query_pre_attn_scalar": 16, "initializer_range": 0.2, **settings}
    return Variant("gemma3_text", "Gemma3Text", "ForCausalLM", merged, shows, **more)


def _phi3(settings: Mapping[str, Any], shows: Mapping[str, Any], **more: Any) -> Variant:
    return Variant("phi3", "Phi3", "ForCausalLM", {**SIZES, **settings}, shows, **more)


LONG = {"rope_parameters": ROPES["longrope"], "original_max_position_embeddings": 32}
WINDOWS = {"use_sliding_window": True, "sliding_window": 5, "max_window_layers": 2}
SOME_LAYERS = {"local_layers": (False, False, True)}
MORE_LAYERS = {"local_layers": (False, True, True)}
DECODERS: dict[str, Variant] = {
    "gpt2": Variant(
        "gpt2",
        "GPT2",
        "LMHeadModel",
        GPT2_SIZES,
        {"ties_embeddings": True, "d_ff": 128},
        {"activation": "relu"},
    ),
    "gpt2-untied": Variant(
        "gpt2",
        "GPT2",
        "LMHeadModel",
        {**GPT2_SIZES, "n_inner": 40, "tie_word_embeddings": False},
        {"ties_embeddings": False, "d_ff": 40},
    ),
    "llama": _llama(
        {"tie_word_embeddings": False},
        {"ties_embeddings": False, "n_kv_heads": 2},
        undone={"norm_eps": 0.1},
    ),
    "llama-tied": _llama({"tie_word_embeddings": True}, {"ties_embeddings": True}),
    "llama-no-groups": _llama({"num_key_value_heads": None}, {"n_kv_heads": 4}),
    "llama-one-kv-head": _llama({"num_key_value_heads": 1}, {"n_kv_heads": 1}),
    "llama-wide-heads": _llama({"head_dim": 24}, {"d_head": 24}),
    "llama-gelu": _llama(
        {"hidden_act": "gelu"},
        {"activation": "gelu"},
        undone={"activation": "silu"},
        no_gguf="activation",
    ),
    "llama-linear": _llama(
        {"rope_parameters": ROPES["linear"]}, {"rope.scaling": "linear"}, undone=PLAIN
    ),
    "llama-dynamic": _llama(
        {"rope_parameters": ROPES["dynamic"], "max_position_embeddings": 20},
        {"rope.scaling": "dynamic"},
        undone=PLAIN,
        no_gguf="dynamic",
    ),
    "llama-llama3": _llama(
        {"rope_parameters": ROPES["llama3"]},
        {"rope.scaling": "llama3"},
        undone=PLAIN,
        no_gguf="original_max_positions=32",
    ),
    # As it really is; its bands lie beyond 40 tokens.
    "llama-3.1": _llama({"rope_parameters": LLAMA_31}, {"rope.original_max_positions": 8192}),
    "llama-yarn": _llama(
        {"rope_parameters": ROPES["yarn"]}, {"rope.scaling": "yarn"}, undone=PLAIN
    ),
    "llama-sharp-yarn": _llama(
        {"rope_parameters": SHARP_YARN},
        {"rope.attention_factor": 1.5},
        undone=PLAIN,
        no_gguf="beta_fast",
    ),
    "mistral": Variant(
        "mistral",
        "Mistral",
        "ForCausalLM",
        {**SIZES, "sliding_window": None},
        {"sliding_window": None},
    ),
    "mistral-window": Variant(
        "mistral",
        "Mistral",
        "ForCausalLM",
        {**SIZES, "sliding_window": 5, "head_dim": 16},
        {"sliding_window": 5},
        {"sliding_window": 6},
        no_gguf="no windows",
    ),
    "qwen2": _qwen(2, {}, {"qkv_bias": True, "sliding_window": None}),
    "qwen2-windows": _qwen(2, WINDOWS, SOME_LAYERS, undone=MORE_LAYERS, no_gguf="no windows"),
    "qwen3": _qwen(
        3, {"head_dim": 16}, {"qk_norm": "head", "d_head": 16}, undone={"norm_eps": 0.1}
    ),
    "qwen3-windows": _qwen(3, WINDOWS, SOME_LAYERS, undone=MORE_LAYERS, no_gguf="no windows"),
    "gemma2": _gemma2(
        {},
        {"local_layers": (True, False, True, False), "logit_softcap": 4.0},
        undone={"attention_softcap": None},
    ),
    "gemma2-scale": _gemma2(
        {"query_pre_attn_scalar": 24},
        {"attention_scale": 24**-0.5},
        undone={"attention_scale": 0.25},
        no_gguf="attention_scale",
    ),
    "gemma2-no-caps": _gemma2(
        {
            "attn_logit_softcapping": None,
            "final_logit_softcapping": None,
            "initializer_range": 0.15,
        },
        {"attention_softcap": None, "logit_softcap": None},
        undone={"logit_softcap": 30.0},
        no_gguf="softcap = None",
    ),
    "gemma3": _gemma3(
        {},
        {"local_layers": (True,) * 5 + (False, True), "local_rope.theta": 1e4, "rope.theta": 1e6},
        undone={"local_rope": None},
    ),
    "gemma3-linear": _gemma3(
        {
            "rope_parameters": {
                "full_attention": {"rope_type": "linear", "rope_theta": 5e4, "factor": 8.0},
                "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
            }
        },
        {"rope.factor": 8.0, "local_rope.factor": 1.0},
        undone={"rope": Rope(theta=5e4)},
    ),
    "phi3": _phi3({}, {"sliding_window": None}),
    "phi3-window": _phi3(
        {"sliding_window": 6},
        {"sliding_window": 6},
        undone={"sliding_window": 5},
        no_gguf="no windows",
    ),
    "phi3-longrope": _phi3(LONG, {"rope.scaling": "longrope"}, undone=PLAIN, no_gguf="longrope"),
    "phi3-partial": _phi3(
        {
            **LONG,
            "hidden_size": 64,
            "initializer_range": 0.2,
            "rope_parameters": {**ROPES["longrope"], "partial_rotary_factor": 0.5},
        },
        {"rope.fraction": 0.5},
        undone={"rope": Rope(fraction=0.5)},
        no_gguf="longrope",
    ),
    "olmo2": Variant(
        "olmo2",
        "Olmo2",
        "ForCausalLM",
        SIZES,
        {"qk_norm": "width", "norm_places": ("out",)},
        {"norm_eps": 0.1},
    ),
}

BERT_SIZES = {
    "vocab_size": VOCAB_SIZE, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3,
    "num_attention_heads": 4, "max_position_embeddings": 64, "initializer_range": 0.3,
    "pad_token_id": 0,
}  # fmt: skip
ROBERTA_SIZES = {
    **BERT_SIZES,
    "pad_token_id": 1,
    "bos_token_id": 0,
    "eos_token_id": 2,
    "type_vocab_size": 1,
}
DISTILBERT_SIZES = {
    "vocab_size": VOCAB_SIZE, "dim": 32, "hidden_dim": 48, "n_layers": 3, "n_heads": 4,
    "max_position_embeddings": 64, "initializer_range": 0.3, "pad_token_id": 0,
}  # fmt: skip
THREE = {
    "num_labels": 3,
    "id2label": {0: "good", 1: "bad", 2: "ugly"},
    "label2id": {"good": 0, "bad": 1, "ugly": 2},
}
HEADS = {
    "masked": ("ForMaskedLM", {}, {"head": "masked", "ties_embeddings": True}),
    "masked-untied": (
        "ForMaskedLM",
        {"tie_word_embeddings": False},
        {"head": "masked", "ties_embeddings": False},
    ),
    "pretraining": ("ForPreTraining", {}, {"head": "pretraining"}),
    "sequence": (
        "ForSequenceClassification",
        THREE,
        {"head": "sequence", "labels": ("good", "bad", "ugly"), "problem": "single_label"},
    ),
    "regression": (
        "ForSequenceClassification",
        {"num_labels": 1},
        {"labels": ("LABEL_0",), "problem": "regression"},
    ),
    "multi-label": (
        "ForSequenceClassification",
        {**THREE, "problem_type": "multi_label_classification"},
        {"problem": "multi_label"},
    ),
    "tokens": ("ForTokenClassification", THREE, {"head": "tokens"}),
    "none": ("Model", {}, {"head": "none"}),
}


MISSING_HEADS = {
    # An own matrix with two biases, of which one is not used, is refused.
    "bert": ("masked-untied",),
    "roberta": ("masked-untied", "pretraining"),
    "distilbert": ("pretraining",),
}


def _encoders(family: str, kind: str, settings: Mapping[str, Any]) -> dict[str, Variant]:
    undone = {"norm_eps": 0.1}
    return {
        f"{family}-{name}": Variant(family, kind, head, {**settings, **own}, shows, undone)
        for name, (head, own, shows) in HEADS.items()
        if name not in MISSING_HEADS[family]
    }


ENCODERS: dict[str, Variant] = {
    **_encoders("bert", "Bert", BERT_SIZES),
    **_encoders("roberta", "Roberta", ROBERTA_SIZES),
    **_encoders("distilbert", "DistilBert", DISTILBERT_SIZES),
}

# So few and so near that the logarithmic ones and the last one are reached.
T5_SIZES = {
    "vocab_size": VOCAB_SIZE, "d_model": 32, "d_kv": 12, "d_ff": 48, "num_layers": 3,
    "num_decoder_layers": 2, "num_heads": 4, "decoder_start_token_id": 0,
    "relative_attention_num_buckets": 8, "relative_attention_max_distance": 20,
}  # fmt: skip
# Six heads do not divide the width, as in flan-t5-small: d_kv says theirs.
T5_GATED = {
    **T5_SIZES,
    "num_heads": 6,
    "initializer_factor": 0.7,
    "feed_forward_proj": "gated-gelu",
    "tie_word_embeddings": False,
}
BART_SIZES = {
    "vocab_size": VOCAB_SIZE, "d_model": 32, "encoder_layers": 3, "decoder_layers": 2,
    "encoder_ffn_dim": 48, "decoder_ffn_dim": 48, "encoder_attention_heads": 4,
    "decoder_attention_heads": 4, "max_position_embeddings": 64, "init_std": 0.3,
}  # fmt: skip
MARIAN_SIZES = {
    **BART_SIZES,
    "pad_token_id": 299,
    "decoder_start_token_id": 299,
    "eos_token_id": 0,
    "activation_function": "swish",
    "scale_embedding": True,
}
NEAR = {"relative_max_distance": 128}
UNSCALED = {"embedding_scale": 1.0}
SCALED = {"embedding_scale": 32**0.5}
ENCODER_DECODERS: dict[str, Variant] = {
    "t5": Variant(
        "t5",
        "T5",
        "ForConditionalGeneration",
        {**T5_SIZES, "initializer_factor": 3.0},
        {"ties_embeddings": True, "is_gated": False, "n_decoder_layers": 2},
        NEAR,
    ),
    "t5-v1.1": Variant(
        "t5",
        "T5",
        "ForConditionalGeneration",
        T5_GATED,
        {"ties_embeddings": False, "activation": "gelu_tanh", "head_scale": 1.0},
        NEAR,
        own_head=True,
    ),
    "t5-v1.1-tied": Variant(
        "t5",
        "T5",
        "ForConditionalGeneration",
        T5_GATED,
        {"ties_embeddings": True, "head_scale": 1.0},
        NEAR,
    ),
    "bart": Variant(
        "bart",
        "Bart",
        "ForConditionalGeneration",
        BART_SIZES,
        {"norm_places": ("sum",), "embedding_scale": 1.0},
        SCALED,
    ),
    "mbart": Variant(
        "mbart",
        "MBart",
        "ForConditionalGeneration",
        {**BART_SIZES, "scale_embedding": True},
        {"norm_places": ("in",), "has_final_norm": True},
        UNSCALED,
    ),
    "marian": Variant(
        "marian",
        "Marian",
        "MTModel",
        MARIAN_SIZES,
        {"positions": "sinusoidal", "activation": "silu", "decoder_start_id": 299},
        UNSCALED,
    ),
}
VARIANTS = {**DECODERS, **ENCODERS, **ENCODER_DECODERS}
