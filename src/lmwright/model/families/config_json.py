"""The configuration as config.json spells it, for every family."""

import logging
from dataclasses import MISSING, fields
from typing import Any

from lmwright.core.errors import ModelError
from lmwright.formats.settings import Settings, is_token, shown
from lmwright.model.config import Head, ModelConfig, check_field
from lmwright.model.families.family import DECODER_KEYS, ConfigJson, Family
from lmwright.model.families.rope import read_ropes, rope_settings
from lmwright.model.transformer import EncoderDecoderLM

log = logging.getLogger(__name__)

ACTIVATIONS = {
    "silu": "silu",
    "swish": "silu",
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "relu": "relu",
    "tanh": "tanh",
}
WRITTEN_ACTIVATIONS = {"gelu_tanh": "gelu_pytorch_tanh"}
# Our field -> key: tokens with a role, and what an encoder-decoder's answer begins with.
ROLES = {"bos_id": "bos_token_id", "pad_id": "pad_token_id"}
ANSWER_ROLES = {
    "decoder_start_id": "decoder_start_token_id",
    "forced_bos_id": "forced_bos_token_id",
}
# Fields whose usual key transformers understands in place of the family's own (attribute_map).
ALIASED = {"d_model", "n_layers", "n_heads", "d_head", "max_positions"}
REQUIRED = {f.name for f in fields(ModelConfig) if f.default is f.default_factory is MISSING}


def model_config(family: Family, settings: ConfigJson) -> ModelConfig:
    """Translate config.json; a setting that this code does not cover is an error."""
    # null is a value, not a gap: Mistral's "sliding_window": null means none, not the default.
    spelt = _spelt(family, settings)
    given = {key: v for key, v in {**family.defaults, **spelt}.items() if v is not None}
    for key, only in family.only.items():
        if given.get(key, only) != only:
            raise ModelError(f"{key} = {shown(given[key])}; only {only!r} is supported")
    missing = [
        key
        for name, key in family.keys.items()
        if name in REQUIRED - {"n_kv_heads", "d_head"} and key not in given
    ]
    if missing:
        raise ModelError(f"{', '.join(missing)} missing")
    _check_types(family, given)
    values = {name: given[key] for name, key in family.keys.items() if key in given}
    values |= own_fields(family, given)
    if family.assembly is EncoderDecoderLM and not values.get("n_decoder_layers"):
        raise ModelError(f"{family.keys['n_decoder_layers']} missing, or 0")
    values["head"] = _head(family, settings)
    values.setdefault("n_kv_heads", values["n_heads"])
    if "d_head" not in values:
        values["d_head"] = _head_width(values["d_model"], values["n_heads"])
    if "activation" in values:
        values["activation"] = _activation(values["activation"])
    labels = _labels(given) if values["head"] in ("sequence", "tokens") else {}
    return ModelConfig(family=family.name, **values, **_roles(given), **labels)


def _spelt(family: Family, settings: ConfigJson) -> ConfigJson:
    """Return the settings under the family's own keys, though a file may have the usual ones."""
    spelt = dict(settings)
    for name in ALIASED & family.keys.keys():
        alias, key = DECODER_KEYS[name], family.keys[name]
        value = spelt.get(alias)
        if value is not None and spelt.setdefault(key, value) != value:
            other = f"{key} = {shown(spelt[key])}"
            raise ModelError(f"{alias} = {shown(value)} contradicts {other}: they mean the same")
    return spelt


def settings_of(family: Family, config: ModelConfig) -> dict[str, Any]:
    """Write the keys of config.json, in the spelling that old and new transformers read."""
    activation = WRITTEN_ACTIVATIONS.get(config.activation, config.activation)
    values = {**vars(config), "activation": activation}
    settings = {key: values[name] for name, key in family.keys.items()}
    eos = list(config.eos_ids)
    settings |= {
        "architectures": [family.architectures[config.head]],
        "model_type": family.name,
        "eos_token_id": eos[0] if len(eos) == 1 else eos or None,
        **{key: getattr(config, name) for name, key in ROLES.items()},
    }
    if family.assembly is EncoderDecoderLM:
        settings["is_encoder_decoder"] = True
    for name, key in ANSWER_ROLES.items():
        if getattr(config, name) is not None or key in family.defaults:
            settings[key] = getattr(config, name)
    if config.suppressed_ids:
        settings["bad_words_ids"] = [[id_] for id_ in config.suppressed_ids]
    if config.labels:
        settings["id2label"] = {str(i): label for i, label in enumerate(config.labels)}
        settings["label2id"] = {label: i for i, label in enumerate(config.labels)}
        settings["problem_type"] = _PROBLEMS[config.problem]
    ropes = rope_settings(config) if _is_rotary(family) else {}
    return {**settings, **ropes, **family.only, **family.write(config)}


