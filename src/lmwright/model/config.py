"""The shape of a model, in our own words; families translate their `config.json` to it."""

import math
from dataclasses import dataclass, field
from typing import Literal, get_args

from lmwright.core.errors import ModelError

Scaling = Literal["none", "linear", "dynamic", "llama3", "yarn", "longrope"]
Positions = Literal["rotary", "learned", "sinusoidal", "relative"]
Activation = Literal["silu", "gelu", "gelu_tanh", "relu", "tanh"]
NormPlace = Literal["in", "out", "sum"]
Head = Literal["language", "masked", "pretraining", "sequence", "tokens", "none"]


@dataclass(frozen=True)
class Rope:
    """Rotary position embedding and how it is stretched to longer contexts."""

    theta: float = 10_000.0
    # How each stretches is told in position.py, beside its function.
    scaling: Scaling = "none"
    factor: float = 1.0
    # The context that the model was trained on before it was stretched.
    original_max_positions: int = 8192
    # llama3: rotations within that context below which a frequency is divided, above which kept.
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    # yarn: the same two bounds under their names there.
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    # longrope: one divisor a frequency, within the original context and beyond it.
    short_factors: tuple[float, ...] = ()
    long_factors: tuple[float, ...] = ()
    # yarn and longrope: cosine and sine are multiplied by this, which sharpens attention.
    attention_factor: float = 1.0
    # The part of a head that is rotated, from its first channel (Phi-4-mini: 0.75).
    fraction: float = 1.0

    def __post_init__(self) -> None:
        _check_literal("rope scaling", self.scaling, Scaling)
        for name in ("theta", "factor", "beta_fast", "beta_slow", "attention_factor"):
            _check_positive(f"rope {name}", getattr(self, name))
        if self.original_max_positions < 1:
            raise ModelError(
                f"rope original_max_positions = {self.original_max_positions}: expected 1 or more"
            )
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
    vocab_size: int
    d_model: int
    # Of an encoder-decoder: those of its encoder.
    n_layers: int
    n_heads: int
    n_kv_heads: int
    d_head: int
    d_ff: int
    max_positions: int
    n_decoder_layers: int = 0

    # Where tokens stand
    positions: Positions = "rotary"
    # Learned positions begin behind so many unused rows (RoBERTa and BART: 2).
    position_offset: int = 0
    rope: Rope = field(default_factory=Rope)
    # Rotation of the layers with a sliding window, where it is another one (Gemma 3).
    local_rope: Rope | None = None
    # T5: distances share a bias a bucket, the far ones logarithmically.
    relative_buckets: int = 32
    relative_max_distance: int = 128

    # Norms
    norm: Literal["rms", "layer"] = "rms"
    norm_eps: float = 1e-5
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
    attention_scale: float | None = None
    # Scores, or logits, are kept within +-cap by cap * tanh(x / cap) (Gemma 2).
    attention_softcap: float | None = None
    logit_softcap: float | None = None
    # A token sees so many tokens back, itself included; None: all of them.
    sliding_window: int | None = None
    # Which layers have the window; empty: all.
    local_layers: tuple[bool, ...] = ()

    # Feed-forward
    activation: Activation = "silu"
    is_gated: bool = True
    mlp_bias: bool = False

    # Embedding and heads
    embedding_scale: float = 1.0
    n_token_types: int = 0
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

    def __post_init__(self) -> None:
        _check_sizes(self)
        _check_choices(self)
        _check_ids(self)

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


def _check_sizes(config: ModelConfig) -> None:
    bounds = {
        "vocab_size": (1, 2**24),
        "d_model": (1, 2**17),
        "n_layers": (1, 2**12),
        "n_decoder_layers": (0, 2**12),
        "n_heads": (1, 2**12),
        "n_kv_heads": (1, 2**12),
        "d_head": (1, 2**12),
        "d_ff": (1, 2**20),
        "max_positions": (1, 2**28),
        "position_offset": (0, 2**16),
        "relative_buckets": (4, 2**12),
        "relative_max_distance": (config.relative_buckets, 2**20),
        "n_token_types": (0, 2**12),
    }
    if config.sliding_window is not None:
        bounds["sliding_window"] = (1, 2**28)
    for name, (low, high) in bounds.items():
        value = getattr(config, name)
        if type(value) is not int or not low <= value <= high:
            raise ModelError(f"{name} = {value!r}: expected a whole number {low} to {high}")
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


def _check_choices(config: ModelConfig) -> None:
    _check_literal("positions", config.positions, Positions)
    _check_literal("activation", config.activation, Activation)
    _check_literal("pooler_activation", config.pooler_activation, Activation)
    _check_literal("head", config.head, Head)
    for name, value in vars(config).items():
        is_flag = name.startswith(("has_", "is_", "ties_")) or name.endswith("_bias")
        if is_flag and not isinstance(value, bool):
            raise ModelError(f"{name} = {value!r}: expected true or false")
    if not 0 < config.norm_eps < 1:
        raise ModelError(f"norm_eps = {config.norm_eps!r}: expected a number between 0 and 1")
    for name in ("attention_scale", "attention_softcap", "logit_softcap", "embedding_scale"):
        if getattr(config, name) is not None:
            _check_positive(name, getattr(config, name))
    if config.head in ("sequence", "tokens") and not config.labels:
        raise ModelError(f"a {config.head} head needs labels; the configuration names none")


def _check_ids(config: ModelConfig) -> None:
    ids = (config.bos_id, config.pad_id, config.decoder_start_id, config.forced_bos_id)
    for id_ in (*ids, *config.eos_ids, *config.suppressed_ids):
        if id_ is not None and type(id_) is not int:
            raise ModelError(f"{id_!r} is no token id; expected a whole number")


def _check_positive(name: str, value: float) -> None:
    if not 0 < value < math.inf:
        raise ModelError(f"{name} = {value!r}: expected a number above 0")


def _check_literal(name: str, value: object, kind: object) -> None:
    if value not in get_args(kind):
        raise ModelError(f"{name} = {value!r}; known: {', '.join(get_args(kind))}")
