"""Every task of the card: what its number means and the function that asks a model.

A task is one metric. To add one, write `rows(model, selection)` in a file of its own and add a
line to TASKS.
"""

from collections.abc import Callable
from dataclasses import dataclass

from lmwright.core.results import Metric, Row
from lmwright.evaluation import speed
from lmwright.evaluation.config import TaskName
from lmwright.evaluation.selection import Selection
from lmwright.evaluation.statistics import Measure, estimate_groups
from lmwright.evaluation.tasks import (
    bits_per_byte,
    facts,
    gender_gap,
    multiple_choice,
    refusals,
)
from lmwright.lm import LanguageModel


@dataclass(frozen=True)
class Task:
    """A metric and how it is measured."""

    # The name in the recipe; some of those give two metrics.
    task: TaskName
    measure: Measure
    rows: Callable[[LanguageModel, Selection], list[Row]]
    # What was asked, by item, where the detail of a row is the model's reply.
    prompts: Callable[[Selection], dict[str, str]] | None = None
    # Metrics of parts of the rows, or derived from the same rows.
    slices: Callable[..., dict[str, Metric]] | None = None


TASKS: dict[str, Task] = {
    task.measure.name: task
    for task in (
        Task("facts", facts.MEASURE, facts.rows, facts.prompts, estimate_groups),
        Task(
            "multiple_choice", multiple_choice.MEASURE, multiple_choice.rows, slices=estimate_groups
        ),
        Task("bits_per_byte", bits_per_byte.MEASURE, bits_per_byte.rows),
        Task("gender_gap", gender_gap.MEASURE, gender_gap.rows, slices=gender_gap.slope_slice),
        Task(
            "refusals",
            refusals.REFUSAL,
            refusals.refusal_rows,
            refusals.refusal_prompts,
            estimate_groups,
        ),
        Task(
            "refusals",
            refusals.OVER_REFUSAL,
            refusals.over_refusal_rows,
            refusals.over_refusal_prompts,
            estimate_groups,
        ),
        Task("speed", speed.PREFILL, speed.prefill_rows),
        Task("speed", speed.DECODE, speed.decode_rows),
    )
}
