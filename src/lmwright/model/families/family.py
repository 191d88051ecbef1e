"""What makes a family: the words of its configuration and a table of its tensors' names."""

import logging
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import MISSING, dataclass, field, fields
from typing import Any, Literal, get_args

from lmwright.core.errors import ModelError
from lmwright.model.config import Head, ModelConfig
from lmwright.model.transformer import DecoderLM, EncoderDecoderLM, EncoderLM

log = logging.getLogger(__name__)

Settings = Mapping[str, Any]
Layout = Literal["plain", "transposed", "row"]


@dataclass(frozen=True)
class Row:
    """One tensor of a file: which of ours it holds, one behind the other, and what it is called."""

    ours: tuple[str, ...]
    hugging_face: str
    gguf: str | None = None
    # In Hugging Face's file: "transposed" is [in, out] (GPT-2's Conv1D), "row" is [1, n].
    layout: Layout = "plain"


@dataclass(frozen=True)
class Gguf:
    """How llama.cpp's files hold the family."""

    architecture: str
    # The rows of q and k are in the order of interleaved rotary pairs.
    is_permuted: bool = False
    # What llama.cpp's norms hold more than Hugging Face's.
    norm_shift: float = 0.0
    # It hides what lies beyond the window; for other architectures it leaves the key unread.
    has_windows: bool = False
    # Keys (behind "ARCHITECTURE.") that this family has besides the common ones: into fields of
    # our configuration, and from it.
    read: Callable[[Settings, ModelConfig], dict[str, Any]] = lambda keys, config: {}  # noqa: ARG005
    write: Callable[[ModelConfig], dict[str, Any]] = lambda config: {}  # noqa: ARG005


@dataclass(frozen=True)
class Family:
    """A family of checkpoints."""

    # `model_type` of config.json.
    name: str
    assembly: type[DecoderLM] | type[EncoderLM] | type[EncoderDecoderLM]
    # The class in `architectures` of config.json, by the head that it has.
    architectures: Mapping[Head, str]
    # Our field -> key of config.json.
    keys: Mapping[str, str]
    rows: tuple[Row, ...]
    # Further rows, which depend on the head or another choice.
    more_rows: Callable[[ModelConfig], tuple[Row, ...]] = lambda config: ()  # noqa: ARG005
    # Our fields that are the same in the whole family.
    choices: Mapping[str, Any] = field(default_factory=dict)
    # Values of keys that config.json may leave out.
    defaults: Mapping[str, Any] = field(default_factory=dict)
    # Keys that may only have this value: no other is built, and it is written again.
    only: Mapping[str, Any] = field(default_factory=dict)
    # What needs more than a word: settings -> fields, configuration -> settings.
    read: Callable[[Settings], dict[str, Any]] = lambda settings: {}  # noqa: ARG005
    write: Callable[[ModelConfig], dict[str, Any]] = lambda config: {}  # noqa: ARG005
    # What only the tensors' names tell: whether there is a pooler, an own matrix for the head.
    refine: Callable[[ModelConfig, Collection[str]], ModelConfig] = lambda config, names: config  # noqa: ARG005
    # Names begin with this unless the model was saved without its head.
    prefix: str = ""
    # Endings of tensors that hold no weights, or what is computed here.
    ignored: tuple[str, ...] = ()
    # What old files leave out where it is zero.
    zeros: tuple[str, ...] = ()
    # Names under which a file may hold another of its tensors once more.
    copies: Mapping[str, str] = field(default_factory=dict)
    # Endings in old files -> endings today.
    old_endings: Mapping[str, str] = field(default_factory=dict)
    gguf: Gguf | None = None


def table(text: str) -> tuple[Row, ...]:
    """Read rows of `ours hugging_face [gguf] [layout]`; `+` joins what lies in one tensor.

    A name stands for its .weight and .bias, unless it ends in one of these. `{a,b} {c,d}` are two
    rows, one of a and c, one of b and d.
    """
    rows = []
    lines = (line for short in text.strip().splitlines() for line in _unfolded(short))
    for line in lines:
        *names, last = line.split()
        layout: Layout = next((kind for kind in get_args(Layout) if kind == last), "plain")
        ours, theirs, *gguf = names if layout == last else [*names, last]
        rows.append(Row(tuple(ours.split("+")), theirs, *gguf, layout=layout))
    return tuple(rows)


