"""A measurement as one record: what is asked, how it is counted, and what the number means."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from lmwright.core.errors import RequestError, suggestion
from lmwright.core.results import RENAMED, Asked, Metric, MetricSpec, Row
from lmwright.data.samples import Question
from lmwright.evaluation.resampling import Statistic, ratio
from lmwright.evaluation.selection import Selection, Suite
from lmwright.lm import LanguageModel


@dataclass(frozen=True)
class Measurement:
    """One metric and how a model is asked for it. Its functions live at the top of a module."""

    spec: MetricSpec
    # The name in the recipe's `tasks`; some of those give two metrics.
    task: str
    # How many items each suite asks; None: all of them.
    n_items: Mapping[Suite, int | None]
    # Raises UnsupportedError where a model cannot be asked so.
    rows: Callable[[LanguageModel, Selection], list[Row]]
    statistic: Statistic = ratio
    # Metrics by name, of parts of the rows or derived from them; called as `estimate` is.
    slices: Callable[..., Mapping[str, Metric]] | None = None
    # What is asked, by item, where the detail of a row is the model's reply.
    asked: Callable[[Selection], dict[str, Asked]] | None = None
    # Whether it asks the held-out questions of the recipe's data.
    needs_questions: bool = False
    # Whether it times the model: in the number format that it is served in, where it is served.
    is_speed: bool = False

    def selection(self, suite: Suite, questions: Sequence[Question] = ()) -> Selection:
        """Return what this measurement asks in a suite."""
        return Selection(self.n_items[suite], tuple(questions))


def check_tasks(
    tasks: Sequence[str], measurements: Mapping[str, Measurement], *, has_questions: bool
) -> None:
    """Refuse a task that no measurement belongs to, or whose questions are missing."""
    known = {each.task: each for each in measurements.values()}
    for name in tasks:
        if name in RENAMED:
            raise RequestError(f"tasks: {name!r} is called {RENAMED[name]!r} now")
        if name not in known:
            raise RequestError(f"tasks: no task {name!r}{suggestion(name, known)}")
        if known[name].needs_questions and not has_questions:
            raise RequestError(
                f"tasks: {name!r} needs held-out questions; name a data step (data = ...) whose "
                "records have `heldout` and `accept`, or leave the task out"
            )


def left_out(
    tasks: Collection[str] | None, measurements: Mapping[str, Measurement], *, has_questions: bool
) -> dict[str, str]:
    """Return why a metric is not measured, for each that is not; None are all tasks."""
    reasons = {}
    for metric, each in measurements.items():
        if tasks is not None and each.task not in tasks:
            reasons[metric] = f"the task {each.task!r} was not asked for"
        elif each.needs_questions and not has_questions:
            reasons[metric] = "the evaluation has no held-out questions (data = ...)"
    return reasons
