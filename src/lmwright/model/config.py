"""The shape of a model, in our own words; families translate their `config.json` to it."""

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
        for name, (value, low, high) in bounds.items():
            if not isinstance(value, int) or not low <= value <= high:
                raise ModelError(f"{name} = {value!r}: expected a whole number {low} to {high}")
        if self.n_heads % self.n_kv_heads:
            raise ModelError(
                f"n_heads = {self.n_heads} is no multiple of n_kv_heads = {self.n_kv_heads}: "
                "every key/value head must serve the same number of query heads"
            )
        if self.d_head % 2:
            raise ModelError(f"d_head = {self.d_head}: rotary embedding needs an even width")
