"""What makes a family: words for its configuration and a table of its tensors' names."""

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from lmwright.model.config import Head, ModelConfig
from lmwright.model.transformer import DecoderLM, EncoderDecoderLM, EncoderLM

ConfigJson = Mapping[str, Any]
Storage = Literal["plain", "transposed", "row"]


@dataclass(frozen=True)
class TensorRow:
    """One tensor of a file: which of ours it holds, one behind the other, and what it is called."""

    ours: tuple[str, ...]
    hugging_face: str
    gguf: str | None = None
    # In Hugging Face's file: "transposed" is [in, out] (GPT-2's Conv1D), "row" is [1, n].
    layout: Storage = "plain"


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
    # Our field -> key (behind "ARCHITECTURE."), besides the common ones; and what llama.cpp takes
    # where the file is silent.
    keys: Mapping[str, str] = field(default_factory=dict)
    defaults: Mapping[str, Any] = field(default_factory=dict)
    # What llama.cpp knows by heart: a configuration read without it -> the fields it changes.
    read: Callable[[ModelConfig], dict[str, Any]] = lambda config: {}  # noqa: ARG005

    def n_permuted(self, name: str, config: ModelConfig) -> int:
        """Return the number of heads in which this tensor's rows are ordered anew, or 0."""
        n_heads = {"attn_q.weight": config.n_heads, "attn_k.weight": config.n_kv_heads}
        return n_heads.get(name.split(".", 2)[-1], 0) if self.is_permuted else 0

    def shift(self, name: str) -> float:
        """Return what this tensor holds more than Hugging Face's."""
        return self.norm_shift if name.endswith("norm.weight") else 0.0


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
    rows: tuple[TensorRow, ...]
    # Further rows, which depend on the head or another choice.
    more_rows: Callable[[ModelConfig], tuple[TensorRow, ...]] = lambda config: ()  # noqa: ARG005
    # Our fields that are the same in the whole family.
    choices: Mapping[str, Any] = field(default_factory=dict)
    # Values of keys that config.json may leave out.
    defaults: Mapping[str, Any] = field(default_factory=dict)
    # Keys that may only have this value: no other is built, and it is written again.
    only: Mapping[str, Any] = field(default_factory=dict)
    # What needs more than a word: settings -> fields, configuration -> settings.
    read: Callable[[ConfigJson], dict[str, Any]] = lambda settings: {}  # noqa: ARG005
    write: Callable[[ModelConfig], dict[str, Any]] = lambda config: {}  # noqa: ARG005
    # What only the tensors' names tell: whether there is a pooler, an own matrix for the head.
    refine: Callable[[ModelConfig, Collection[str]], ModelConfig] = lambda config, names: config  # noqa: ARG005
    # Whether only a part of each head may be rotated. transformers ignores the key elsewhere, or
    # fails over it.
    rotates_parts: bool = False
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


def table(text: str) -> tuple[TensorRow, ...]:
    """Read rows of `ours hugging_face [gguf] [layout]`; `+` joins what lies in one tensor.

    A name stands for its .weight and .bias, unless it ends in one of these. `{a,b} {c,d}` are two
    rows, one of a and c, one of b and d.
    """
    rows = []
    lines = (line for short in text.strip().splitlines() for line in _unfolded(short))
    for line in lines:
        *names, last = line.split()
        layout: Storage = next((kind for kind in get_args(Storage) if kind == last), "plain")
        ours, theirs, *gguf = names if layout == last else [*names, last]
        rows.append(TensorRow(tuple(ours.split("+")), theirs, *gguf, layout=layout))
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
# How most families spell their configuration, and what decoders have besides.
COMMON_KEYS = {
    "vocab_size": "vocab_size",
    "d_model": "hidden_size",
    "n_layers": "num_hidden_layers",
    "n_heads": "num_attention_heads",
    "d_ff": "intermediate_size",
    "max_positions": "max_position_embeddings",
    "activation": "hidden_act",
    "ties_embeddings": "tie_word_embeddings",
}
DECODER_KEYS = {
    **COMMON_KEYS,
    "n_kv_heads": "num_key_value_heads",
    "d_head": "head_dim",
    "norm_eps": "rms_norm_eps",
}


def rows_of(family: Family, config: ModelConfig, names: set[str]) -> Iterator[TensorRow]:
    """Yield the rows of a model with these parameters, spelled out for each layer.

    Each of `names` (ours) is in just one row; rows of parameters that it has not are left out.
    """
    patterns: dict[str, tuple[TensorRow, int]] = {}
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


def _spelled(row: TensorRow, ending: str, layer: str) -> TensorRow:
    def full(name: str) -> str:
        return name.replace("{i}", layer) + ending

    gguf = None if row.gguf is None else full(row.gguf)
    ours = tuple(full(name) for name in row.ours)
    is_plain = row.layout == "transposed" and ending == ".bias"
    return TensorRow(ours, full(row.hugging_face), gguf, "plain" if is_plain else row.layout)


def _natural(name: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdigit() else (-1, part) for part in name.split(".")]
