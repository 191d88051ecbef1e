"""Three passes over fifty samples teach nothing: how long to train follows from the data."""

import pytest

from lmwright.core.errors import RecipeError
from lmwright.training.config import ENOUGH_STEPS, TrainingConfig


@pytest.mark.parametrize("n_samples", [1, 2, 7, 8, 9, 55, 160, 390])
def test_of_little_data_as_many_epochs_are_made_as_learning_by_heart_takes(n_samples: int) -> None:
    config = TrainingConfig().settled(n_samples)
    assert config.epochs is not None
    per_epoch = config.steps_per_epoch(n_samples)
    assert config.epochs * per_epoch >= ENOUGH_STEPS
    assert config.epochs == 3 or (config.epochs - 1) * per_epoch < ENOUGH_STEPS
    assert (config.batch_size, config.keep) == (4, "last")
    assert config.warning(n_samples) is None


def test_of_much_data_three_epochs_and_the_best_weights_are_taken() -> None:
    assert TrainingConfig().schedule(10_000) == {"epochs": 3, "batch_size": 8, "keep": "best"}


def test_facts_are_best_in_the_last_weights_however_many_there_are() -> None:
    assert TrainingConfig().schedule(10_000, has_facts=True)["keep"] == "last"


def test_what_a_table_says_stays_and_too_little_is_said() -> None:
    given = TrainingConfig(epochs=3, keep="best")
    assert given.schedule(55) == {"epochs": 3, "batch_size": 4, "keep": "best"}
    assert TrainingConfig(batch_size=16).schedule(55)["epochs"] == 38
    assert given.warning(55) == (
        "42 optimiser steps are few: facts are seldom learnt in less than 150; leave epochs out, "
        "or set epochs = 11"
    )
    assert given.warning(10_000) is None


@pytest.mark.parametrize(
    "table",
    [
        {"epochs": 1001}, {"lr": 1.5}, {"lr": float("inf")}, {"batch_size": 10**6},
        {"micro_batch_tokens": 2**30}, {"warmup": 1}, {"weight_decay": 2}, {"max_grad_norm": 1e9},
        {"validate_every": 10**9}, {"checkpoint_every": 0}, {"seed": 2**63}, {"keep": "all"},
    ],
)  # fmt: skip
def test_no_number_is_without_bounds(table: dict) -> None:
    (key,) = table
    with pytest.raises(RecipeError, match=rf"^{key} = .*: expected "):
        TrainingConfig(**table)
