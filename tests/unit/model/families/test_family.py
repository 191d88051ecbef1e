"""A family is two translations that must undo each other, and a table without gaps or doubles."""

import json
from dataclasses import fields, replace

import pytest
import torch

from lmwright.core.errors import ModelError
from lmwright.model.config import ModelConfig
from lmwright.model.families import FAMILIES, family
from lmwright.model.families.config_json import model_config, settings_of
from lmwright.model.families.family import TensorRow, rows_of, table

# Our fields, small, and each another.
SMALL = {
    "vocab_size": 50, "d_model": 16, "n_layers": 2, "n_decoder_layers": 3, "n_heads": 4,
    "n_kv_heads": 2, "d_head": 8, "d_ff": 24, "max_positions": 40, "norm_eps": 0.125,
    "n_token_types": 3, "relative_buckets": 6, "relative_max_distance": 30, "sliding_window": 5,
    "attention_softcap": 7.0, "logit_softcap": 9.0,
}  # fmt: skip
OTHER = {**{name: 2 * value for name, value in SMALL.items()}, "norm_eps": 0.25}
HEADS = [(name, head) for name, kind in FAMILIES.items() for head in kind.architectures]


def settings_for(name, head="language", **more):
    """Return the config.json of a small model."""
    kind = FAMILIES[name]
    head = head if head in kind.architectures else next(iter(kind.architectures))
    sizes = {key: SMALL[ours] for ours, key in kind.keys.items() if ours in SMALL}
    if name == "marian":  # whose usual ones lie beyond so small a vocabulary
        sizes |= {"pad_token_id": 49, "decoder_start_token_id": 49}
    return {**sizes, "architectures": [kind.architectures[head]], **more}


def small(name, head="language", **more):
    return model_config(FAMILIES[name], settings_for(name, head, **more))


def parameters(name, config):
    with torch.device("meta"):
        model = FAMILIES[name].assembly(config)
    return set(model.state_dict()) - set(model.ties)


@pytest.mark.parametrize(
    ("name", "ours"), [(n, ours) for n, kind in FAMILIES.items() for ours in kind.keys]
)
def test_each_key_is_read(name, ours):
    key = FAMILIES[name].keys[ours]
    before = getattr(small(name), ours)
    if ours == "activation":
        value, expected = ("gelu_new", "gelu_tanh") if before != "gelu_tanh" else ("relu",) * 2
    elif ours == "ties_embeddings":
        value = expected = not before
    else:
        value = OTHER[ours]
        expected = value - 1 if (name, ours) == ("roberta", "max_positions") else value
        expected -= 1 if (name, ours) == ("roberta", "max_positions") else 0
    after = getattr(small(name, **{key: value}), ours)
    assert after == expected != before


@pytest.mark.parametrize(("name", "head"), HEADS)
@pytest.mark.parametrize("eos", [None, 2, [2, 5]])
def test_a_configuration_survives_the_way_out_and_in(name, head, eos):
    config = small(name, head, eos_token_id=eos, bos_token_id=7, forced_bos_token_id=9,
                   bad_words_ids=[[3]], decoder_start_token_id=4)  # fmt: skip
    assert list(config.eos_ids) == (eos if isinstance(eos, list) else [eos] * (eos is not None))
    written = json.loads(json.dumps(settings_of(FAMILIES[name], config)))
    assert written["model_type"] == name
    assert model_config(FAMILIES[name], written) == config


@pytest.mark.parametrize("name", FAMILIES)
def test_what_is_none_stays_none(name):
    """What a family takes for a key that is left out must not come back for one that is null."""
    none = dict.fromkeys(("bos_id", "pad_id", "decoder_start_id"))
    config = small(name)
    if name != "roberta":  # its padding says where positions begin
        config = replace(config, eos_ids=(), **none)
    assert model_config(FAMILIES[name], settings_of(FAMILIES[name], config)) == config


@pytest.mark.parametrize(
    ("name", "key", "field"),
    [
        ("mistral", "sliding_window", "sliding_window"),
        ("gemma2", "attn_logit_softcapping", "attention_softcap"),
        ("gemma2", "final_logit_softcapping", "logit_softcap"),
    ],
)
def test_null_is_none_and_a_gap_the_default(name, key, field):
    without = {k: value for k, value in settings_for(name).items() if k != key}
    kind = FAMILIES[name]
    assert getattr(model_config(kind, without), field) == kind.defaults[key]
    assert getattr(small(name, **{key: None}), field) is None


@pytest.mark.parametrize(("name", "head"), HEADS)
def test_the_table_names_every_tensor_once(name, head):
    kind, config = FAMILIES[name], small(name, head)
    deeper = small(name, head, **{kind.keys["n_layers"]: 3})
    for shape in (config, replace(config, ties_embeddings=False), deeper):
        names = parameters(name, shape)
        rows = list(rows_of(kind, shape, names))
        ours = [part for row in rows for part in row.ours]
        assert set(ours) == names
        assert len(ours) == len(names)
        assert len({row.hugging_face for row in rows}) == len(rows)
        assert not any("{" in row.hugging_face for row in rows)
        spelt = {row.gguf for row in rows} if kind.gguf else {None}
        assert len(spelt) == (len(rows) if kind.gguf else 1)


