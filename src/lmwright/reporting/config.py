"""The `[report.NAME]` table."""

from pydantic import Field

from lmwright.core.config import Config


class Report(Config):
    """A self-contained page (`report.html`) and a model card (`README.md`)."""

    evaluation: str
    seed: int = Field(default=0, ge=0)
