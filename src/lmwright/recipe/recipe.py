"""The recipe: the whole plan as one value."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import field_validator

from lmwright.core.config import Config, SeedNumber
from lmwright.core.stage import Stage
from lmwright.recipe.stages import STAGES

# A name is a folder's name, too; file systems take 255 bytes.
NAME = r"[A-Za-z0-9_-]{1,100}"
NAME_RULE = "a name has only letters, digits, - and _, at most 100 of them"


class RecipeHeader(Config):
    """What stands above the tables of a recipe."""

    name: str
    # Steps that do not set their own seed take this one.
    seed: SeedNumber = 0

    @field_validator("name")
    @classmethod
    def _check_name(cls, name: str) -> str:
        if fault := name_fault(name):
            raise ValueError(fault)
        return name


def name_fault(name: str) -> str | None:
    """Say why a name could not be a folder's, with one that could; nothing of a good one."""
    if re.fullmatch(NAME, name):
        return None
    fitting = re.sub("[^A-Za-z0-9_-]+", "-", name).strip("-")[:30] or "mine"
    return f"{NAME_RULE}; for example {fitting}"


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
        RecipeHeader(name=self.name, seed=self.seed)

    def to_toml(self) -> str:
        """Return the file that this recipe was read from, or one that says the same."""
        if self.text is not None:
            return self.text
        lines = [f"name = {_toml(self.name)}", f"seed = {self.seed}"]
        for stage, steps in self.tables.items():
            for name, config in steps.items():
                is_unnamed = self.stages[stage].may_be_unnamed and name == stage
                lines += ["", f"[{stage}]" if is_unnamed else f"[{stage}.{_key(name)}]"]
                plain = config.model_dump(mode="json", exclude_none=True, exclude_unset=True)
                lines += [f"{_key(key)} = {_toml(value)}" for key, value in plain.items()]
        return "\n".join(lines) + "\n"


def _key(key: str) -> str:
    return key if re.fullmatch(NAME, key) else _toml(key)


def _toml(value: Any) -> str:
    """Write a plain value as TOML, tables in one line."""
    if isinstance(value, dict):
        return f"{{{', '.join(f'{_key(key)} = {_toml(inner)}' for key, inner in value.items())}}}"
    if isinstance(value, list):
        return f"[{', '.join(map(_toml, value))}]"
    # Strings, numbers and booleans look alike in JSON and TOML, but for DEL.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
