"""A rope that is read wrongly moves every token: each spelling, each number, each contradiction."""

import math
from dataclasses import replace

import pytest

from lmwright.core.errors import ModelError
from lmwright.formats.settings import Settings
from lmwright.model.config import ModelConfig, Rope
from lmwright.model.families.rope import (
    read_gguf_rope,
    read_rope,
    rope_settings,
    write_gguf_rope,
    write_rope,
)

LONG = {"short_factor": [1.0, 1.5], "long_factor": [2.0, 3.0]}
TABLES = {
    "default": {},
    "linear": {"factor": 2.0},
    "dynamic": {"factor": 2.0},
    "llama3": {
        "factor": 8.0,
        "low_freq_factor": 2.0,
        "high_freq_factor": 5.0,
        "original_max_position_embeddings": 4096,
    },
    "yarn": {
        "factor": 4.0,
        "beta_fast": 16.0,
        "beta_slow": 2.0,
        "attention_factor": 1.25,
        "original_max_position_embeddings": 512,
    },
    "longrope": {
        **LONG,
        "factor": 4.0,
        "attention_factor": 1.5,
        "original_max_position_embeddings": 512,
    },
}
ROPES = {
    "default": Rope(theta=123.0),
    "linear": Rope(theta=123.0, scaling="linear", factor=2.0, original_max_positions=2048),
    "dynamic": Rope(theta=123.0, scaling="dynamic", factor=2.0, original_max_positions=2048),
    "llama3": Rope(
        theta=123.0,
        scaling="llama3",
        factor=8.0,
        low_freq_factor=2.0,
        high_freq_factor=5.0,
        original_max_positions=4096,
    ),
    "yarn": Rope(
        theta=123.0,
        scaling="yarn",
        factor=4.0,
        beta_fast=16.0,
        beta_slow=2.0,
        attention_factor=1.25,
        original_max_positions=512,
    ),
    "longrope": Rope(
        theta=123.0,
        scaling="longrope",
        factor=4.0,
        short_factors=(1.0, 1.5),
        long_factors=(2.0, 3.0),
        attention_factor=1.5,
        original_max_positions=512,
    ),
}


def config_with(rope):
    return ModelConfig(
        family="llama", vocab_size=9, d_model=16, n_layers=1, n_heads=4, n_kv_heads=4, d_head=4,
        d_ff=8, max_positions=2048, rope=rope,
    )  # fmt: skip


@pytest.mark.parametrize("kind", TABLES)
def test_the_spelling_of_transformers_5_is_read(kind):
    table = {"rope_type": kind, "rope_theta": 123.0, **TABLES[kind]}
    assert read_rope({"rope_parameters": table}) == ROPES[kind]


@pytest.mark.parametrize("kind", TABLES)
@pytest.mark.parametrize("key", ["type", "rope_type"])
def test_the_spelling_before_is_read(kind, key):
    scaling = None if kind == "default" else {key: kind, **TABLES[kind]}
    assert read_rope({"rope_theta": 123.0, "rope_scaling": scaling}) == ROPES[kind]


def test_su_is_the_first_name_of_longrope():
    table = {"type": "su", **TABLES["longrope"]}
    assert read_rope({"rope_theta": 123.0, "rope_scaling": table}) == ROPES["longrope"]


@pytest.mark.parametrize("kind", ROPES)
@pytest.mark.parametrize("fraction", [1.0, 0.5])
def test_what_is_written_is_read_again_in_either_spelling(kind, fraction):
    rope = ROPES[kind]
    if fraction != 1:
        halves = {"short_factors": (1.5,), "long_factors": (2.5,)} if kind == "longrope" else {}
        rope = replace(rope, fraction=fraction, **halves)
    settings = rope_settings(config_with(rope))
    assert read_rope(settings) == rope
    assert read_rope({**settings, "rope_parameters": None}) == rope
    assert read_rope({**settings, "rope_scaling": None}) == rope


def test_a_local_rope_is_written_as_a_table_of_its_own():
    local = ROPES["linear"]
    assert read_rope({}, write_rope(local)) == local


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        ({"rope_type": "yarn", "factor": 4.0}, 0.1 * math.log(4) + 1),
        ({"rope_type": "yarn", "factor": 0.5}, 1.0),
        (
            {"rope_type": "yarn", "factor": 4.0, "mscale": 2.0, "mscale_all_dim": 0.5},
            (0.2 * math.log(4) + 1) / (0.05 * math.log(4) + 1),
        ),
        ({"rope_type": "longrope", **LONG}, math.sqrt(1 + math.log(4) / math.log(512))),
        ({"rope_type": "longrope", **LONG, "factor": 1.0}, 1.0),
        ({"rope_type": "linear", "factor": 4.0}, 1.0),
    ],
)
def test_the_factor_of_attention_where_none_is_given(table, expected):
    settings = {"max_position_embeddings": 2048, "original_max_position_embeddings": 512}
    found = read_rope(settings, table)
    assert found.attention_factor == pytest.approx(expected)
    assert found.factor == table.get("factor", 4.0)


