"""The `[evaluate.NAME]` table."""

from typing import Any, Literal

from pydantic import Field

from lmwright.core.config import Config
from lmwright.core.errors import RecipeError, RequestError
from lmwright.hosted.address import is_hosted
from lmwright.hosted.config import Hosted


class Evaluate(Config):
    """Models side by side on the same items, with intervals and verdicts."""

    # The first is the baseline of every comparison; each is also held against its parents.
    models: list[str] = Field(min_length=1)
    # quick: a fixed stratified sub-sample, under a minute a model on 2 cores; full: every item.
    suite: Literal["quick", "full"] = "quick"
    # Only these tasks (default: all that the data allows).
    tasks: list[str] | None = None
    # The data step (or source) with held-out questions; the recipe's only one by default.
    data: str | None = None
    # How the hosted models among them are asked, and what they cost.
    hosted: Hosted | None = None
    seed: int = Field(default=0, ge=0)

    def model_post_init(self, _: Any) -> None:
        """Refuse tasks that do not exist, and settings that no model would use."""
        if self.tasks:
            # The records bring the engine, which a table without tasks does not need.
            from lmwright.evaluation.measurement import check_tasks
            from lmwright.evaluation.tasks import MEASUREMENTS

            try:
                check_tasks(self.tasks, MEASUREMENTS)
            except RequestError as error:
                raise RecipeError(str(error)) from None
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
