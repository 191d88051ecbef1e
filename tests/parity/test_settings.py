"""A key of config.json that changes what a model computes must not be passed over in silence."""

import copy
import json
from dataclasses import replace

import pytest
import torch

from families import LIMIT, ROPES, VARIANTS
from lmwright.core.errors import ModelError
from lmwright.model import checkpoint
from lmwright.model.families import FAMILIES
from lmwright.model.families.config_json import ALIASED, REQUIRED, model_config, own_fields
from lmwright.model.families.family import DECODER_KEYS

transformers = pytest.importorskip("transformers", reason="needs the `dev` extra")
differences = pytest.importorskip("differences", reason="needs the `dev` extra")

KINDS = {variant.family: f"{variant.kind}Config" for variant in VARIANTS.values()}
# What says nothing about the numbers that a trained model gives.
HARMLESS = {
    "_name_or_path", "chunk_size_feed_forward", "dtype", "is_encoder_decoder", "label2id",
    "model_type", "output_attentions", "output_hidden_states", "return_dict",
    "transformers_version", "use_cache",
    # Only while training, or before.
    "activation_dropout", "attention_dropout", "attention_probs_dropout_prob", "attn_pdrop",
    "classifier_dropout", "decoder_layerdrop", "dropout", "dropout_rate", "embd_pdrop",
    "encoder_layerdrop", "hidden_dropout_prob", "init_std", "initializer_factor",
    "initializer_range", "qa_dropout", "resid_pdrop", "seq_classif_dropout",
    # How a product is cut, or in which format it is: not what it is.
    "pretraining_tp", "reorder_and_upcast_attn",
    # GPT-2's head for whole texts, which is not built.
    "summary_activation", "summary_first_dropout", "summary_proj_to_labels", "summary_type",
    "summary_use_proj",
    # DistilBERT's sinusoids lie in the file like trained positions.
    "sinusoidal_pos_embds",
    # T5 says twice what feed_forward_proj says.
    "dense_act_fn", "is_gated_act",
    # Gemma 3's rule for the layers, which it writes out as layer_types.
    "_sliding_window_pattern",
    # The last token of an answer that becomes too long.
    "forced_eos_token_id",
    # Only where the encoder's embedding is another, which is refused.
    "decoder_vocab_size",
    # An encoder-decoder's class has both; `architectures` says which one is meant.
    "is_decoder",
}  # fmt: skip
ROLES = {
    "bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id",
    "forced_bos_token_id", "bad_words_ids",
}  # fmt: skip
LABELS = {"architectures", "id2label", "num_labels", "problem_type"}

NEAR, FAR = "sliding_attention", "full_attention"
# A model of tests/families.py, what its config.json says besides, and the error if it is refused.
# `None` takes a key away.
EDITS = {
    "mistral-types": ("mistral-window", {"layer_types": [FAR, NEAR, FAR]}, None),
    "mistral-far": ("mistral-window", {"layer_types": [FAR] * 3}, None),
    "mistral-few": ("mistral-window", {"layer_types": [FAR]}, "1 types for 3 layers"),
    "llama-types": ("llama", {"layer_types": [FAR, NEAR, FAR], "sliding_window": 5}, None),
    "gemma2-types": ("gemma2", {"layer_types": [FAR, NEAR, FAR, NEAR]}, None),
    "gemma2-pattern": (
        "gemma2",
        {"sliding_window_pattern": 4, "layer_types": None},
        "only 2 is supported",
    ),
    "gemma2-usual-pattern": ("gemma2", {"sliding_window_pattern": 2, "layer_types": None}, None),
    "gemma3-pattern": ("gemma3", {"sliding_window_pattern": 3, "layer_types": None}, None),
    "gemma3-softcap": ("gemma3", {"attn_logit_softcapping": 5.0}, "only None is supported"),
    **{
        f"{name}-{told}": (name, {"partial_rotary_factor": part}, error)
        for name in ("llama", "mistral", "qwen2", "qwen3", "olmo2", "gemma2", "gemma3")
        for told, part, error in (
            ("half", 0.5, "only whole heads are rotated"),
            ("whole", 1.0, None),
        )
    },
    **{
        f"{kind}-{told}": (
            f"llama-{kind}",
            {"rope_parameters": {**ROPES[kind], "attention_factor": factor}},
            error,
        )
        for kind in ("linear", "dynamic", "llama3")
        for told, factor, error in (
            ("sharp", 1.5, f"rope_type '{kind}' with attention_factor"),
            ("not-sharp", 1.0, None),
        )
    },
    "yarn-sharp": (
        "llama-yarn",
        {"rope_parameters": {**ROPES["yarn"], "attention_factor": 1.5}},
        None,
    ),
    "yarn-finetuned": (
        "llama-yarn",
        {"rope_parameters": {**ROPES["yarn"], "finetuned": True}},
        None,
    ),
}


