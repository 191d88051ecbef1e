"""The `[report.NAME]` table."""

from lmwright.core.config import Config


class Report(Config):
    """A self-contained page (`report.html`) and a model card (`README.md`)."""

    evaluation: str
    # The gates whose decisions are shown (default: those of the same evaluation).
    gates: list[str] | None = None