def test_rows_come_in_the_order_of_the_layers_and_once_for_what_lies_together():
    config = replace(small("phi3"), n_layers=11)
    rows = list(rows_of(FAMILIES["phi3"], config, parameters("phi3", config)))
    fused = [row.hugging_face for row in rows if "qkv" in row.hugging_face]
    assert fused == [f"model.layers.{i}.self_attn.qkv_proj.weight" for i in range(11)]
    first = next(row for row in rows if "qkv" in row.hugging_face)
    assert [name.split(".")[-2] for name in first.ours] == ["q", "k", "v"]


def test_a_table_reads_names_layouts_and_what_is_folded():
    assert table("""
a      x
b      y   z
c+d    v   w  transposed
e      u   row
{f,g}.{h,i}  t.{j,k}.{l,m}
""") == (
        TensorRow(("a",), "x"),
        TensorRow(("b",), "y", "z"),
        TensorRow(("c", "d"), "v", "w", "transposed"),
        TensorRow(("e",), "u", None, "row"),
        TensorRow(("f.h",), "t.j.l"),
        TensorRow(("g.i",), "t.k.m"),
    )  # fmt: skip
    with pytest.raises(ValueError, match="zip"):
        table("{a,b,c}  {x,y}")


@pytest.mark.parametrize(
    ("name", "key"), [(n, key) for n, kind in FAMILIES.items() for key in kind.only]
)
def test_what_is_not_built_is_refused_and_the_rest_written(name, key):
    only = FAMILIES[name].only[key]
    other = (not only) if isinstance(only, bool) else "other"
    with pytest.raises(ModelError, match=f"{key} = {other!r}; only {only!r}"):
        small(name, **{key: other})
    assert settings_of(FAMILIES[name], small(name, **{key: only}))[key] == only


@pytest.mark.parametrize("name", FAMILIES)
def test_sizes_that_are_missing_are_named(name):
    kind = FAMILIES[name]
    keys = [kind.keys[ours] for ours in ("vocab_size", "d_model", "n_layers", "n_heads")]
    settings = {key: v for key, v in settings_for(name).items() if key not in keys}
    with pytest.raises(ModelError) as error:
        model_config(kind, settings)
    assert all(key in str(error.value) for key in keys)


@pytest.mark.parametrize("name", ["bart", "mbart", "marian"])
def test_a_decoder_without_layers_is_refused(name):
    for value in (0, None):
        with pytest.raises(ModelError, match="decoder_layers missing, or 0"):
            small(name, decoder_layers=value)


def test_the_decoder_of_a_t5_is_as_deep_as_its_encoder_unless_it_says_so():
    assert small("t5", num_decoder_layers=None).n_decoder_layers == SMALL["n_layers"]


@pytest.mark.parametrize("name", FAMILIES)
def test_a_key_that_nobody_knows_changes_nothing(name):
    """Notes of whoever trained the model; what transformers knows, tests/parity checks."""
    assert small(name, my_note={"by": "me"}, use_cache=False) == small(name)


@pytest.mark.parametrize("name", FAMILIES)
def test_heads_that_do_not_divide_are_refused(name):
    """Unless their width is given: flan-t5-small has six heads of 64 in a width of 512."""
    keys = FAMILIES[name].keys
    without_width = {keys["n_heads"]: 6}
    if "n_kv_heads" in keys:
        with pytest.raises(ModelError, match="n_heads = 5 is no multiple of n_kv_heads = 2"):
            small(name, **{keys["n_heads"]: 5})
    if "d_head" in keys:
        assert small(name, **{keys["n_heads"]: 6}).d_head == SMALL["d_head"]
        without_width |= {keys["d_head"]: None}
    with pytest.raises(ModelError, match="16 does not divide into 6 heads"):
        small(name, **without_width)


@pytest.mark.parametrize("value", [0, -1, 2.0, "4", True, [4]])
def test_a_number_of_heads_that_is_none_is_refused(value):
    with pytest.raises(ModelError, match=r"n_head = .*expected a whole number"):
        small("gpt2", n_head=value)


@pytest.mark.parametrize(
    "architectures",
    [["FooForCausalLM"], ["LlamaForCausalLM", "Foo"]],
)
def test_a_class_that_is_not_built_ends_in_those_that_are(architectures):
    with pytest.raises(ModelError, match=r"architectures.*of llama.*LlamaForCausalLM"):
        small("llama", architectures=architectures)


@pytest.mark.parametrize("architectures", ["LlamaForCausalLM", [3], {}])
def test_classes_that_are_no_list_of_names_are_refused(architectures):
    with pytest.raises(ModelError, match=r"architectures = .*: expected a list of texts"):
        small("llama", architectures=architectures)


def test_without_a_class_the_first_head_is_meant():
    assert small("bert", architectures=None).head == "masked"
    assert small("llama", architectures=None).head == "language"


