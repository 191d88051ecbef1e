"""The recipe: the whole plan as one value."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import Field

from lmwright.core.config import Config
from lmwright.core.stage import Stage
from lmwright.recipe.stages import STAGES

NAME = r"[A-Za-z0-9_-]+"


class Header(Config):
    """What stands above the tables of a recipe."""

    name: str = Field(pattern=f"^{NAME}$")
    # Steps that do not set their own seed take this one.
    seed: int = Field(default=0, ge=0)


@dataclass(frozen=True)
class Recipe:
    """A whole plan; `order` checks what its steps say about each other."""

    name: str
    seed: int = 0
    # Stage -> step -> its table, each checked by itself.
    tables: Mapping[str, Mapping[str, Config]] = field(default_factory=dict)
    stages: Mapping[str, Stage] = field(default_factory=lambda: STAGES, repr=False)
    # The file as it was written, comments included; None if made or changed by a program.
    text: str | None = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        Header(name=self.name, seed=self.seed)

    def to_toml(self) -> str:
        """Return the file that this recipe was read from, or one that says the same."""
        if self.text is not None:
            return self.text
        plain: dict[str, Any] = {"name": self.name, "seed": self.seed}
        for stage, steps in self.tables.items():
            tables = {
                name: config.model_dump(mode="json", exclude_none=True, exclude_unset=True)
                for name, config in steps.items()
            }
            is_unnamed = self.stages[stage].may_be_unnamed and list(tables) == [stage]
            plain[stage] = tables[stage] if is_unnamed else tables
        return "\n".join(_toml_lines(plain, ())).strip() + "\n"


def _toml_lines(table: dict[str, Any], path: tuple[str, ...]) -> list[str]:
    """Write plain values as TOML: the scalars of a table first, then the tables in it."""
    scalars = {key: value for key, value in table.items() if not isinstance(value, dict)}
    lines = [f"{_toml_key(key)} = {_toml_value(value)}" for key, value in scalars.items()]
    if lines and path:
        lines.insert(0, f"[{'.'.join(map(_toml_key, path))}]")
    if lines:
        lines.append("")
    for key, value in table.items():
        if isinstance(value, dict):
            lines += _toml_lines(value, (*path, key))
    return lines


def _toml_key(key: str) -> str:
    return key if re.fullmatch(NAME, key) else _toml_value(key)


def _toml_value(value: Any) -> str:
    # Strings, numbers, booleans and lists of them look alike in JSON and TOML, but for DEL.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
