"""The `[finetune.NAME]` table."""

from typing import Literal

from pydantic import Field

from lmwright.core.config import Config


class Finetune(Config):
    """Supervised fine-tuning on dialogues: loss on the assistant's tokens only."""

    model: str = "starter"
    data: str
    method: Literal["lora", "full"] = "lora"
    # LoRA only: rank of the update, and its scale alpha / rank (alpha = 2 * rank by default).
    rank: int = Field(default=16, ge=1)
    alpha: float | None = Field(default=None, gt=0)
    epochs: int = Field(default=3, ge=1)
    # The highest learning rate; by default 1e-3 for lora and 1e-4 for full.
    lr: float | None = Field(default=None, gt=0)
    # Samples an optimiser step sees.
    batch_size: int = Field(default=8, ge=1)
    # Tokens in memory at once; a larger batch is worked off in parts, with the same result.
    micro_batch_tokens: int = Field(default=2048, ge=1)
    # Tokens of a sample at most (default: the model's context); a longer one is an error.
    max_length: int | None = Field(default=None, ge=8)
    # Share of the steps that warms the learning rate up; afterwards it falls as a cosine.
    warmup: float = Field(default=0.05, ge=0, lt=1)
    weight_decay: float = Field(default=0.0, ge=0)
    max_grad_norm: float = Field(default=1.0, gt=0)
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    # Steps between two looks at the validation loss (default: once an epoch) and two checkpoints.
    validate_every: int | None = Field(default=None, ge=1)
    checkpoint_every: int = Field(default=50, ge=1)
    # Which weights the model ends with: those with the lowest validation loss, or the last. When
    # facts are learnt by heart, the loss rises (each wrong answer is given with more certainty)
    # while more and more answers become right: then the last are better.
    keep: Literal["best", "last"] = "best"
    seed: int = Field(default=0, ge=0)
