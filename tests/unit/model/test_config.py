"""A configuration comes from outside: what no model can be must stop before memory is taken."""

from dataclasses import replace

import pytest

from lmwright.core.errors import ModelError


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("vocab_size", 0),
        ("d_model", -1),
        ("n_layers", 2**31),
        ("n_heads", 4.0),
        ("n_kv_heads", True),
        ("d_head", 2**20),
        ("d_ff", None),
        ("max_positions", 2**40),
        ("sliding_window", 0),
        ("sliding_window", 2.5),
        ("norm_eps", 0),
        ("norm_eps", float("nan")),
        ("ties_embeddings", "no"),
    ],
)
def test_a_value_out_of_bounds_is_named(tiny_config, name, value):
    with pytest.raises(ModelError, match=rf"{name} = {value!r}"):
        replace(tiny_config, **{name: value})


@pytest.mark.parametrize("field", ["bos_id", "pad_id", "forced_bos_id", "eos_ids"])
@pytest.mark.parametrize("value", ["</s>", -1, 300, True, 2.0, [2]], ids=str)
def test_token_ids_are_those_of_the_vocabulary(tiny_config, field, value):
    if value == 300 and field != "forced_bos_id":  # which nothing ever meets
        return
    with pytest.raises(ModelError, match=f"{field}: .* is the id of no token; .*300"):
        replace(tiny_config, **{field: (value,) if field == "eos_ids" else value})


def test_every_kv_head_must_serve_as_many_query_heads(tiny_config):
    with pytest.raises(ModelError, match=r"n_heads = 4 is no multiple of n_kv_heads = 3"):
        replace(tiny_config, n_kv_heads=3)


def test_rotation_needs_pairs_of_channels(tiny_config):
    with pytest.raises(ModelError, match="rotary embedding of 7 channels"):
        replace(tiny_config, d_head=7)
    assert replace(tiny_config, d_head=7, positions="learned").d_head == 7
