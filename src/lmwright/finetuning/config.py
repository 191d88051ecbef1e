"""The `[finetune.NAME]` table."""

from typing import Literal

from pydantic import Field

from lmwright.training.config import TrainingConfig


class Finetune(TrainingConfig):
    """Supervised fine-tuning on dialogues: loss on the assistant's tokens only.

    By default `lr` is 1e-3 for lora and 1e-4 for full.
    """

    model: str = "starter"
    data: str
    method: Literal["lora", "full"] = "lora"
    # LoRA only: rank of the update, and its scale alpha / rank (alpha = 2 * rank by default).
    rank: int = Field(default=16, ge=1)
    alpha: float | None = Field(default=None, gt=0)
    # Tokens of a sample at most (default: the model's context); a longer one is an error.
    max_length: int | None = Field(default=None, ge=8)
    precision: Literal["auto", "bf16", "fp32"] = "auto"

    @property
    def lora_alpha(self) -> float:
        """Alpha, given or by default."""
        return self.alpha or 2 * self.rank

    def longest(self, context_length: int) -> int:
        """Return how many tokens a sample may have for a model of this context."""
        return min(self.max_length or context_length, context_length)
