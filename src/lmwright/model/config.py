"""The shape of a model, in our own words; families translate their `config.json` to it."""

import math
from dataclasses import dataclass, field
from typing import Literal

from lmwright.core.errors import ModelError


@dataclass(frozen=True)
class Rope:
    """Rotary position embedding and how it is stretched to longer contexts."""

    theta: float = 10_000.0
    # linear: positions divided by `factor`.  llama3: low frequencies divided, high ones kept,
    # a smooth passage between (Llama 3.1, meta-llama/llama-models, apply_scaling).
    scaling: Literal["none", "linear", "llama3"] = "none"
    factor: float = 1.0
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    original_max_positions: int = 8192

    def __post_init__(self) -> None:
        for name, value in (("theta", self.theta), ("factor", self.factor)):
            if not 0 < value < math.inf:
                raise ModelError(f"rope {name} = {value!r}: expected a number above 0")
        if not self.low_freq_factor < self.high_freq_factor:
            raise ModelError(
                f"rope low_freq_factor = {self.low_freq_factor!r}: expected less than "
                f"high_freq_factor = {self.high_freq_factor!r}"
            )


@dataclass(frozen=True)
class ModelConfig:
    """Sizes and choices of a decoder; every choice is taken once, when the modules are built."""

    family: str
    vocab_size: int
    d_model: int
    n_layers: int
    n_heads: int
    n_kv_heads: int
    d_head: int
    d_ff: int
    max_positions: int
    norm_eps: float = 1e-5
    rope: Rope = field(default_factory=Rope)
    # A token sees so many tokens back, itself included (Mistral); None: all of them.
    sliding_window: int | None = None
    ties_embeddings: bool = False
    bos_id: int | None = None
    eos_ids: tuple[int, ...] = ()
    pad_id: int | None = None

    def __post_init__(self) -> None:
        bounds = {
            "vocab_size": (self.vocab_size, 1, 2**24),
            "d_model": (self.d_model, 1, 2**17),
            "n_layers": (self.n_layers, 1, 2**12),
            "n_heads": (self.n_heads, 1, 2**12),
            "n_kv_heads": (self.n_kv_heads, 1, 2**12),
            "d_head": (self.d_head, 2, 2**12),
            "d_ff": (self.d_ff, 1, 2**20),
            "max_positions": (self.max_positions, 1, 2**28),
        }
        if self.sliding_window is not None:
            bounds["sliding_window"] = (self.sliding_window, 1, 2**28)
        for name, (value, low, high) in bounds.items():
            if type(value) is not int or not low <= value <= high:
                raise ModelError(f"{name} = {value!r}: expected a whole number {low} to {high}")
        for id_ in (self.bos_id, self.pad_id, *self.eos_ids):
            if id_ is not None and type(id_) is not int:
                raise ModelError(f"{id_!r} is no token id; expected a whole number")
        if not 0 < self.norm_eps < 1:
            raise ModelError(f"norm_eps = {self.norm_eps!r}: expected a number between 0 and 1")
        if not isinstance(self.ties_embeddings, bool):
            raise ModelError(f"ties_embeddings = {self.ties_embeddings!r}: expected true or false")
        if self.n_heads % self.n_kv_heads:
            raise ModelError(
                f"n_heads = {self.n_heads} is no multiple of n_kv_heads = {self.n_kv_heads}: "
                "every key/value head must serve the same number of query heads"
            )
        if self.d_head % 2:
            raise ModelError(f"d_head = {self.d_head}: rotary embedding needs an even width")
