"""What the tables of all stages that train have in common; `fit` asks for nothing else."""

import math
from typing import Any, Literal, Self

from pydantic import Field

from lmwright.core.config import Config, SeedNumber

# With fewer optimiser steps a model has hardly learnt what it was shown. Little data are those
# that do not make so many in 3 epochs: they are shown more often, in smaller batches (docs/log.md).
ENOUGH_STEPS = 150
EPOCHS = 3
BATCH_SIZE, SMALL_BATCH = 8, 4


class TrainingConfig(Config):
    """How long, how fast and in which portions to train."""

    # By default 3, of little data as many as `ENOUGH_STEPS` steps take.
    epochs: int | None = Field(default=None, ge=1, le=1_000)
    # The highest learning rate; None is what suits the stage.
    lr: float | None = Field(default=None, gt=0, le=1)
    # Samples an optimiser step sees: by default 8, of little data 4.
    batch_size: int | None = Field(default=None, ge=1, le=65_536)
    # Tokens in memory at once; a larger batch is worked off in parts, with the same result.
    micro_batch_tokens: int = Field(default=2048, ge=1, le=1_048_576)
    # Share of the steps that warms the learning rate up; afterwards it falls as a cosine.
    warmup: float = Field(default=0.05, ge=0, lt=1)
    weight_decay: float = Field(default=0.0, ge=0, le=1)
    max_grad_norm: float = Field(default=1.0, gt=0, le=1e6)
    # Steps between two looks at the validation loss (default: once an epoch) and two checkpoints.
    validate_every: int | None = Field(default=None, ge=1, le=1_000_000)
    checkpoint_every: int = Field(default=50, ge=1, le=1_000_000)
    # Which weights the model ends with: those with the lowest validation loss, or the last. When
    # facts are learnt by heart, the loss rises (each wrong answer is given with more certainty)
    # while more and more answers become right: then the last are better. So they are by default
    # where there is little data, or held-out questions about facts.
    keep: Literal["best", "last"] | None = None
    seed: SeedNumber = 0

    def schedule(self, n_samples: int, *, has_facts: bool = False) -> dict[str, Any]:
        """Return `epochs`, `batch_size` and `keep`, as given or as suits so many samples."""
        is_little = EPOCHS * math.ceil(n_samples / BATCH_SIZE) < ENOUGH_STEPS
        batch_size = self.batch_size or (SMALL_BATCH if is_little else BATCH_SIZE)
        needed = math.ceil(ENOUGH_STEPS / math.ceil(n_samples / batch_size))
        return {
            "epochs": self.epochs or max(EPOCHS, needed),
            "batch_size": batch_size,
            "keep": self.keep or ("last" if has_facts or is_little else "best"),
        }

    def settled(self, n_samples: int, *, has_facts: bool = False) -> Self:
        """Return the table with nothing left open that depends on the data."""
        return self.model_copy(update=self.schedule(n_samples, has_facts=has_facts))

    def steps_per_epoch(self, n_samples: int) -> int:
        """Return how many optimiser steps see every sample once."""
        return math.ceil(n_samples / self.schedule(n_samples)["batch_size"])

    def warning(self, n_samples: int) -> str | None:
        """Say that training will be short, and what to do; nothing where it is long enough."""
        steps, epochs = self.steps_per_epoch(n_samples), self.schedule(n_samples)["epochs"]
        if steps * epochs >= ENOUGH_STEPS:
            return None
        return (
            f"{steps * epochs} optimiser steps are few: facts are seldom learnt in less than "
            f"{ENOUGH_STEPS}; leave epochs out, or set epochs = {math.ceil(ENOUGH_STEPS / steps)}"
        )
