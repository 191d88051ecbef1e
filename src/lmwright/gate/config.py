"""The `[gate]` table."""

from pydantic import Field

from lmwright.core.config import Config


class Gate(Config):
    """Rules that a model must fulfil before it ships; one that fails ends with exit code 3."""

    evaluation: str
    model: str
    # Compared with this model; by default the first of the evaluation.
    baseline: str | None = None
    # "qa_accuracy >= 80%", "bits_per_byte <= +2%", "gender_gap not worse", ...
    require: list[str] = Field(min_length=1)
