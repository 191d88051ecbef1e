"""The `[evaluate.NAME]` table."""

from typing import Literal

from pydantic import Field

from lmwright.core.config import Config

TaskName = Literal["facts", "multiple_choice", "bits_per_byte", "gender_gap", "refusals", "speed"]


class Evaluate(Config):
    """Models side by side on the same items, with intervals and verdicts."""

    # The first is the baseline of every comparison; each is also held against its parent.
    models: list[str] = Field(min_length=1)
    # quick: a fixed stratified sub-sample, under a minute a model on 2 cores; full: every item.
    suite: Literal["quick", "full"] = "quick"
    # Only these tasks (default: all that the data allows).
    tasks: list[TaskName] | None = None
    # The data step (or source) with held-out questions; the recipe's only one by default.
    data: str | None = None
    seed: int = Field(default=0, ge=0)