def test_phi_3_gives_the_original_context_beside_the_table():
    table = {key: v for key, v in TABLES["longrope"].items() if "original" not in key}
    settings = {"original_max_position_embeddings": 512, "rope_theta": 123.0}
    assert read_rope(settings, {"type": "longrope", **table}) == ROPES["longrope"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rope_parameters": {"rope_type": "spiral"}}, "rope_type 'spiral'; known: default"),
        ({"rope_parameters": {"rope_type": ["yarn"]}}, "rope_type"),
        ({"rope_scaling": {"type": "mrope", "mrope_section": [1]}}, "mrope"),
        ({"rope_scaling": {"type": "default", "mrope_section": [1]}}, "mrope_section"),
        ({"rope_scaling": {"type": "linear", "beta_fast": 3, "factor": 2}}, "beta_fast"),
        ({"rope_scaling": {"type": "yarn", "factor": 2, "truncate": False}}, "truncate"),
        ({"rope_scaling": {"type": "linear"}}, "'linear' without a factor"),
        ({"rope_scaling": {"type": "llama3"}}, "'llama3' without a factor"),
        ({"rope_scaling": {"type": "linear", "factor": "2"}}, "factor = '2'"),
        ({"rope_scaling": {"type": "linear", "factor": True}}, "factor = True"),
        ({"rope_scaling": {"type": "linear", "factor": 0}}, "factor = 0"),
        ({"rope_scaling": {"type": "longrope", **LONG, "long_factor": 2.0}}, "long_factor = 2.0"),
        (
            {"rope_scaling": {"type": "longrope", **LONG, "long_factor": ["2"]}},
            "long_factor = ['2']",
        ),
        ({"rope_scaling": {"type": "yarn", "factor": 2, "attention_factor": "1"}}, "attention_f"),
        ({"rope_scaling": {"type": "linear", "factor": 2, "attention_factor": 2}}, "attention_f"),
        ({"rope_scaling": {"type": "dynamic", "factor": 2, "mscale": 1.0}}, "mscale"),
        ({"rope_theta": "10000"}, "rope_theta = '10000'"),
        ({"rope_theta": 0}, "theta = 0"),
        ({"rope_theta": float("nan")}, "theta = nan"),
        ({"partial_rotary_factor": 0}, "fraction = 0"),
        ({"partial_rotary_factor": 1.5}, "fraction = 1.5"),
        (
            {"rope_scaling": {"type": "yarn", "original_max_position_embeddings": 0}},
            "original_max_position_embeddings = 0",
        ),
    ],
)
def test_what_is_not_built_or_no_number_is_refused(settings, message):
    with pytest.raises(ModelError) as error:
        read_rope(settings)
    assert message in str(error.value)


def test_two_spellings_that_contradict_each_other_are_refused():
    new = {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}
    old = {"rope_type": "linear", "factor": 4.0}
    with pytest.raises(ModelError, match="rope_parameters and rope_scaling contradict"):
        read_rope({"rope_parameters": new, "rope_scaling": old})
    assert read_rope({"rope_parameters": new, "rope_scaling": {**old, "factor": 2}}).factor == 2


def test_an_original_context_that_is_given_twice_must_be_one():
    key = "original_max_position_embeddings"
    table = {"rope_type": "yarn", "factor": 4.0, key: 512}
    with pytest.raises(ModelError, match=f"{key} is given twice, as 512 and 1024"):
        read_rope({key: 1024}, table)
    assert read_rope({key: 512}, table).original_max_positions == 512


@pytest.mark.parametrize("name", ["short_factors", "long_factors"])
@pytest.mark.parametrize("factors", [(), (1.0,), (1.0, 2.0, 3.0)])
def test_longrope_must_have_a_factor_a_frequency(name, factors):
    with pytest.raises(ModelError, match=rf"{len(factors)} {name} for 2 frequencies"):
        config_with(replace(ROPES["longrope"], **{name: factors}))


@pytest.mark.parametrize("kind", ["default", "linear", "yarn"])
def test_gguf_brings_a_rope_back(kind):
    usual = {"beta_fast": 32.0, "beta_slow": 1.0, "attention_factor": 0.1 * math.log(4) + 1}
    rope = replace(ROPES[kind], **(usual if kind == "yarn" else {}))
    assert read_gguf_rope(Settings({"context_length": 2048, **write_gguf_rope(rope)})) == rope


@pytest.mark.parametrize(
    ("rope", "message"),
    [
        (ROPES["dynamic"], "'dynamic'"),
        (ROPES["longrope"], "'longrope'"),
        (replace(ROPES["default"], fraction=0.5), "0.5 of each head"),
        (ROPES["yarn"], "beta_fast = 16"),
        (replace(ROPES["yarn"], beta_fast=32.0), "beta_slow = 2"),
        (replace(ROPES["yarn"], beta_fast=32.0, beta_slow=1.0), "attention_factor = 1.25"),
    ],
)
def test_what_gguf_cannot_say_is_refused(rope, message):
    with pytest.raises(ModelError, match=message):
        write_gguf_rope(rope)


@pytest.mark.parametrize(
    "keys",
    [
        {"rope.scaling.type": "spiral"},
        {"rope.freq_base": "10000"},
        {"rope.freq_base": 0.0},
        {"rope.scaling.type": "linear", "rope.scaling.factor": "2"},
    ],
)
def test_what_a_gguf_says_wrongly_is_refused(keys):
    with pytest.raises(ModelError):
        read_gguf_rope(Settings({"context_length": 2048, **keys}))
