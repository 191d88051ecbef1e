"""The `[data.NAME]` table."""

from typing import Any

from pydantic import Field, field_validator

from lmwright.core.config import Config, SeedNumber


class Data(Config):
    """Text or dialogues for training and the questions to test them on."""

    # starter:NAME, a file, a folder, a glob, hub:ORG/NAME; several are read one after another.
    source: str | list[str]
    # A system message for samples that have none.
    system: str | None = None
    # The share of the samples that training never sees and that gives the validation loss.
    validation: float = Field(default=0.05, gt=0, lt=1)
    # Use only so many samples (drawn at random by the seed).
    limit: int | None = Field(default=None, ge=1, le=1_000_000_000)
    seed: SeedNumber = 0

    @property
    def sources(self) -> list[str]:
        """All sources, also of a table that names only one."""
        return [self.source] if isinstance(self.source, str) else self.source

    @field_validator("source", mode="before")
    @classmethod
    def _check_source(cls, given: Any) -> Any:
        # An empty text would be the present folder.
        each = given if isinstance(given, list) else [given]
        if not each or not all(isinstance(text, str) and text.strip() for text in each):
            raise ValueError("expected the name of a source that is not empty, or a list of them")
        return given
