"""Where both models are here, the weights themselves and what a configuration makes of them.

Behaviour alone cannot tell a small fault in a file of four bits from its rounding.
"""

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from lmwright.verification.result import Check, limited
from lmwright.verification.subject import LocalSubject, Subject
from lmwright.verification.tolerances import (
    Tolerance,
    format_tolerance,
    row_error_allowed,
    step_allowed,
)

if TYPE_CHECKING:
    from torch import Tensor

    from lmwright.model.config import ModelConfig, Rope

# Numbers that went through a float32 on the way.
SAME = 1e-5


@dataclass(frozen=True)
class WeightError:
    """The relative error of a tensor, or of one of its rows."""

    # The root of squared errors over squares.
    error: float = 0.0
    tensor: str = ""
    # How B stores the tensor, and what that explains.
    stored: str = "fp32"
    allowed: float = 0.0
    row: int | None = None

    @property
    def excess(self) -> float:
        """The error in units of what is allowed."""
        return self.error / self.allowed if self.error else 0.0

    def check(self, name: str, *, is_judged: bool) -> Check:
        """Judge it by the format of its own tensor."""
        found = limited(name, self.error, self.allowed if is_judged else None, is_share=True)
        if not self.error:
            return found
        where = f"{self.tensor}{'' if self.row is None else f', row {self.row}'}, {self.stored}"
        return replace(found, found=f"relative error up to {found.found} ({where})")


@dataclass(frozen=True)
class WeightFindings:
    """How the weights of two models that are here differ."""

    # Settings without weights of their own that differ, in words.
    settings: tuple[str, ...]
    # What has another shape, or is missing, in words.
    shapes: str | None = None
    are_same: bool = False
    # The largest relative error of a tensor.
    error: float = 0.0
    # The tensor, and the row of one, whose format explains least of its error.
    tensor: WeightError = WeightError()
    row: WeightError = WeightError()

    def checks(self, tolerance: Tolerance) -> list[Check]:
        """Judge the findings, unless a tolerance says nothing of weights."""
        same = "the same sizes, rotation, windows, norms and activations"
        checks = [Check("configuration", not self.settings, "; ".join(self.settings) or same)]
        if self.shapes is not None:
            return [*checks, Check("weights", False, self.shapes)]
        if self.are_same:
            return [*checks, Check("weights", True, "the same")]
        is_judged = tolerance.judges_weights
        return [
            *checks,
            self.tensor.check("weights", is_judged=is_judged),
            self.row.check("rows of weights", is_judged=is_judged),
        ]


def compare_weights(a: Subject, b: Subject) -> WeightFindings | None:
    """Compare tensor by tensor in our own names, which are the same for all files.

    None: the files of one of the two are not here.
    """
    if a.here is None or b.here is None:
        return None
    return _compare_local(a.here, b.here)


def _compare_local(a: LocalSubject, b: LocalSubject) -> WeightFindings:
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
    return _compare_tensors(a, b, settings)


def _compare_tensors(a: LocalSubject, b: LocalSubject, settings: tuple[str, ...]) -> WeightFindings:
    others = b.model.state_dict()
    are_same, largest = True, 0.0
    worst, worst_row = WeightError(), WeightError()
    for name, first in a.model.state_dict().items():
        stored = b.stored.of(name)
        squares, squared_errors = _squares(first, others[name].to(first.device))
        are_same = are_same and not float(squared_errors.sum())
        # What a format cannot tell from nothing is no error of the file.
        step = step_allowed(stored) * (first.numel() / len(squares)) ** 0.5
        rows = _relative(squared_errors, squares, step)
        row = int(rows.argmax())
        tensor = _relative(
            squared_errors.sum()[None], squares.sum()[None], step * len(squares) ** 0.5
        )
        allowed = format_tolerance(stored).weight_error
        assert allowed is not None
        found = WeightError(float(tensor), name, stored, allowed)
        largest = max(largest, found.error)
        worst = max(worst, found, key=lambda each: each.excess)
        place = row if first.ndim > 1 else None
        found = WeightError(float(rows[row]), name, stored, row_error_allowed(stored), place)
        worst_row = max(worst_row, found, key=lambda each: each.excess)
    return WeightFindings(settings, are_same=are_same, error=largest, tensor=worst, row=worst_row)


def _squares(first: "Tensor", second: "Tensor") -> "tuple[Tensor, Tensor]":
    """Return the sums of squares and of squared errors of each row (N,); a vector is one row."""
    import torch

    rows = first if first.ndim > 1 else first[None]
    errors = (second - first).view(rows.shape)
    axes = tuple(range(1, rows.ndim))
    squares, squared_errors = (
        values.float().square().sum(axes, dtype=torch.float64) for values in (rows, errors)
    )
    return squares, squared_errors


def _relative(squared_errors: "Tensor", squares: "Tensor", step: float) -> "Tensor":
    """Return relative errors, less a step that each number may be off; NaN counts as infinite."""
    import torch

    rest = (squared_errors.sqrt() - step).clamp(min=0.0)
    # An error beside nothing is a whole one.
    found = torch.where(squares == 0, (rest > 0).double(), rest / squares.sqrt())
    return found.nan_to_num(nan=math.inf, posinf=math.inf)


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