def own_fields(family: Family, given: ConfigJson) -> dict[str, Any]:
    """Return the fields that the family chooses, and those that need more than a word."""
    ropes = read_ropes(given) if _is_rotary(family) else {}
    for rope in ropes.values():
        if rope.fraction != 1 and not family.rotates_parts:
            told = f"partial_rotary_factor = {rope.fraction:g}"
            raise ModelError(f"{told}: of {family.name}, only whole heads are rotated")
    return {**family.choices, **ropes, **family.read(given)}


def _check_types(family: Family, given: ConfigJson) -> None:
    """Hold each value against the type of the field that it is for, or else of its usual value."""
    for name, key in family.keys.items():
        if key in given and name != "activation":  # which has other names there
            check_field(ModelConfig, name, given[key], key=key)
    settings = Settings(given)
    for key, usual in family.defaults.items():
        if isinstance(usual, bool):
            settings.flag(key)
        elif isinstance(usual, str):
            settings.text(key)
        elif isinstance(usual, int | float) and not key.endswith("_token_id"):
            settings.number(key)


def _is_rotary(family: Family) -> bool:
    return family.choices.get("positions", "rotary") == "rotary"


def _head(family: Family, settings: ConfigJson) -> Head:
    known: dict[str, Head] = {name: head for head, name in family.architectures.items()}
    names = Settings(settings).texts("architectures") or [next(iter(known))]
    if len(names) != 1 or names[0] not in known:
        raise ModelError(
            f"architectures = {shown(names)}; of {family.name}, lmwright builds {', '.join(known)}"
        )
    return known[names[0]]


def _head_width(d_model: Any, n_heads: Any) -> int:
    for name, value in (("d_model", d_model), ("n_heads", n_heads)):
        if type(value) is not int or value < 1:
            raise ModelError(f"{name} = {shown(value)}: expected a whole number of at least 1")
    if d_model % n_heads:
        raise ModelError(
            f"a width of {d_model} does not divide into {n_heads} heads; the file contradicts "
            "itself, or lacks the width of a head"
        )
    return d_model // n_heads


def _activation(name: Any) -> str:
    if not isinstance(name, str) or name not in ACTIVATIONS:
        raise ModelError(f"activation {shown(name)}; known: {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[name]


def _roles(given: ConfigJson) -> dict[str, Any]:
    # The first Llama writes -1 where it has no padding.
    given = {key: None if key == "pad_token_id" and v == -1 else v for key, v in given.items()}
    settings = Settings(given)
    words = settings.items("bad_words_ids")
    if not all(isinstance(word, list) and all(map(is_token, word)) for word in words):
        raise settings.fault("bad_words_ids", "expected lists of the ids of tokens")
    if any(len(word) > 1 for word in words):
        log.warning("bad_words_ids of several tokens are not kept out of answers")
    return {
        **{name: settings.token(key) for name, key in (ROLES | ANSWER_ROLES).items()},
        "eos_ids": settings.tokens("eos_token_id"),
        "suppressed_ids": tuple(word[0] for word in words if len(word) == 1),
    }


_PROBLEMS = {
    "single_label": "single_label_classification",
    "multi_label": "multi_label_classification",
    "regression": "regression",
}


def _labels(given: ConfigJson) -> dict[str, Any]:
    settings = Settings(given)
    n_labels = settings.whole("num_labels", 2, bounds=range(1, 2**16))  # transformers' default
    names = settings.table("id2label").values or {i: f"LABEL_{i}" for i in range(n_labels)}
    if not all(str(i).isdecimal() and len(str(i)) < 10 for i in names):
        raise settings.fault("id2label", "expected a name for each of 0, 1, ...")
    ids = {int(i): str(label) for i, label in names.items()}
    if sorted(ids) != list(range(len(ids))):
        raise ModelError(f"id2label has the ids {sorted(ids)[:10]}, expected 0, 1, ...")
    default = _PROBLEMS["regression" if len(ids) == 1 else "single_label"]
    given_problem = settings.text("problem_type", default)
    problem = next((ours for ours, theirs in _PROBLEMS.items() if theirs == given_problem), None)
    if problem is None:
        known = ", ".join(_PROBLEMS.values())
        raise ModelError(f"problem_type {shown(given_problem)}; known: {known}")
    return {"labels": tuple(ids[i] for i in range(len(ids))), "problem": problem}
