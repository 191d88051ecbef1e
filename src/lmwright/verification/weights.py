"""Where both models are here, the weights themselves and what a configuration makes of them.

Behaviour alone cannot tell a small fault in a file of four bits from its rounding.
"""

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from lmwright.verification.result import Check, limited
from lmwright.verification.subject import LocalSubject, Subject
from lmwright.verification.tolerances import Tolerance

if TYPE_CHECKING:
    from lmwright.model.config import ModelConfig, Rope

# Numbers that went through a float32 on the way.
SAME = 1e-5


@dataclass(frozen=True)
class WeightFindings:
    """How the weights of two models that are here differ."""

    # Settings without weights of their own that differ, in words.
    settings: tuple[str, ...]
    # What has another shape, or is missing, in words.
    shapes: str | None = None
    # The largest relative error of a tensor, and of which.
    error: float = 0.0
    tensor: str = ""

    @property
    def are_same(self) -> bool:
        """Whether each number is the same."""
        return self.shapes is None and self.error == 0

    def checks(self, tolerance: Tolerance) -> list[Check]:
        """Judge the findings by a tolerance."""
        same = "the same sizes, rotation, windows, norms and activations"
        checks = [Check("configuration", not self.settings, "; ".join(self.settings) or same)]
        if self.shapes is not None:
            return [*checks, Check("weights", False, self.shapes)]
        check = limited("weights", self.error, tolerance.weight_error, is_share=True)
        found = f"relative error up to {check.found} ({self.tensor})" if self.error else "the same"
        return [*checks, replace(check, found=found)]


def compare_weights(a: Subject, b: Subject) -> WeightFindings | None:
    """Compare tensor by tensor in our own names, which are the same for all files.

    None: one of the two does not show its weights.
    """
    if not (isinstance(a, LocalSubject) and isinstance(b, LocalSubject)):
        return None
    values = _values(a.model.config), _values(b.model.config)
    settings = tuple(
        f"{name} {_short(first)}, against {_short(values[1][name])}"
        for name, first in values[0].items()
        if not _is_same(first, values[1][name])
    )
    shapes_a, shapes_b = (
        {name: tuple(tensor.shape) for name, tensor in w.model.state_dict().items()} for w in (a, b)
    )
    if shapes_a != shapes_b:
        names = shapes_a.keys() | shapes_b.keys()
        first = min(name for name in names if shapes_a.get(name) != shapes_b.get(name))
        told = f"{first}: {_shape(shapes_a.get(first))}, against {_shape(shapes_b.get(first))}"
        return WeightFindings(settings, told)
    tensor, error = _largest_error(a, b)
    return WeightFindings(settings, error=error, tensor=tensor)


def _largest_error(a: LocalSubject, b: LocalSubject) -> tuple[str, float]:
    """Return the tensor that changed most: the root of squared errors over squares."""
    others = b.model.state_dict()
    worst = ("", 0.0)
    for name, first in a.model.state_dict().items():
        second = others[name].to(first.device)
        squares = float(first.float().square().sum())
        squared_errors = float((second - first).float().square().sum())
        error = math.sqrt(squared_errors / squares) if squares else float(squared_errors > 0)
        if not error <= worst[1]:  # NaN, too, is worse
            worst = (name, math.inf if math.isnan(error) else error)
    return worst


def _values(config: "ModelConfig") -> dict[str, object]:
    """Return what a configuration comes to, however it is spelt."""
    layers = range(config.n_decoder_layers or config.n_layers)
    is_rotary = config.positions == "rotary"
    return {
        "layers": (config.n_layers, config.n_decoder_layers),
        "heads": (config.n_heads, config.n_kv_heads),
        "context length": config.max_positions,
        "norm epsilon": config.norm_eps,
        "places of the norms": config.norm_places,
        "activation": (config.activation, config.is_gated),
        "scale of attention": config.attention_scale or config.d_head**-0.5,
        "soft-caps": (config.attention_softcap, config.logit_softcap),
        "scale of the embedding": config.embedding_scale,
        "scale of the head": config.head_scale,
        "windows": tuple(config.sliding_window if config.is_local(i) else None for i in layers),
        "rotation": _rotation(config.rope, config) if is_rotary else None,
        "rotation of local layers": (
            _rotation(config.local_rope, config) if is_rotary and config.local_rope else None
        ),
        "labels": config.labels,
        "suppressed tokens": config.suppressed_ids,
        "first tokens of an answer": (config.decoder_start_id, config.forced_bos_id),
    }


def _rotation(rope: "Rope", config: "ModelConfig") -> tuple[float, ...]:
    """Return the frequencies for a short and for the longest text, and the factor."""
    from lmwright.model.position import inverse_frequencies

    short, long = (
        inverse_frequencies(rope, config.d_head, length).tolist()
        for length in (1, config.max_positions)
    )
    return (*short, *long, rope.attention_factor)


def _is_same(first: object, second: object) -> bool:
    if isinstance(first, tuple) and isinstance(second, tuple):
        return len(first) == len(second) and all(map(_is_same, first, second))
    if isinstance(first, float) and isinstance(second, float):
        return math.isclose(first, second, rel_tol=SAME)
    return first == second


def _short(value: object) -> str:
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _shape(shape: tuple[int, ...] | None) -> str:
    return "missing" if shape is None else " x ".join(map(str, shape))
