"""Runs a plan: each step into its own folder, in order, and only where something changed."""

import importlib
import logging
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lmwright.core import extras
from lmwright.core.artifact import RECIPE_LOCK as LOCK
from lmwright.core.artifact import locked, replacing, sweep_partial, write_json
from lmwright.core.errors import InterruptError, LmwrightError, RequestError
from lmwright.core.lineage import lineage
from lmwright.core.stage import StepContext
from lmwright.recipe.plan import Plan, PlannedStep, describe, plan

logger = logging.getLogger(__name__)

RECIPE = "recipe.toml"


@dataclass(frozen=True)
class RunResult:
    """What a run did."""

    # What was done: the plan that was given, or the one that took its place.
    plan: Plan
    seconds: float

    @property
    def ran(self) -> list[str]:
        """The steps that were done now."""
        return [each.step.name for each in self.plan.steps if each.will_run]

    @property
    def skipped(self) -> list[str]:
        """The steps that were done before."""
        steps = self.plan.steps
        return [each.step.name for each in steps if each.is_done and not each.will_run]

    @property
    def decisions(self) -> dict[str, dict[str, Any]]:
        """The results that say whether something passed, by step.

        With `only`, those of that step and of what it shows: another run does not judge again.
        """
        by_name = {each.step.name: each for each in self.plan.steps}
        asked = list(by_name)
        if self.plan.only:
            asked = [self.plan.only, *by_name[self.plan.only].step.references]
        results = {name: by_name[name].artifact.result for name in asked if name in by_name}
        return {name: result for name, result in results.items() if result and "passed" in result}

    @property
    def exit_code(self) -> int:
        """3 if a step said no."""
        return 0 if all(each["passed"] for each in self.decisions.values()) else 3


def run(planned: Plan) -> RunResult:
    """Do all that is not done yet; a plan that something overtook is made again first."""
    started = time.perf_counter()
    _check_folder(planned.folder)
    _check_libraries(planned)
    with locked(planned.folder):
        sweep_partial(planned.folder)
        for each in planned.steps:
            each.artifact.recover()
        if planned.is_stale:
            choice = {"only": planned.only, "start": planned.start}
            planned = plan(planned.recipe, out=planned.folder, **choice)
        _write_head(planned)
        _clear(planned)
        for number, each in enumerate(planned.steps, start=1):
            where = f"[{number}/{len(planned.steps)}]"
            if each.will_run:
                stage, name = each.step.stage.name, each.step.name
                logger.info("%s %s %s (%s)", where, stage, name, describe(each.estimate))
                _run_step(each, planned)
            elif each.is_done and not planned.only:
                logger.info("%s %s: done before", where, each.step.name)
    return RunResult(planned, time.perf_counter() - started)


def _check_folder(folder: Path) -> None:
    """Refuse a folder with other things in it: steps replace whole folders."""
    if folder.is_dir() and not (folder / LOCK).exists():
        strangers = sorted(p.name for p in folder.iterdir() if not p.name.startswith("."))
        if strangers:
            raise RequestError(
                f"{folder}: holds {strangers[0]!r} but no {LOCK}, so it is no run folder; "
                "give an empty or new folder with --out"
            )


def _check_libraries(planned: Plan) -> None:
    """Refuse now what would fail after hours, when a step first imports what is not there."""
    for each in planned.steps:
        if each.will_run:
            extras.need(f"[{each.step.table}]", *each.step.stage.needs(each.step.config))


def _write_head(planned: Plan) -> None:
    """Write what is about to be done: the recipe, and everything that it leaves open."""
    recipe, folder = planned.recipe, planned.folder
    write_json(
        folder / LOCK,
        {
            "format_version": 2,
            "name": recipe.name,
            "seed": recipe.seed,
            # JSON is sorted by name; this is what follows what.
            "order": [each.step.name for each in planned.steps],
            "steps": {each.step.name: each.to_json() for each in planned.steps},
            "lineage": lineage(recipe.seed),
        },
    )
    with replacing(folder / RECIPE) as temporary:
        temporary.write_text(recipe.to_toml(), encoding="utf-8")


def _clear(planned: Plan) -> None:
    """Remove finished steps that are to be redone as they are (--from), before the first starts.

    Otherwise a run that is interrupted half-way would leave later steps that count as done but
    were made from what is gone; the last goes first for the same reason. What was made with other
    settings stays until its successor is done, and an unfinished step goes on where it stood.
    """
    for each in reversed(planned.steps):
        if each.will_run and each.is_done:
            each.artifact.discard()


def _run_step(each: PlannedStep, planned: Plan) -> None:
    """Call the stage's function, and write its result last; say which step it was that failed."""
    step, artifact = each.step, each.artifact
    seed = getattr(step.config, "seed", planned.recipe.seed)
    started = time.perf_counter()
    try:
        out = artifact.begin()
        module, _, function = step.stage.run.partition(":")
        work = getattr(importlib.import_module(module), function)
        result = work(step.config, out, _context(each, planned, seed))
        seconds = time.perf_counter() - started
        told = {"step": each.to_json(), "seconds": seconds, "lineage": lineage(seed)}
        artifact.finish({**result, **told})
    except (KeyboardInterrupt, InterruptError) as stop:
        kept = f" ({stop})" if str(stop) else ""
        here = f"interrupted in {step.stage.name} {step.name}{kept}"
        again = "the same command without --from" if planned.start else "the same command"
        raise InterruptError(f"{here}; {again} goes on") from None
    except LmwrightError:
        logger.error("%s %s failed", step.stage.name, step.name)
        raise


def _context(each: PlannedStep, planned: Plan, seed: int) -> StepContext:
    steps = {other.step.name: other.step for other in planned.steps}
    return StepContext(
        inputs={
            name: planned.folder / name / steps[name].stage.makes.subfolder
            if name in steps
            else name
            for name in each.step.references
        },
        parents={name: step.parents for name, step in steps.items() if step.stage.parents},
        run_folder=planned.folder,
        seed=seed,
    )
