"""What the tables of all stages that train have in common; `fit` asks for nothing else."""

from typing import Literal

from pydantic import Field

from lmwright.core.config import Config


class TrainingConfig(Config):
    """How long, how fast and in which portions to train."""

    epochs: int = Field(default=3, ge=1)
    # The highest learning rate; None is what suits the stage.
    lr: float | None = Field(default=None, gt=0)
    # Samples an optimiser step sees.
    batch_size: int = Field(default=8, ge=1)
    # Tokens in memory at once; a larger batch is worked off in parts, with the same result.
    micro_batch_tokens: int = Field(default=2048, ge=1)
    # Share of the steps that warms the learning rate up; afterwards it falls as a cosine.
    warmup: float = Field(default=0.05, ge=0, lt=1)
    weight_decay: float = Field(default=0.0, ge=0)
    max_grad_norm: float = Field(default=1.0, gt=0)
    # Steps between two looks at the validation loss (default: once an epoch) and two checkpoints.
    validate_every: int | None = Field(default=None, ge=1)
    checkpoint_every: int = Field(default=50, ge=1)
    # Which weights the model ends with: those with the lowest validation loss, or the last. When
    # facts are learnt by heart, the loss rises (each wrong answer is given with more certainty)
    # while more and more answers become right: then the last are better.
    keep: Literal["best", "last"] = "best"
    seed: int = Field(default=0, ge=0)
