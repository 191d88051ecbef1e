"""The `[data.NAME]` table."""

from pydantic import Field

from lmwright.core.config import Config


class Data(Config):
    """Text or dialogues for training and the questions to test them on."""

    # starter:NAME, a file, a folder, a glob, hub:ORG/NAME; several are read one after another.
    source: str | list[str]
    # A system message for samples that have none.
    system: str | None = None
    # The share of the samples that training never sees and that gives the validation loss.
    validation: float = Field(default=0.05, gt=0, lt=1)
    # Use only so many samples (drawn at random by the seed).
    limit: int | None = Field(default=None, ge=1)
    seed: int = Field(default=0, ge=0)

    @property
    def sources(self) -> list[str]:
        """All sources, also of a table that names only one."""
        return [self.source] if isinstance(self.source, str) else self.source
