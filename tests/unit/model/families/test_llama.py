"""A family is two translations that must undo each other, and a table without gaps or doubles."""

from dataclasses import replace

import pytest
import torch

from lmwright.core.errors import ModelError
from lmwright.model.config import Rope
from lmwright.model.families import FAMILIES, family
from lmwright.model.families.family import expand
from lmwright.model.transformer import DecoderLM

ROPES = [
    Rope(),
    Rope(theta=5e5, scaling="linear", factor=2.0),
    Rope(theta=5e5, scaling="llama3", factor=8.0, low_freq_factor=2.0, high_freq_factor=5.0,
         original_max_positions=4096),
]  # fmt: skip


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("rope", ROPES, ids=lambda rope: rope.scaling)
@pytest.mark.parametrize("eos_ids", [(), (2,), (2, 5)])
def test_a_configuration_survives_the_way_out_and_in(tiny_config, name, rope, eos_ids):
    config = replace(
        tiny_config, family=name, rope=rope, eos_ids=eos_ids, bos_id=1, ties_embeddings=True,
        sliding_window=7 if name == "mistral" else None,
    )  # fmt: skip
    kind = family(name)
    assert kind.read_config({"model_type": name, **kind.write_config(config)}) == config


@pytest.mark.parametrize("name", FAMILIES)
def test_the_table_names_every_tensor_once(tiny_config, name):
    names = expand(family(name), tiny_config.n_layers)
    with torch.device("meta"):
        ours = set(DecoderLM(tiny_config).state_dict())
    for spelling in ("ours", "hugging_face", "gguf"):
        spelt = [getattr(entry, spelling) for entry in names]
        assert len(set(spelt)) == len(spelt) == len(ours)
    assert {entry.ours for entry in names} == ours


@pytest.mark.parametrize("key", ["rope_scaling", "rope_parameters"])
def test_both_spellings_of_rope_are_read(tiny_config, key):
    kind = family("llama")
    config = {"model_type": "llama", **kind.write_config(tiny_config)}
    del config["rope_parameters"], config["rope_scaling"]
    config |= {"rope_theta": 123.0, key: {"type": "linear", "factor": 2.0}}
    assert kind.read_config(config).rope == Rope(theta=123.0, scaling="linear", factor=2.0)


@pytest.mark.parametrize(
    ("key", "value"), [("hidden_act", "gelu"), ("attention_bias", True), ("mlp_bias", True)]
)
def test_what_the_code_does_not_do_is_refused(tiny_config, key, value):
    kind = family("llama")
    with pytest.raises(ModelError, match=key):
        kind.read_config({"model_type": "llama", **kind.write_config(tiny_config), key: value})
