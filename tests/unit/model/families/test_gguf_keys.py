"""What a GGUF's metadata says must be the model: no key is guessed, none said that is not true."""

from dataclasses import replace

import pytest

from lmwright.core.errors import ModelError
from lmwright.model.config import Rope
from lmwright.model.families import FAMILIES
from lmwright.model.families.config_json import model_config
from lmwright.model.families.gguf_keys import read_gguf_config, write_gguf_config

WRITTEN = [name for name, kind in FAMILIES.items() if kind.gguf is not None]
SIZES = {
    "vocab_size": 50, "d_model": 16, "n_layers": 7, "n_heads": 4, "n_kv_heads": 2, "d_head": 4,
    "d_ff": 24, "max_positions": 40, "norm_eps": 0.125,
}  # fmt: skip


def config_for(name, **more):
    kind = FAMILIES[name]
    settings = {key: SIZES[ours] for ours, key in kind.keys.items() if ours in SIZES}
    scale = {"query_pre_attn_scalar": 4} if name.startswith("gemma") else {}
    return model_config(kind, {**settings, **scale, **more})


def again(name, metadata, config):
    return read_gguf_config(
        FAMILIES[name], metadata, vocab_size=config.vocab_size, is_tied=config.ties_embeddings
    )


def without_roles(config):
    return replace(config, bos_id=None, eos_ids=(), pad_id=None)


@pytest.mark.parametrize("name", WRITTEN)
def test_a_configuration_survives_the_way_out_and_in(name):
    config = config_for(name)
    metadata = write_gguf_config(FAMILIES[name], config)
    architecture = FAMILIES[name].gguf.architecture
    assert metadata["general.architecture"] == architecture
    assert metadata[f"{architecture}.block_count"] == 7
    assert again(name, metadata, config) == without_roles(config)


def test_tokens_with_a_role_are_those_of_the_tokenizer():
    config = config_for("llama")
    tokens = {"bos": 1, "eos": 2, "eot": 3, "padding": 4}
    metadata = write_gguf_config(FAMILIES["llama"], config)
    metadata |= {f"tokenizer.ggml.{role}_token_id": id_ for role, id_ in tokens.items()}
    found = again("llama", metadata, config)
    assert (found.bos_id, found.eos_ids, found.pad_id) == (1, (2, 3), 4)


@pytest.mark.parametrize("key", ["embedding_length", "block_count", "context_length"])
@pytest.mark.parametrize("name", WRITTEN)
def test_a_key_that_is_missing_is_named(name, key):
    config = config_for(name)
    metadata = write_gguf_config(FAMILIES[name], config)
    full = f"{FAMILIES[name].gguf.architecture}.{key}"
    del metadata[full]
    with pytest.raises(ModelError, match=full):
        again(name, metadata, config)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("attention.head_count", 0),
        ("attention.head_count", [4, 4]),
        ("attention.head_count", "4"),
        ("attention.head_count_kv", 3),
        ("attention.value_length", 2),
        ("context_length", 0),
    ],
)
def test_values_that_make_no_model_are_refused(key, value):
    config = config_for("llama")
    metadata = write_gguf_config(FAMILIES["llama"], config)
    with pytest.raises(ModelError):
        again("llama", {**metadata, f"llama.{key}": value}, config)


def test_a_window_that_no_text_exceeds_is_said():
    config = replace(config_for("mistral"), sliding_window=40)
    metadata = write_gguf_config(FAMILIES["mistral"], config)
    assert again("mistral", metadata, config) == without_roles(config)


def test_the_caps_of_gemma_2_need_not_be_said():
    """llama.cpp takes 50 and 30 for a file that names none."""
    config = config_for("gemma2")
    metadata = write_gguf_config(FAMILIES["gemma2"], config)
    said = {key: value for key, value in metadata.items() if "softcapping" not in key}
    assert len(said) == len(metadata) - 2
    found = again("gemma2", said, config)
    assert (found.attention_softcap, found.logit_softcap) == (50.0, 30.0)


def test_a_window_of_nothing_is_none():
    """Phi-3's files say 0."""
    config = config_for("phi3")
    metadata = write_gguf_config(FAMILIES["phi3"], config)
    metadata["phi3.attention.sliding_window"] = 0
    assert again("phi3", metadata, config).sliding_window is None


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("llama", {"activation": "gelu"}, "activation = 'gelu'"),
        ("llama", {"attention_scale": 0.3}, "attention_scale = 0.3"),
        ("llama", {"qkv_bias": True}, "qkv_bias = True"),
        ("llama", {"rope": Rope(scaling="llama3", factor=8.0, low_freq_factor=2.0)}, "rope"),
        ("gemma3_text", {"local_rope": Rope(theta=5.0)}, "local_rope"),
        ("gemma2", {"local_layers": (True,) * 7}, "another order"),
        ("gemma2", {"embedding_scale": 2.0}, "embedding_scale = 2.0"),
        ("gemma2", {"logit_softcap": None}, "logit_softcap = None"),
        ("qwen2", {"sliding_window": 4}, "no windows for 'qwen2'"),
        ("mistral", {"sliding_window": 39}, "no windows for 'llama'"),
    ],
)
def test_what_the_format_cannot_say_is_refused(name, change, message):
    config = replace(config_for(name), **change)
    with pytest.raises(ModelError, match=message):
        write_gguf_config(FAMILIES[name], config)


def test_the_scaling_of_llama_31_is_told_by_a_tensor():
    rope = Rope(theta=5e5, scaling="llama3", factor=8.0)
    metadata = write_gguf_config(FAMILIES["llama"], replace(config_for("llama"), rope=rope))
    assert not [key for key in metadata if "scaling" in key]


@pytest.mark.parametrize("name", [name for name in FAMILIES if name not in WRITTEN])
def test_only_decoders_are_written(name):
    kind = FAMILIES[name]
    more = {kind.keys["n_decoder_layers"]: 2} if "n_decoder_layers" in kind.keys else {}
    if name == "marian":  # whose usual ones lie beyond so small a vocabulary
        more |= {"pad_token_id": 1, "decoder_start_token_id": 1}
    with pytest.raises(ModelError, match=f"{name}: GGUF is written for decoders only"):
        write_gguf_config(kind, config_for(name, **more))