@pytest.mark.parametrize("activation", ["squared_relu", 3, ["gelu"], {}])
def test_an_activation_that_is_not_built_is_refused(activation):
    with pytest.raises(ModelError, match=r"activation|hidden_act = "):
        small("llama", hidden_act=activation)


class TestLabels:
    def config(self, **settings):
        return small("bert", "sequence", **settings)

    def test_names_are_read_in_the_order_of_their_ids(self):
        names = {"1": "b", "0": "a", "2": "c"}
        assert self.config(id2label=names).labels == ("a", "b", "c")

    def test_a_number_or_nothing_gives_the_names_that_transformers_gives(self):
        assert self.config(num_labels=3).labels == ("LABEL_0", "LABEL_1", "LABEL_2")
        assert self.config().labels == ("LABEL_0", "LABEL_1")

    @pytest.mark.parametrize("ids", [[1, 2], [0, 2], [-1, 0]])
    def test_ids_with_gaps_are_refused(self, ids):
        with pytest.raises(ModelError, match="id2label"):
            self.config(id2label={str(i): "x" for i in ids})

    def test_a_single_one_is_a_regression_unless_said_otherwise(self):
        assert self.config(num_labels=1).problem == "regression"
        multi = "multi_label_classification"
        assert self.config(num_labels=1, problem_type=multi).problem == "multi_label"

    def test_a_problem_that_nobody_knows_is_refused(self):
        with pytest.raises(ModelError, match=r"problem_type 'ranking'.*regression"):
            self.config(problem_type="ranking")

    def test_a_head_for_words_has_none(self):
        assert small("bert", "masked", num_labels=3).labels == ()


def test_each_field_of_the_configuration_is_used_by_a_family():
    """A field that no checkpoint needs is one too many."""
    used = {"family", "head", "labels", "problem", "eos_ids"}
    plain = {field.name: field.default for field in fields(ModelConfig)}
    more = {"rope_parameters": {"rope_type": "linear", "factor": 2.0}, "bad_words_ids": [[1]]}
    more |= {"forced_bos_token_id": 3, "bos_token_id": 1, "scale_embedding": True}
    for name, head in HEADS:
        config = small(name, head, **(more if name not in ("gemma2", "gemma3_text") else {}))
        with_pooler = family(name).refine(config, {"bert.pooler.dense.weight"})
        for each in (config, with_pooler):
            used |= {field for field, value in vars(each).items() if value != plain[field]}
    assert used == set(plain)


def test_usual_keys_are_understood_in_place_of_the_familys_own():
    own = settings_for("gpt2")
    usual = {"n_embd": "hidden_size", "n_layer": "num_hidden_layers", "n_head":
             "num_attention_heads", "n_positions": "max_position_embeddings"}  # fmt: skip
    spelt = {usual.get(key, key): value for key, value in own.items()}
    assert model_config(FAMILIES["gpt2"], spelt) == model_config(FAMILIES["gpt2"], own)
    with pytest.raises(ModelError, match="hidden_size = 8 contradicts n_embd = 16"):
        small("gpt2", hidden_size=8)


@pytest.mark.parametrize("name", ["llama", "mistral", "qwen2", "olmo2", "gemma2"])
def test_only_phi_3_rotates_a_part_of_each_head(name):
    with pytest.raises(ModelError, match=r"partial_rotary_factor = 0\.5"):
        small(name, partial_rotary_factor=0.5)
    with pytest.raises(ModelError, match=r"partial_rotary_factor = 0\.5"):
        small(name, rope_parameters={"rope_theta": 1e4, "partial_rotary_factor": 0.5})
    assert small(name, partial_rotary_factor=1.0) == small(name)


def test_mistrals_layers_may_differ():
    local, wide = "sliding_attention", "full_attention"
    for types in ([local, wide], [wide, wide], [local, local]):
        config = small("mistral", sliding_window=5, layer_types=types)
        assert [config.is_local(i) for i in range(2)] == [kind == local for kind in types]
        again = model_config(FAMILIES["mistral"], settings_of(FAMILIES["mistral"], config))
        assert again == config
    assert "layer_types" not in settings_of(FAMILIES["mistral"], small("mistral"))


def test_gemma_3_has_no_soft_cap_of_scores():
    with pytest.raises(ModelError, match=r"attn_logit_softcapping = 2\.0; only None"):
        small("gemma3_text", attn_logit_softcapping=2.0)


@pytest.mark.parametrize(
    "settings",
    [
        {"hidden_size": "64"}, {"rms_norm_eps": "x"}, {"tie_word_embeddings": 1},
        {"rope_theta": [1]}, {"rope_scaling": 3}, {"rope_parameters": "x"}, {"bos_token_id": {}},
        {"eos_token_id": [[]]}, {"bad_words_ids": [3]}, {"bad_words_ids": [["x"]]},
        {"architectures": "x"}, {"max_position_embeddings": True}, {"head_dim": [8]},
    ],
    ids=str,
)  # fmt: skip
def test_a_value_of_the_wrong_type_is_an_error_that_names_its_key(settings):
    [key] = settings
    with pytest.raises(ModelError, match=rf"{key} = .*expected"):
        small("llama", **settings)
