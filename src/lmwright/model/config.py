"""The shape of a model, in our own words; families translate their `config.json` to it."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import cache
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

from lmwright.core.errors import ModelError
from lmwright.formats.settings import is_number, is_token, shown

Scaling = Literal["none", "linear", "dynamic", "llama3", "yarn", "longrope"]
Positions = Literal["rotary", "learned", "sinusoidal", "relative"]
Activation = Literal["silu", "gelu", "gelu_tanh", "relu", "tanh"]
NormPlace = Literal["in", "out", "sum"]
Head = Literal["language", "masked", "pretraining", "sequence", "tokens", "none"]
# Bounds of a field: a range of whole numbers, or two that a number must lie between.
Count = Annotated[int, range(1, 2**12 + 1)]
CountOrNone = Annotated[int, range(2**12 + 1)]
Length = Annotated[int, range(1, 2**28 + 1)]
Positive = Annotated[float, (0, math.inf)]


@dataclass(frozen=True)
class Rope:
    """Rotary position embedding and how it is stretched to longer contexts."""

    theta: Positive = 10_000.0
    # How each stretches is told in position.py, beside its function.
    scaling: Scaling = "none"
    factor: Positive = 1.0
    # The context that the model was trained on before it was stretched.
    original_max_positions: Length = 8192
    # llama3: rotations within that context below which a frequency is divided, above which kept.
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    # yarn: the same two bounds under their names there.
    beta_fast: Positive = 32.0
    beta_slow: Positive = 1.0
    # longrope: one divisor a frequency, within the original context and beyond it.
    short_factors: tuple[float, ...] = ()
    long_factors: tuple[float, ...] = ()
    # yarn and longrope: cosine and sine are multiplied by this, which sharpens attention.
    attention_factor: Positive = 1.0
    # The part of a head that is rotated, from its first channel (Phi-4-mini: 0.75).
    fraction: float = 1.0

    def __post_init__(self) -> None:
        _check_fields(self, "rope ")
        if not 0 < self.fraction <= 1:
            raise ModelError(f"rope fraction = {self.fraction!r}: expected more than 0, at most 1")
        if not self.low_freq_factor < self.high_freq_factor:
            raise ModelError(
                f"rope low_freq_factor = {self.low_freq_factor!r}: expected less than "
                f"high_freq_factor = {self.high_freq_factor!r}"
            )


@dataclass(frozen=True)
class ModelConfig:
    """Sizes and choices of a model; every choice is taken once, when the modules are built."""

    family: str
    vocab_size: Annotated[int, range(1, 2**24 + 1)]
    d_model: Annotated[int, range(1, 2**17 + 1)]
    # Of an encoder-decoder: those of its encoder.
    n_layers: Count
    n_heads: Count
    n_kv_heads: Count
    d_head: Count
    d_ff: Annotated[int, range(1, 2**20 + 1)]
    max_positions: Length
    n_decoder_layers: CountOrNone = 0

    # Where tokens stand
    positions: Positions = "rotary"
    # Learned positions begin behind so many unused rows (RoBERTa and BART: 2).
    position_offset: Annotated[int, range(2**16 + 1)] = 0
    rope: Rope = field(default_factory=Rope)
    # Rotation of the layers with a sliding window, where it is another one (Gemma 3).
    local_rope: Rope | None = None
    # T5: distances share a bias a bucket, the far ones logarithmically.
    relative_buckets: Annotated[int, range(4, 2**12 + 1)] = 32
    relative_max_distance: Annotated[int, range(4, 2**20 + 1)] = 128

    # Norms
    norm: Literal["rms", "layer"] = "rms"
    norm_eps: Annotated[float, (0, 1)] = 1e-5
    # Added to the norms' weights (Gemma stores w - 1).
    norm_offset: float = 0.0
    # Before a branch, behind it, behind the sum with the residual; any of the three.
    norm_places: tuple[NormPlace, ...] = ("in",)
    has_embedding_norm: bool = False
    has_final_norm: bool = True
    # Queries and keys are normed head by head (Qwen 3, Gemma 3) or in their full width (OLMo 2).
    qk_norm: Literal["none", "head", "width"] = "none"

    # Attention
    qkv_bias: bool = False
    out_bias: bool = False
    # Factor of the scores; None: 1 / sqrt(d_head).
    attention_scale: Positive | None = None
    # Scores, or logits, are kept within +-cap by cap * tanh(x / cap) (Gemma 2).
    attention_softcap: Positive | None = None
    logit_softcap: Positive | None = None
    # A token sees so many tokens back, itself included; None: all of them.
    sliding_window: Length | None = None
    # Which layers have the window; empty: all.
    local_layers: tuple[bool, ...] = ()

    # Feed-forward
    activation: Activation = "silu"
    is_gated: bool = True
    mlp_bias: bool = False

    # Embedding and heads
    embedding_scale: Positive = 1.0
    n_token_types: CountOrNone = 0
    ties_embeddings: bool = False
    head: Head = "language"
    head_bias: bool = False
    head_scale: float = 1.0
    has_pooler: bool = False
    pooler_activation: Activation = "tanh"
    # Names of the classes of a sequence or token head; a single one of a regression.
    labels: tuple[str, ...] = ()
    problem: Literal["single_label", "multi_label", "regression"] = "single_label"

    # Tokens with a role
    bos_id: int | None = None
    eos_ids: tuple[int, ...] = ()
    pad_id: int | None = None
    # An encoder-decoder's answer begins with the first, then the second if there is one.
    decoder_start_id: int | None = None
    forced_bos_id: int | None = None
    # Never generated (Marian's padding).
    suppressed_ids: tuple[int, ...] = ()
    # What generation_config.json says besides (temperature, top_p, ...), kept for whoever opens the
    # saved folder.
    generation: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        _check_fields(self)
        _check_sizes(self)
        if self.head in ("sequence", "tokens") and not self.labels:
            raise ModelError(f"a {self.head} head needs labels; the configuration names none")
        _check_tokens(self)

    def is_local(self, layer: int) -> bool:
        """Tell whether this layer sees through the sliding window only."""
        if self.sliding_window is None:
            return False
        return self.local_layers[layer] if self.local_layers else True

    @property
    def windows(self) -> frozenset[int | None]:
        """The windows that occur among the layers; None is a layer that sees everything."""
        layers = range(self.n_decoder_layers or self.n_layers)
        return frozenset(self.sliding_window if self.is_local(i) else None for i in layers)


def check_field(record: type, name: str, value: Any, *, key: str) -> None:
    """Hold a value against the type of a field: a choice, a flag, or the bounds of a number.

    `key` is what the message calls it.
    """
    hint, may_lack = _hints(record)[name]
    if value is None and may_lack:
        return
    bounds = getattr(hint, "__metadata__", (None,))[0]
    told = f"{key} = {shown(value)}"
    # In a list: a value from a file may be what no set can look up.
    if get_origin(hint) is Literal and value not in list(get_args(hint)):
        raise ModelError(f"{told}; known: {', '.join(get_args(hint))}")
    if hint is bool and not isinstance(value, bool):
        raise ModelError(f"{told}: expected true or false")
    if isinstance(bounds, range) and (type(value) is not int or value not in bounds):
        raise ModelError(f"{told}: expected a whole number {bounds[0]} to {bounds[-1]}")
    if isinstance(bounds, tuple) and not (is_number(value) and bounds[0] < value < bounds[1]):
        below = "" if bounds[1] == math.inf else f", below {bounds[1]}"
        raise ModelError(f"{told}: expected a number above {bounds[0]}{below}")


@cache
def _hints(record: type) -> dict[str, tuple[Any, bool]]:
    """Return of each field its type, and whether it may be None."""
    hints = get_type_hints(record, include_extras=True)
    return {
        each.name: (get_args(hints[each.name])[0], True)
        if each.default is None
        else (hints[each.name], False)
        for each in fields(record)
    }


def _check_fields(record: Any, of: str = "") -> None:
    for each in fields(record):
        value = getattr(record, each.name)
        check_field(type(record), each.name, value, key=f"{of}{each.name}")


def _check_tokens(config: ModelConfig) -> None:
    roles = ("bos_id", "pad_id", "decoder_start_id", "forced_bos_id", "eos_ids", "suppressed_ids")
    for name in roles:
        value = getattr(config, name)
        # transformers gives small models the BOS, EOS and padding of large ones, and never meets
        # them. The others are read, or written to.
        is_met = name not in ("bos_id", "pad_id", "eos_ids")
        n_tokens = config.vocab_size if is_met else math.inf
        for id_ in value if isinstance(value, tuple) else (value,):
            if id_ is not None and not (is_token(id_) and id_ < n_tokens):
                raise ModelError(
                    f"{name}: {shown(id_)} is the id of no token; expected a whole number below "
                    f"vocab_size = {config.vocab_size:,}"
                )


def _check_sizes(config: ModelConfig) -> None:
    if config.relative_max_distance < config.relative_buckets:
        raise ModelError(
            f"relative_max_distance = {config.relative_max_distance}: expected at least "
            f"relative_buckets = {config.relative_buckets}"
        )
    if config.n_heads % config.n_kv_heads:
        raise ModelError(
            f"n_heads = {config.n_heads} is no multiple of n_kv_heads = {config.n_kv_heads}: "
            "every key/value head must serve the same number of query heads"
        )
    if config.local_layers and len(config.local_layers) != config.n_layers:
        raise ModelError(
            f"{len(config.local_layers)} types for {config.n_layers} layers: expected one each"
        )
    ropes = (config.rope, config.local_rope) if config.positions == "rotary" else ()
    for rope in ropes:
        if rope is not None:
            _check_rope(rope, config.d_head)


def _check_rope(rope: Rope, d_head: int) -> None:
    d_rotated = int(d_head * rope.fraction)
    if d_rotated % 2 or not d_rotated:
        raise ModelError(f"rotary embedding of {d_rotated} channels: their number must be even")
    for name in ("short_factors", "long_factors") if rope.scaling == "longrope" else ():
        n_factors = len(getattr(rope, name))
        if n_factors != d_rotated // 2:
            raise ModelError(
                f"rope has {n_factors} {name} for {d_rotated // 2} frequencies: expected one each"
            )
