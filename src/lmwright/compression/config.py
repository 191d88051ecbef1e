"""The `[compress.NAME]` table."""

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
    group_size: int = Field(default=64, ge=8)

    @property
    def number_format(self) -> str:
        """How the weights are stored: "int8" or "int4"."""
        return f"int{self.bits}"

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