def _unfolded(line: str) -> list[str]:
    lists = [found.split(",") for found in re.findall(r"\{([^}]*,[^}]*)\}", line)]
    if not lists:
        return [line]
    form = re.sub(r"\{[^}]*,[^}]*\}", "\0", line)
    rows = []
    for words in zip(*lists, strict=True):
        parts = iter(words)
        rows.append("".join(next(parts) if c == "\0" else c for c in form))
    return rows


# The choices of Vaswani et al. 2017 and of those close to it, and where BERT and BART put norms.
CLASSIC = {
    "positions": "learned",
    "norm": "layer",
    "qkv_bias": True,
    "out_bias": True,
    "mlp_bias": True,
    "is_gated": False,
}
POST_NORM = {"norm_places": ("sum",), "has_embedding_norm": True, "has_final_norm": False}
# How most decoders spell their configuration.
DECODER_KEYS = {
    "vocab_size": "vocab_size",
    "d_model": "hidden_size",
    "n_layers": "num_hidden_layers",
    "n_heads": "num_attention_heads",
    "n_kv_heads": "num_key_value_heads",
    "d_head": "head_dim",
    "d_ff": "intermediate_size",
    "max_positions": "max_position_embeddings",
    "norm_eps": "rms_norm_eps",
    "activation": "hidden_act",
    "ties_embeddings": "tie_word_embeddings",
}
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
REQUIRED = {f.name for f in fields(ModelConfig) if f.default is f.default_factory is MISSING}


def model_config(family: Family, settings: Settings) -> ModelConfig:
    """Translate config.json; a setting that this code does not cover is an error."""
    # null is a value, not a gap: Mistral's "sliding_window": null means none, not the default.
    given = {key: v for key, v in {**family.defaults, **settings}.items() if v is not None}
    for key, only in family.only.items():
        if given.get(key, only) != only:
            raise ModelError(f"{key} = {given[key]!r}; only {only!r} is supported")
    missing = [
        key
        for name, key in family.keys.items()
        if name in REQUIRED - {"n_kv_heads", "d_head"} and key not in given
    ]
    if missing:
        raise ModelError(f"{', '.join(missing)} missing")
    values = {name: given[key] for name, key in family.keys.items() if key in given}
    values |= {**family.choices, **family.read(given)}
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


def settings_of(family: Family, config: ModelConfig) -> dict[str, Any]:
    """Write the keys of config.json, in the spelling that old and new transformers read."""
    settings = {key: getattr(config, name) for name, key in family.keys.items()}
    for name, key in family.keys.items():
        if name == "activation":
            settings[key] = WRITTEN_ACTIVATIONS.get(config.activation, config.activation)
    eos = list(config.eos_ids)
    settings |= {
        "architectures": [family.architectures[config.head]],
        "model_type": family.name,
        "bos_token_id": config.bos_id,
        "eos_token_id": eos[0] if len(eos) == 1 else eos or None,
        "pad_token_id": config.pad_id,
    }
    if config.decoder_start_id is not None or "decoder_start_token_id" in family.defaults:
        settings["decoder_start_token_id"] = config.decoder_start_id
    if config.forced_bos_id is not None:
        settings["forced_bos_token_id"] = config.forced_bos_id
    if config.suppressed_ids:
        settings["bad_words_ids"] = [[id_] for id_ in config.suppressed_ids]
    if config.labels:
        settings["id2label"] = {str(i): label for i, label in enumerate(config.labels)}
        settings["label2id"] = {label: i for i, label in enumerate(config.labels)}
        settings["problem_type"] = _PROBLEMS[config.problem]
    return {**settings, **family.only, **family.write(config)}


