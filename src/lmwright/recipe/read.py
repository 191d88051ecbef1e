"""The recipe: the whole plan as one strictly validated value, and the order its steps imply."""

import json
import re
import tomllib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field, PrivateAttr

from lmwright.compression.config import Compress
from lmwright.core.config import Config
from lmwright.core.errors import ModelError, RecipeError, suggestion
from lmwright.data.config import Data
from lmwright.evaluation.config import Evaluate
from lmwright.finetuning.config import Finetune
from lmwright.gate import rules
from lmwright.gate.config import Gate
from lmwright.hosted import address
from lmwright.hub import REFERENCE, resolve
from lmwright.reporting.config import Report

NAME = r"[A-Za-z0-9_-]+"

# The tables that hold steps, in the order in which independent steps are done.
TABLES: dict[str, type[Config]] = {
    "data": Data,
    "finetune": Finetune,
    "compress": Compress,
    "evaluate": Evaluate,
    "report": Report,
}

# Which keys of a table name other steps, and what kind of thing they must name ...
REFERENCES: dict[str, dict[str, str]] = {
    "data": {},
    "finetune": {"model": "model", "data": "data"},
    "compress": {"model": "model"},
    "evaluate": {"models": "model", "data": "data"},
    "report": {"evaluation": "evaluation"},
}

# ... and which tables make such a thing.
MAKERS: dict[str, tuple[str, ...]] = {
    "model": ("finetune", "compress"),
    "data": ("data",),
    "evaluation": ("evaluate",),
}


class Recipe(Config):
    """A whole plan; `order` checks what its steps say about each other."""

    name: str = Field(pattern=f"^{NAME}$")
    # Steps that do not set their own seed take this one.
    seed: int = Field(default=0, ge=0)
    data: dict[str, Data] = Field(default={})
    finetune: dict[str, Finetune] = Field(default={})
    compress: dict[str, Compress] = Field(default={})
    evaluate: dict[str, Evaluate] = Field(default={})
    gate: Gate | None = None
    report: dict[str, Report] = Field(default={})

    # The file as it was written, comments included; None if made or changed by a program.
    _text: str | None = PrivateAttr(default=None)

    def to_toml(self) -> str:
        """Return the file that this recipe was read from, or one that says the same."""
        if self._text is not None:
            return self._text
        plain = self.model_dump(mode="json", exclude_none=True, exclude_unset=True)
        return "\n".join(_toml_lines(plain, ())).strip() + "\n"


@dataclass(frozen=True)
class Step:
    """One table of the recipe with everything that it leaves open filled in."""

    stage: str
    name: str
    config: Config
    # The names in its keys, as written: other steps, or models from elsewhere.
    references: tuple[str, ...]

    @property
    def parent(self) -> str | None:
        """The model that this one is made from; None for a step that makes no model."""
        # Every table in MAKERS["model"] has this key.
        return getattr(self.config, "model") if self.stage in MAKERS["model"] else None  # noqa: B009


def read(path: Path, *, overrides: Sequence[str] = ()) -> Recipe:
    """Read and check a recipe file; `overrides` are like `finetune.tuned.rank=8`."""
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


def parse(text: str, *, where: str = "recipe", overrides: Sequence[str] = ()) -> Recipe:
    """Check a recipe written in TOML; an error starts with `where`."""
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise RecipeError(f"{where}: not valid TOML: {error}") from None
    for override in overrides:
        _override(table, override)
    try:
        recipe = _build(table)
        order(recipe)
    except RecipeError as error:
        raise RecipeError(
            "\n".join(f"{where}: {line}" for line in str(error).split("\n"))
        ) from None
    if not overrides:
        recipe._text = text
    return recipe


def order(recipe: Recipe) -> list[Step]:
    """Return the steps, each after all that it needs, or say what cannot work."""
    steps = {step.name: step for step in _steps(recipe)}
    if not steps:
        raise RecipeError("no steps; add a table such as [finetune.tuned] or [evaluate.card]")
    for step in steps.values():
        _check_references(step, steps)
    if recipe.gate is not None:
        _check_gate(recipe.gate, steps)
    ordered: dict[str, Step] = {}
    for name in steps:
        _visit(name, steps, ordered=ordered, path=())
    return list(ordered.values())


def _visit(
    name: str, steps: dict[str, Step], *, ordered: dict[str, Step], path: tuple[str, ...]
) -> None:
    """Append a step after everything that it needs (depth first)."""
    if name in ordered:
        return
    if name in path:
        circle = " -> ".join([*path[path.index(name) :], name])
        raise RecipeError(f"{circle}: these steps wait for each other; one needs another input")
    for reference in steps[name].references:
        if reference in steps:
            _visit(reference, steps, ordered=ordered, path=(*path, name))
    ordered[name] = steps[name]


def _build(table: dict[str, Any]) -> Recipe:
    """Validate each table under its own name, so that an error says which one is wrong."""
    tables = dict(table)
    for stage, config in TABLES.items():
        steps = table.get(stage, {})
        if not isinstance(steps, dict):
            raise RecipeError(f"{stage} = {steps!r}: expected tables such as [{stage}.NAME]")
        for name, step in steps.items():
            if not isinstance(step, dict):
                raise RecipeError(
                    f"{stage}.{name} = {step!r}: a step needs a name; write [{stage}.NAME] "
                    f"above this line"
                )
        tables[stage] = {name: config.read(step, f"{stage}.{name}") for name, step in steps.items()}
    if isinstance(table.get("gate"), dict):
        tables["gate"] = Gate.read(table["gate"], "gate")
    return Recipe.read(tables, "")


