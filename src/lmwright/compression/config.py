"""The `[compress.NAME]` table."""

import math
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from lmwright.compression.algorithms import ALGORITHMS, SHORT_FORMS
from lmwright.core.config import Config
from lmwright.core.errors import RecipeError, suggestion


class Compress(Config):
    """Weight-only quantisation: symmetric integers, in groups along the input."""

    model: str
    # One of `ALGORITHMS`; "int8" and "int4" are short for "rtn" with so many bits.
    method: str
    bits: Literal[4, 8]
    # Weights that share a scale; must divide the input width of every matrix.
    group_size: int = Field(default=64, ge=8, le=65_536)

    @property
    def number_format(self) -> str:
        """How the weights are stored: "int8" or "int4"."""
        return f"int{self.bits}"

    def check_widths(self, widths: Mapping[str, int]) -> None:
        """Refuse a group size that does not divide the width of every matrix, given by name."""
        size = self.group_size
        unfit = next((name for name, width in widths.items() if width % size), None)
        if unfit is None:
            return
        common = math.gcd(*widths.values())
        fitting = [size for size in range(8, min(common, 256) + 1) if common % size == 0]
        none = f"none: all widths share only {common}"
        raise RecipeError(
            f"group_size = {size}: does not divide the width {widths[unfit]} of {unfit}; "
            f"sizes that fit all matrices: {', '.join(map(str, fitting)) or none}"
        )

    @model_validator(mode="before")
    @classmethod
    def _expand_short_form(cls, values: Any) -> Any:
        method = values.get("method") if isinstance(values, dict) else None
        if not isinstance(method, str) or method not in SHORT_FORMS:
            return values
        meant = SHORT_FORMS[method]
        if values.get("bits", meant["bits"]) != meant["bits"]:
            raise RecipeError(
                f"bits = {values['bits']!r}: method = {method!r} has {meant['bits']} bits; leave "
                'bits out, or write method = "rtn"'
            )
        return {**values, **meant}

    @field_validator("method")
    @classmethod
    def _check_method(cls, method: str) -> str:
        known = [*ALGORITHMS, *SHORT_FORMS]
        if method not in known:
            raise ValueError(f"known: {', '.join(known)}{suggestion(method, known)}")
        return method