def rows_of(family: Family, config: ModelConfig, names: set[str]) -> Iterator[Row]:
    """Yield the rows of a model with these parameters, spelled out for each layer.

    Each of `names` (ours) is in just one row; rows of parameters that it has not are left out.
    """
    patterns: dict[str, tuple[Row, int]] = {}
    for row in (*family.rows, *family.more_rows(config)):
        patterns |= {ours: (row, i) for i, ours in enumerate(row.ours)}
    for name in sorted(names, key=_natural):
        layer = re.search(r"\.blocks\.(\d+)\.", name)
        pattern = re.sub(r"\.blocks\.\d+\.", ".blocks.{i}.", name)
        ending = "." + name.rsplit(".", 1)[1]
        if pattern in patterns:
            ending = ""
        found = patterns.get(pattern) or patterns.get(pattern.removesuffix(ending))
        assert found is not None, f"{family.name}: no row for {name}"
        row, place = found
        if place == 0:  # the others of the row come with it
            yield _spelled(row, ending, layer[1] if layer else "")


def _spelled(row: Row, ending: str, layer: str) -> Row:
    def full(name: str) -> str:
        return name.replace("{i}", layer) + ending

    gguf = None if row.gguf is None else full(row.gguf)
    ours = tuple(full(name) for name in row.ours)
    is_plain = row.layout == "transposed" and ending == ".bias"
    return Row(ours, full(row.hugging_face), gguf, "plain" if is_plain else row.layout)


def _natural(name: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdigit() else (-1, part) for part in name.split(".")]


def _head(family: Family, settings: Settings) -> Head:
    known: dict[str, Head] = {name: head for head, name in family.architectures.items()}
    names = settings.get("architectures") or [next(iter(known))]
    if not isinstance(names, list) or len(names) != 1 or names[0] not in known:
        raise ModelError(
            f"architectures = {names!r}; of {family.name}, lmwright builds {', '.join(known)}"
        )
    return known[names[0]]


def _head_width(d_model: Any, n_heads: Any) -> int:
    for name, value in (("d_model", d_model), ("n_heads", n_heads)):
        if type(value) is not int or value < 1:
            raise ModelError(f"{name} = {value!r}: expected a whole number of at least 1")
    if d_model % n_heads:
        raise ModelError(
            f"a width of {d_model} does not divide into {n_heads} heads; the file contradicts "
            "itself, or lacks the width of a head"
        )
    return d_model // n_heads


def _activation(name: Any) -> str:
    if not isinstance(name, str) or name not in ACTIVATIONS:
        raise ModelError(f"activation {name!r}; known: {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[name]


def _roles(given: Settings) -> dict[str, Any]:
    eos = given.get("eos_token_id")
    words = given.get("bad_words_ids") or []
    if any(len(word) > 1 for word in words):
        log.warning("bad_words_ids of several tokens are not kept out of answers")
    return {
        "bos_id": given.get("bos_token_id"),
        "eos_ids": () if eos is None else tuple(eos) if isinstance(eos, list) else (eos,),
        "pad_id": given.get("pad_token_id"),
        "decoder_start_id": given.get("decoder_start_token_id"),
        "forced_bos_id": given.get("forced_bos_token_id"),
        "suppressed_ids": tuple(word[0] for word in words if len(word) == 1),
    }


_PROBLEMS = {
    "single_label": "single_label_classification",
    "multi_label": "multi_label_classification",
    "regression": "regression",
}


def _labels(given: Settings) -> dict[str, Any]:
    if "id2label" not in given and "num_labels" not in given:
        names = {0: "LABEL_0", 1: "LABEL_1"}  # transformers' default
    else:
        names = given.get("id2label") or {i: f"LABEL_{i}" for i in range(given["num_labels"])}
    ids = {int(i): str(label) for i, label in names.items()}
    if sorted(ids) != list(range(len(ids))):
        raise ModelError(f"id2label has the ids {sorted(ids)[:10]}, expected 0, 1, ...")
    default = _PROBLEMS["regression" if len(ids) == 1 else "single_label"]
    given_problem = given.get("problem_type", default)
    problem = next((ours for ours, theirs in _PROBLEMS.items() if theirs == given_problem), None)
    if problem is None:
        known = ", ".join(_PROBLEMS.values())
        raise ModelError(f"problem_type {given_problem!r}; known: {known}")
    return {"labels": tuple(ids[i] for i in range(len(ids))), "problem": problem}
