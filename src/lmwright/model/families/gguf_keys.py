"""The configuration as GGUF's metadata spells it, for every family that llama.cpp knows."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from lmwright.core.errors import ModelError
from lmwright.formats.settings import Settings
from lmwright.model.config import ModelConfig, check_field
from lmwright.model.families.config_json import ACTIVATIONS
from lmwright.model.families.family import Family
from lmwright.model.families.rope import read_gguf_rope, write_gguf_rope

# Our field -> key behind "ARCHITECTURE.".
KEYS = {
    "d_model": "embedding_length",
    "n_layers": "block_count",
    "n_heads": "attention.head_count",
    "d_ff": "feed_forward_length",
    "max_positions": "context_length",
}
NORM_EPS = {"rms": "attention.layer_norm_rms_epsilon", "layer": "attention.layer_norm_epsilon"}
TOKENS = "tokenizer.ggml."


def read_gguf_config(
    family: Family, metadata: Mapping[str, Any], *, vocab_size: int, is_tied: bool
) -> ModelConfig:
    """Translate the metadata; what a file leaves out is what llama.cpp takes for it."""
    assert family.gguf is not None
    prefix = f"{family.gguf.architecture}."
    found = {k.removeprefix(prefix): v for k, v in metadata.items() if k.startswith(prefix)}
    keys = Settings(found, prefix=prefix)
    eps = NORM_EPS[family.choices.get("norm", "rms")]
    missing = [key for key in (*KEYS.values(), eps) if key not in found]
    if missing:
        raise ModelError(f"GGUF metadata: {prefix}{missing[0]} missing")
    values: dict[str, Any] = {name: found[key] for name, key in KEYS.items()}
    for name, key in KEYS.items():
        check_field(ModelConfig, name, values[name], key=prefix + key)
    for name, key in family.gguf.keys.items():
        values[name] = keys.number(key, family.gguf.defaults.get(name))
    n_heads = values["n_heads"]
    d_head = keys.whole("rope.dimension_count", values["d_model"] // n_heads)
    d_key = keys.whole("attention.key_length", d_head)
    if keys.whole("attention.value_length", d_head) != d_key:
        raise ModelError("GGUF metadata: keys and values of different widths are not built")
    roles = {k.removeprefix(TOKENS): v for k, v in metadata.items() if k.startswith(TOKENS)}
    tokens = Settings(roles, prefix=TOKENS)
    ends = (tokens.token(f"{role}_token_id") for role in ("eos", "eot"))
    config = ModelConfig(
        family=family.name,
        vocab_size=vocab_size,
        n_kv_heads=keys.whole("attention.head_count_kv", n_heads),
        d_head=d_key,
        norm_eps=keys.number(eps, 0.0),
        rope=read_gguf_rope(keys),
        activation=ACTIVATIONS[family.defaults[family.keys["activation"]]],  # type: ignore
        sliding_window=keys.whole("attention.sliding_window") or None,  # Phi-3 writes 0 for none
        ties_embeddings=is_tied,
        bos_id=tokens.token("bos_token_id"),
        eos_ids=tuple(dict.fromkeys(id_ for id_ in ends if id_ is not None)),
        pad_id=tokens.token("padding_token_id"),
        **values,
        **family.choices,
    )
    return replace(config, **family.gguf.read(config))


def write_gguf_config(family: Family, config: ModelConfig) -> dict[str, Any]:
    """Return the metadata from which llama.cpp builds the model, without the tokenizer's."""
    if family.gguf is None:
        raise ModelError(f"{family.name}: GGUF is written for decoders only")
    keys = {key: getattr(config, name) for name, key in KEYS.items()}
    keys |= {
        "attention.head_count_kv": config.n_kv_heads,
        "attention.key_length": config.d_head,
        "attention.value_length": config.d_head,
        NORM_EPS[config.norm]: float(config.norm_eps),
        "vocab_size": config.vocab_size,
    }
    if config.positions == "rotary":
        keys |= {"rope.dimension_count": config.d_head, **write_gguf_rope(config.rope)}
    if config.sliding_window is not None:
        keys["attention.sliding_window"] = config.sliding_window
        if config.sliding_window < config.max_positions and not family.gguf.has_windows:
            raise ModelError(
                f"sliding_window = {config.sliding_window}: llama.cpp builds no windows for "
                f"{family.gguf.architecture!r}, so that longer texts would come out differently; "
                "write a Hugging Face folder"
            )
    own = {key: getattr(config, name) for name, key in family.gguf.keys.items()}
    keys |= {key: float(value) for key, value in own.items() if value is not None}
    metadata = {f"{family.gguf.architecture}.{key}": value for key, value in keys.items()}
    again = read_gguf_config(
        family, metadata, vocab_size=config.vocab_size, is_tied=config.ties_embeddings
    )
    _check_kept(config, again)
    return {"general.architecture": family.gguf.architecture, **metadata}


def _check_kept(config: ModelConfig, again: ModelConfig) -> None:
    """Refuse a model with a choice that the format cannot say: llama.cpp would compute another."""
    told_elsewhere = {"family", "bos_id", "eos_ids", "pad_id", "local_layers", "generation"}
    if config.rope.scaling == "llama3":  # a tensor tells it, if it is that of Llama 3.1
        rope = replace(again.rope, scaling="llama3", factor=config.rope.factor)
        again = replace(again, rope=rope)
    for name, value in vars(config).items():
        if name in told_elsewhere:
            continue
        other = getattr(again, name)
        is_close = isinstance(value, float) and abs(value - (other or 0)) <= 1e-6 * abs(value)
        if other != value and not is_close:
            raise ModelError(
                f"{name} = {value!r} cannot be said in GGUF ({other!r} would be read again); "
                "write a Hugging Face folder"
            )
    layers = range(config.n_layers)
    if [config.is_local(i) for i in layers] != [again.is_local(i) for i in layers]:
        raise ModelError("layers with and without a window: llama.cpp has another order of them")