class Watched(dict):
    """A configuration that notes which of its keys were asked for."""

    def __init__(self, *values):
        super().__init__(*values)
        self.asked = set()

    def __getitem__(self, key):
        self.asked.add(key)
        return super().__getitem__(key)

    def get(self, key, default=None):
        self.asked.add(key)
        return super().get(key, default)


def config_json(kind, settings):
    """Return config.json of a class of transformers, with these settings."""
    config = getattr(transformers, kind)(**copy.deepcopy(settings))
    return json.loads(config.to_json_string(use_diff=False))


@pytest.mark.parametrize("name", FAMILIES)
def test_each_key_of_transformers_is_read_refused_or_harmless(name):
    kind = FAMILIES[name]
    read = set(kind.keys.values()) | set(kind.only) | ROLES | LABELS
    known: set[str] = set()
    for variant in VARIANTS.values():
        if variant.family == name:
            settings = config_json(KINDS[name], variant.settings)
            given = {**kind.defaults, **settings}
            watched = Watched({key: value for key, value in given.items() if value is not None})
            own_fields(kind, watched)
            read |= watched.asked
            known |= settings.keys()
    assert known - read <= HARMLESS


@pytest.mark.parametrize("name", FAMILIES)
def test_the_other_names_of_keys_are_those_of_transformers(name):
    kind = FAMILIES[name]
    theirs = getattr(transformers, KINDS[name]).attribute_map
    ours = {DECODER_KEYS[field]: kind.keys[field] for field in ALIASED & kind.keys.keys()}
    assert {alias: key for alias, key in ours.items() if alias != key} == {
        alias: key for alias, key in theirs.items() if alias in DECODER_KEYS.values()
    }


@pytest.mark.parametrize("name", FAMILIES)
def test_what_config_json_leaves_out_is_what_transformers_takes(name):
    kind, settings = FAMILIES[name], config_json(KINDS[name], {})
    sizes = REQUIRED | {"n_decoder_layers"}
    named = {key for field, key in kind.keys.items() if field in sizes}
    sparse = {key: settings[key] for key in named - set(kind.defaults) if key in settings}
    found, expected = model_config(kind, sparse), model_config(kind, settings)
    # Which tokens have a role differs from file to file, and each file says it.
    roles = dict.fromkeys(("bos_id", "pad_id", "decoder_start_id", "forced_bos_id"))
    assert replace(found, eos_ids=(), **roles) == replace(expected, eos_ids=(), **roles)


@pytest.mark.parametrize("edit", EDITS)
def test_a_setting_gives_what_transformers_computes_or_is_refused(edit, tmp_path):
    name, changes, error = EDITS[edit]
    theirs = differences.theirs(name)
    theirs.save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    settings = {**json.loads(path.read_text(encoding="utf-8")), **changes}
    given = {key: value for key, value in settings.items() if value is not None}
    path.write_text(json.dumps(given), encoding="utf-8")
    if error is not None:
        with pytest.raises(ModelError, match=error):
            checkpoint.load_folder(tmp_path, torch.float32)
        return
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    ours = checkpoint.load_folder(tmp_path, torch.float32)
    pair = differences.Pair(VARIANTS[name], theirs.eval(), ours)
    assert differences.full_forward(pair) <= LIMIT
