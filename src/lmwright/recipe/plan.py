"""What a run would do: which steps are done, which are to do, and what they take."""

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from lmwright.core.artifact import Artifact, hash_json
from lmwright.core.errors import RequestError, suggestion
from lmwright.core.figures import duration
from lmwright.core.stage import Estimate
from lmwright.recipe import outside
from lmwright.recipe.order import Step, order
from lmwright.recipe.recipe import Recipe

# Later, files that a plan was made from may have changed: it is made again before it is run.
MAX_AGE_S = 60.0


@dataclass(frozen=True)
class PlannedStep:
    """A step, whether it is done already, and what doing it takes."""

    step: Step
    # The step's folder, known by the hash of its table and of all that it is made from.
    artifact: Artifact
    # What the hash is made from: a hash for each input, by the name that the table gives it.
    inputs: Mapping[str, str]
    is_done: bool
    will_run: bool
    estimate: Estimate

    def to_json(self) -> dict[str, Any]:
        """Return what a step is: enough to do it again, and to tell of it without its stage."""
        step, stage = self.step, self.step.stage
        return {
            "stage": stage.name,
            "title": stage.title,
            "name": step.name,
            "makes": stage.makes.name,
            "relation": stage.relation,
            "parents": list(step.parents),
            "config": step.config.model_dump(mode="json"),
            "inputs": dict(self.inputs),
            "hash": self.artifact.hash,
        }


@dataclass(frozen=True)
class Plan:
    """What a run would do."""

    recipe: Recipe
    folder: Path
    steps: tuple[PlannedStep, ...]
    only: str | None = None
    start: str | None = None
    made_at: float = field(default_factory=time.monotonic, compare=False)

    @property
    def estimate(self) -> Estimate:
        """The time of all that will run, and the memory of the hungriest step."""
        todo = [planned.estimate for planned in self.steps if planned.will_run]
        return Estimate(
            sum(each.seconds for each in todo),
            max((each.memory_bytes for each in todo), default=0),
            is_complete=all(each.is_complete for each in todo),
        )

    @property
    def is_stale(self) -> bool:
        """Whether something may have changed since: it is old, or other steps are done now."""
        return time.monotonic() - self.made_at > MAX_AGE_S or any(
            each.is_done != (each.artifact.result is not None) for each in self.steps
        )

    def to_json(self) -> dict[str, Any]:
        """Return plain data: each step with its hash, state and estimate."""
        steps = [
            {
                **each.to_json(),
                "is_done": each.is_done,
                "will_run": each.will_run,
                "estimate": asdict(each.estimate),
            }
            for each in self.steps
        ]
        return {"folder": str(self.folder), "steps": steps, "estimate": asdict(self.estimate)}


def plan(
    recipe: Recipe, *, out: Path | None = None, only: str | None = None, start: str | None = None
) -> Plan:
    """Return what a run would do; nothing is written.

    `only` runs just one step. `start` redoes a step and all that follows from it.
    """
    folder = out or Path("runs") / recipe.name
    steps = order(recipe)
    _check_selection(steps, only=only, start=start)
    redone = _followers(steps, start) if start else set()
    hashes: dict[str, str] = {}
    known: dict[str, Estimate] = {}
    planned: list[PlannedStep] = []
    for step in steps:
        for name in step.references:
            # A step comes after all that it names: what is not known yet is from elsewhere.
            if name not in hashes:
                hashes[name], known[name] = outside.model_hash(name), outside.estimate(name)
        inputs = {name: hashes[name] for name in step.references}
        inputs |= step.stage.external(step.config)
        hashes[step.name] = _step_hash(step, inputs)
        known[step.name] = step.stage.estimate(step.config, known)
        artifact = Artifact(folder / step.name, hashes[step.name])
        is_done = artifact.result is not None
        will_run = (not is_done or step.name in redone) and only in (None, step.name)
        cost = known[step.name]
        planned.append(PlannedStep(step, artifact, inputs, is_done, will_run, cost))
    if only:
        _check_inputs_done(only, planned, folder)
    return Plan(recipe, folder, tuple(planned), only, start)


def describe(estimate: Estimate) -> str:
    """Say what something takes, in a few words."""
    doubt = "" if estimate.is_complete else ", sizes partly unknown"
    return f"about {duration(estimate.seconds)}, {estimate.memory_bytes / 1e9:.1f} GB{doubt}"


def _check_selection(steps: list[Step], *, only: str | None, start: str | None) -> None:
    if only and start:
        raise RequestError("--only and --from exclude each other; give one of them")
    names = [step.name for step in steps]
    for flag, name in (("--only", only), ("--from", start)):
        if name is not None and name not in names:
            raise RequestError(f"{flag} {name}: no such step{suggestion(name, names)}")


def _followers(steps: list[Step], start: str) -> set[str]:
    """Return a step and all that is made from it, directly or not."""
    found = {start}
    for step in steps:
        if found.intersection(step.references):
            found.add(step.name)
    return found


def _check_inputs_done(only: str, planned: list[PlannedStep], folder: Path) -> None:
    by_name = {each.step.name: each for each in planned}
    for name in by_name[only].step.references:
        if name in by_name and not by_name[name].is_done:
            raise RequestError(
                f"--only {only}: its input {name!r} is not finished in {folder}; "
                f"run --only {name} first, or leave out --only"
            )


def _step_hash(step: Step, inputs: Mapping[str, str]) -> str:
    return hash_json(
        {
            "stage": step.stage.name,
            "config": step.config.model_dump(mode="json"),
            "inputs": inputs,
            "format_version": step.stage.version,
        }
    )
