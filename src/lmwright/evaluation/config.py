"""The `[evaluate.NAME]` table."""

from typing import Any, Literal

from pydantic import Field

from lmwright.core.config import Config, SeedNumber
from lmwright.core.errors import RecipeError, RequestError
from lmwright.core.results import MetricSpec
from lmwright.hosted.address import is_hosted
from lmwright.hosted.config import Hosted


class Evaluate(Config):
    """Models side by side on the same items, with intervals and verdicts."""

    # The first is the baseline of every comparison; each is also held against its parents.
    models: list[str] = Field(min_length=1)
    # quick: a fixed stratified sub-sample, under a minute a model on 2 cores; full: every item.
    suite: Literal["quick", "full"] = "quick"
    # Only these tasks (default: all that the data allows).
    tasks: list[str] | None = Field(default=None, min_length=1)
    # The data step (or source) with held-out questions; the recipe's only one by default.
    data: str | None = None
    # How the hosted models among them are asked, and what they cost.
    hosted: Hosted | None = None
    seed: SeedNumber = 0

    def model_post_init(self, _: Any) -> None:
        """Refuse tasks that do not exist, and settings that no model would use."""
        self.check_tasks(has_questions=True)
        if self.hosted is None:
            return
        names = [name for name in self.models if is_hosted(name)]
        if not names:
            raise RecipeError("hosted: none of the models is hosted (openai:MODEL@URL)")
        for name in self.hosted.prices:
            if name not in names:
                raise RecipeError(
                    f"hosted.prices: {name!r} is not among the hosted models, {names}"
                )

    def check_tasks(self, *, has_questions: bool) -> None:
        """Refuse tasks that do not exist, or that ask held-out questions where there are none."""
        if not self.tasks:
            return
        # The records bring the engine, which a table without tasks does not need.
        from lmwright.evaluation import measurement, tasks

        try:
            measurement.check_tasks(self.tasks, tasks.MEASUREMENTS, has_questions=has_questions)
        except RequestError as error:
            raise RecipeError(str(error)) from None

    def specs(self) -> dict[str, MetricSpec]:
        """Return what each metric that an evaluation may measure means, by name."""
        from lmwright.evaluation.tasks import MEASUREMENTS

        return {name: measurement.spec for name, measurement in MEASUREMENTS.items()}

    def left_out(self, *, has_questions: bool) -> dict[str, str]:
        """Return why a metric will not be measured, for each that will not."""
        from lmwright.evaluation import measurement, tasks

        return measurement.left_out(self.tasks, tasks.MEASUREMENTS, has_questions=has_questions)
