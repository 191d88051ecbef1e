"""The steps of a recipe in dependency order; what they name is checked before anything runs."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from lmwright.core.config import Config
from lmwright.core.errors import RecipeError, located, suggestion
from lmwright.core.stage import Kind, Named, Reference, Stage, TablesByKind
from lmwright.recipe import outside
from lmwright.recipe.recipe import NAME, NAME_RULE, Recipe

Steps = Mapping[str, "Step"]


@dataclass(frozen=True)
class Step:
    """One table of the recipe with everything that it leaves open filled in."""

    stage: Stage
    name: str
    config: Config

    @property
    def table(self) -> str:
        """The table as an error names it: "gate", "compress.int8"."""
        is_unnamed = self.stage.may_be_unnamed and self.name == self.stage.name
        return self.name if is_unnamed else f"{self.stage.name}.{self.name}"

    @property
    def references(self) -> tuple[str, ...]:
        """What its keys name, as written: other steps, or models from elsewhere."""
        return self._named(*self.stage.references)

    @property
    def parents(self) -> tuple[str, ...]:
        """The models that the one it makes is made from."""
        return self._named(*self.stage.parents)

    def named(self, key: str) -> list[str]:
        """Return the names that one key holds."""
        value = getattr(self.config, key)
        return [value] if isinstance(value, str) else list(value or ())

    def _named(self, *keys: str) -> tuple[str, ...]:
        return tuple(dict.fromkeys(name for key in keys for name in self.named(key)))


def order(recipe: Recipe) -> list[Step]:
    """Return the steps, each after all that it needs, or say what cannot work."""
    steps = {step.name: step for step in _steps(recipe)}
    if not steps:
        stages = ", ".join(f"[{stage}.NAME]" for stage in recipe.stages)
        raise RecipeError(f"no steps; add a table such as {stages}")
    for step in steps.values():
        _check_names(step, steps, recipe.stages)
    named = {step.name: Named(step.config, step.parents) for step in steps.values()}
    for step in steps.values():
        with located(f"{step.table}."):
            step.stage.check(step.config, named)
    ordered: dict[str, Step] = {}
    for name in steps:
        _append(name, steps, ordered)
    return list(ordered.values())


def _append(start: str, steps: Steps, ordered: dict[str, Step]) -> None:
    """Append a step after everything that it needs: depth first, without recursion."""
    if start in ordered:
        return
    # The way to the step that is looked at, each with those of its inputs not looked at yet.
    way = {start: iter(steps[start].references)}
    while way:
        name, inputs = next(reversed(way.items()))
        missing = next((each for each in inputs if each in steps and each not in ordered), None)
        if missing is None:
            ordered[name] = steps[name]
            del way[name]
        elif missing in way:
            names = list(way)
            steps_of = [*names[names.index(missing) :], missing]
            if len(steps_of) > 10:
                steps_of = [*steps_of[:8], "...", missing]
            cycle = " -> ".join(steps_of)
            raise RecipeError(f"{cycle}: these steps wait for each other; one needs another input")
        else:
            way[missing] = iter(steps[missing].references)


def _steps(recipe: Recipe) -> Iterator[Step]:
    """Give the steps in the order of the stages, their seeds and defaults filled in."""
    seen: dict[str, str] = {}
    made: dict[Kind, dict[str, Any]] = {}
    for name, stage in recipe.stages.items():
        made.setdefault(stage.makes, {}).update(recipe.tables.get(name, {}))
    for stage in recipe.stages.values():
        for name, config in recipe.tables.get(stage.name, {}).items():
            step = Step(stage, name, config)
            here = f"[{step.table}]"
            if not re.fullmatch(NAME, name):
                raise RecipeError(f"{here}: {NAME_RULE}")
            if name == outside.BUILT_IN:
                raise RecipeError(f"{here}: `{name}` is the built-in model; choose another name")
            # Case-blind, for a step is a folder and some file systems do not see the case.
            if (other := seen.setdefault(name.casefold(), here)) != here:
                raise RecipeError(f"{here}: {other} already has this name; names are unique")
            yield replace(step, config=_completed(step, recipe.seed, made))


def _completed(step: Step, seed: int, made: TablesByKind) -> Config:
    """Fill in the recipe's seed, and what the stage takes from the other tables."""
    config = step.config
    with located(f"{step.table}."):
        values = dict(step.stage.complete(config, made))
    if "seed" in type(config).model_fields and "seed" not in config.model_fields_set:
        values["seed"] = seed
    return config.model_copy(update=values)


def _check_names(step: Step, steps: Steps, stages: Mapping[str, Stage]) -> None:
    """Refuse names of nothing, and names of the wrong kind of thing."""
    for key, reference in step.stage.references.items():
        names = step.named(key)
        here = f"{step.table}.{key}"
        for name in names:
            _check_name(name, reference, here=f"{here} = {name!r}", steps=steps, stages=stages)
        if len(set(names)) < len(names):
            raise RecipeError(f"{here} = {names}: names a {reference.kind.name} twice")


def _check_name(
    name: str, reference: Reference, *, here: str, steps: Steps, stages: Mapping[str, Stage]
) -> None:
    kind = reference.kind
    makers = [stage for stage in stages.values() if stage.makes == kind]
    if name in steps:
        if steps[name].stage.makes != kind:
            tables = " or ".join(f"[{stage.name}.NAME]" for stage in makers)
            raise RecipeError(
                f"{here}: [{steps[name].table}] makes no {kind.name}; name a {tables}"
            )
        return
    known = [other for other, step in steps.items() if step.stage.makes == kind]
    if kind == outside.KIND:
        if outside.check(name, here, allows_hosted=reference.allows_hosted):
            return
        known.append(outside.BUILT_IN)
    elif ":" in name or outside.exists(name):
        # Named as the source of a step is named, by somebody who left the step out.
        for stage in makers:
            if "source" in stage.config.model_fields:
                raise RecipeError(
                    f"{here}: name a {kind.name} step; "
                    f"write [{stage.name}.NAME] with source = {name!r}"
                )
    raise RecipeError(f"{here}: no such {kind.name}{suggestion(name, known)}")
