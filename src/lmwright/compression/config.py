"""The `[compress.NAME]` table."""

from typing import Literal

from pydantic import Field

from lmwright.core.config import Config


class Compress(Config):
    """Weight-only quantisation: symmetric, in groups along the input, round to nearest."""

    model: str
    method: Literal["int8", "int4"]
    # Weights that share a scale; must divide the input width of every matrix.
    group_size: int = Field(default=64, ge=8)
