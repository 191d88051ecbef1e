"""The `[finetune.NAME]` table."""

from typing import Literal

from pydantic import Field

from lmwright.core.errors import RecipeError
from lmwright.training.config import TrainingConfig

# What suits each method; updates of all weights must be small.
LEARNING_RATES = {"lora": 1e-3, "full": 1e-4}


class Finetune(TrainingConfig):
    """Supervised fine-tuning on dialogues: loss on the assistant's tokens only.

    By default `lr` is 1e-3 for lora and 1e-4 for full.
    """

    model: str = "starter"
    data: str
    method: Literal["lora", "full"] = "lora"
    # LoRA only: rank of the update, and its scale alpha / rank (alpha = 2 * rank by default).
    rank: int = Field(default=16, ge=1, le=65_536)
    alpha: float | None = Field(default=None, gt=0, le=1e6)
    # Tokens of a sample at most (default: the model's context); a longer one is an error.
    max_length: int | None = Field(default=None, ge=8, le=16_777_216)
    precision: Literal["auto", "bf16", "fp32"] = "auto"

    @property
    def peak_lr(self) -> float:
        """The highest learning rate, given or what suits the method."""
        return self.lr or LEARNING_RATES[self.method]

    @property
    def lora_alpha(self) -> float:
        """Alpha, given or by default."""
        return self.alpha or 2 * self.rank

    def longest(self, context_length: int) -> int:
        """Return how many tokens a sample may have for a model of this context."""
        return min(self.max_length or context_length, context_length)

    def check_rank(self, d_model: int) -> None:
        """Refuse an update that is no thinner than the model of this width."""
        if self.method == "lora" and self.rank > d_model:
            raise RecipeError(
                f"rank = {self.rank}: the model is {d_model} wide; expected a whole number from 1 "
                f"to {d_model}, and 8 to 64 as a rule"
            )
