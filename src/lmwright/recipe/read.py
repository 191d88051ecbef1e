"""Reads a recipe: TOML, changes by `--set`, and a check of every table by itself."""

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import create_model

from lmwright.core.config import Config
from lmwright.core.errors import RecipeError, located, suggestion
from lmwright.core.stage import Stage
from lmwright.recipe.order import order
from lmwright.recipe.recipe import Recipe, RecipeHeader
from lmwright.recipe.stages import STAGES

# A table of a step, in it the table `hosted`, in that `prices`, and there pairs.
MAX_DEPTH = 16
TOO_DEEP = f"tables or lists inside each other deeper than {MAX_DEPTH} levels"


def read(path: Path, *, overrides: Sequence[str] = ()) -> Recipe:
    """Read and check a recipe file; `overrides` are like `seed=7` or `STAGE.STEP.KEY=VALUE`."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise RecipeError(
            f"{path}: no such recipe; `lmwright new {path.stem}` writes one to start from"
        ) from None
    except UnicodeDecodeError as error:
        raise RecipeError(f"{path}: not UTF-8 (byte {error.start}); a recipe is TOML") from None
    except OSError as error:
        raise RecipeError(f"{path}: cannot be read: {error.strerror}") from None
    return parse(text, where=str(path), overrides=overrides)


def parse(
    text: str,
    *,
    where: str = "recipe",
    overrides: Sequence[str] = (),
    stages: Mapping[str, Stage] = STAGES,
) -> Recipe:
    """Check a recipe written in TOML that may hold `stages`; an error starts with `where`."""
    table = _toml(text, f"{where}: not valid TOML")
    for override in overrides:
        _override(table, override)
    with located(f"{where}: "):
        _check_depth(table)
        recipe = _build(table, stages)
        order(recipe)
    return recipe if overrides else replace(recipe, text=text)


def _build(table: dict[str, Any], stages: Mapping[str, Stage]) -> Recipe:
    """Validate each table under its own name, so that an error says which one is wrong."""
    tables = {name: _steps(stages[name], table[name]) for name in stages if name in table}
    # With the stages among its keys, so that a misspelt one is told which it may be.
    keys: dict[str, Any] = dict.fromkeys(stages, (Any, None))
    head = create_model("RecipeKeys", __base__=RecipeHeader, **keys)(**table)
    return Recipe(head.name, head.seed, tables, stages)


def _steps(stage: Stage, table: Any) -> dict[str, Config]:
    """Validate the tables of a stage; one that may be unnamed is a step of the stage's name."""
    if not isinstance(table, dict):
        raise RecipeError(f"{stage.name} = {table!r}: expected tables such as [{stage.name}.NAME]")
    is_named = table and all(isinstance(step, dict) for step in table.values())
    if stage.may_be_unnamed and not is_named:
        return {stage.name: stage.config.read(table, stage.name)}
    for name, step in table.items():
        if not isinstance(step, dict):
            raise RecipeError(
                f"{stage.name}.{name} = {step!r}: a step needs a name; write [{stage.name}.NAME] "
                f"above this line"
            )
    return {name: stage.config.read(step, f"{stage.name}.{name}") for name, step in table.items()}


def _override(table: dict[str, Any], override: str) -> None:
    """Set one value in place, as `--set` asks for; it may add a key, but no step."""
    key, equals, value = override.partition("=")
    parts = [part.strip() for part in key.split(".")]
    if not equals or not all(parts):
        raise RecipeError(
            f"--set {override}: expected KEY=VALUE, as in seed=7 or STAGE.STEP.rank=8"
        )
    for depth, part in enumerate(parts[:-1]):
        inner = table.get(part)
        if not isinstance(inner, dict):
            tables = [name for name, known in table.items() if isinstance(known, dict)]
            raise RecipeError(
                f"--set {override}: the recipe has no table [{'.'.join(parts[: depth + 1])}]"
                f"{suggestion(part, tables)}"
            )
        table = inner
    table[parts[-1]] = _value(value.strip(), override)


def _value(text: str, override: str) -> Any:
    """Read a TOML value; a bare word is a string, so that `method=full` needs no quotes."""
    try:
        table = _toml(f"value = {text}", f"--set {override}: not a TOML value")
    except RecipeError:
        if text[:1] in ("[", "{", '"', "'"):
            raise
        return text
    # A line break could smuggle in a second key.
    return table["value"] if len(table) == 1 else text


def _toml(text: str, fault: str) -> dict[str, Any]:
    """Read TOML; what is none, or is more than Python reads, is an error that starts as given."""
    try:
        return tomllib.loads(text)
    # ValueError: not TOML, or a number of thousands of digits.
    except ValueError as error:
        raise RecipeError(f"{fault}: {error}") from None
    except RecursionError:
        raise RecipeError(f"{fault}: {TOO_DEEP}") from None


def _check_depth(table: dict[str, Any]) -> None:
    """Refuse tables and lists inside each other deeper than any recipe needs."""
    level: list[Any] = [table]
    for _ in range(MAX_DEPTH):
        inner = [each.values() if isinstance(each, dict) else each for each in level]
        level = [v for values in inner for v in values if isinstance(v, dict | list)]
    if level:
        raise RecipeError(TOO_DEEP)