def _override(table: dict[str, Any], override: str) -> None:
    """Set one value in place, as `--set` asks for; it may add a key, but no step."""
    key, equals, value = override.partition("=")
    parts = [part.strip() for part in key.split(".")]
    if not equals or not all(parts):
        raise RecipeError(f"--set {override}: expected KEY=VALUE, as in finetune.tuned.rank=8")
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
        table = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError as error:
        if text[:1] in ("[", "{", '"', "'"):
            raise RecipeError(f"--set {override}: not a TOML value: {error}") from None
        return text
    # A line break could smuggle in a second key.
    return table["value"] if len(table) == 1 else text


def _steps(recipe: Recipe) -> Iterable[Step]:
    """Give the steps in the order of the tables, their seeds and defaults filled in."""
    seen: dict[str, str] = {}
    for stage in TABLES:
        for name, config in getattr(recipe, stage).items():
            here = f"{stage}.{name}"
            if not re.fullmatch(NAME, name):
                raise RecipeError(f"[{here}]: a name has only letters, digits, - and _")
            if name == "starter":
                raise RecipeError(f"[{here}]: `starter` is the built-in model; choose another name")
            # Case-blind, for a step is a folder and some file systems do not see the case.
            if (other := seen.setdefault(name.casefold(), here)) != here:
                raise RecipeError(f"[{here}]: [{other}] already has this name; names are unique")
            config = _resolve(config, recipe, here)
            yield Step(stage, name, config, _named(stage, config))


def _resolve(config: Config, recipe: Recipe, here: str) -> Config:
    """Fill in the recipe's seed and, for an evaluation, its only data."""
    open_values: dict[str, Any] = {}
    if "seed" not in config.model_fields_set:
        open_values["seed"] = recipe.seed
    if isinstance(config, Evaluate) and config.data is None and recipe.data:
        if len(recipe.data) > 1:
            raise RecipeError(
                f"{here}.data: missing; the recipe has several: {', '.join(sorted(recipe.data))}"
            )
        open_values["data"] = next(iter(recipe.data))
    return config.model_copy(update=open_values)


def _named(stage: str, config: Config) -> tuple[str, ...]:
    """Return the names that a table's reference keys hold, without repeats."""
    names: list[str] = []
    for key in REFERENCES[stage]:
        value = getattr(config, key)
        if value is not None:
            names += [value] if isinstance(value, str) else value
    return tuple(dict.fromkeys(names))


def _check_references(step: Step, steps: dict[str, Step]) -> None:
    """Refuse names of nothing, and names of the wrong kind of thing."""
    for key, kind in REFERENCES[step.stage].items():
        value = getattr(step.config, key)
        names = [value] if isinstance(value, str) else value or []
        here = f"{step.stage}.{step.name}.{key}"
        for name in names:
            _check_reference(name, kind, here=here, steps=steps)
        if len(set(names)) < len(names):
            raise RecipeError(f"{here} = {names}: names a model twice")


def _check_reference(name: str, kind: str, *, here: str, steps: dict[str, Step]) -> None:
    makers = " or ".join(f"[{stage}.NAME]" for stage in MAKERS[kind])
    if name in steps:
        if (stage := steps[name].stage) not in MAKERS[kind]:
            raise RecipeError(
                f"{here} = {name!r}: [{stage}.{name}] makes no {kind}; name a {makers}"
            )
        return
    if kind == "model":
        if name == "starter" or REFERENCE.fullmatch(name):
            return
        if address.is_hosted(name):
            _check_hosted(name, here)
            return
        if _exists(name) or "/" in name or name.endswith(".gguf"):
            _check_path(name, here)
            return
        if ":" in name:
            raise RecipeError(
                f"{here} = {name!r}: unknown kind of model; known: starter, a step of this recipe, "
                "a folder, a .gguf file, hub:ORG/NAME, hub:ORG/NAME@REVISION, openai:MODEL@URL"
            )
    elif kind == "data" and (":" in name or _exists(name)):
        raise RecipeError(
            f"{here} = {name!r}: name a data step; write [data.NAME] with source = {name!r}"
        )
    known = [other for other, step in steps.items() if step.stage in MAKERS[kind]]
    if kind == "model":
        known.append("starter")
    raise RecipeError(f"{here} = {name!r}: no such {kind}{suggestion(name, known)}")


def _check_hosted(name: str, here: str) -> None:
    """Refuse a hosted model where its weights are needed, and one that is written wrongly."""
    if not here.startswith("evaluate."):
        raise RecipeError(
            f"{here} = {name!r}: a hosted model can only be evaluated; its weights are elsewhere"
        )
    try:
        address.parse(name)
    except ModelError as error:
        raise RecipeError(f"{here}: {error}") from None


def _check_path(name: str, here: str) -> None:
    """Refuse a path that holds no model; `hub` knows what is wrong with it."""
    try:
        resolve(name)
    except ModelError as error:
        raise RecipeError(f"{here} = {name!r}: {error}") from None


def _exists(name: str) -> bool:
    # An empty name would be the present folder.
    return name != "" and Path(name).expanduser().exists()


def _check_gate(gate: Gate, steps: dict[str, Step]) -> None:
    """Refuse a gate that could not be decided once everything has run."""
    _check_reference(gate.evaluation, "evaluation", here="gate.evaluation", steps=steps)
    evaluation = steps[gate.evaluation]
    assert isinstance(evaluation.config, Evaluate)
    models = evaluation.config.models
    for key, name in (("model", gate.model), ("baseline", gate.baseline)):
        if name is not None and name not in models:
            raise RecipeError(
                f"gate.{key} = {name!r}: not in evaluate.{gate.evaluation}.models"
                f"{suggestion(name, models)}"
            )
    for rule in gate.require:
        rules.parse(rule)


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
