"""What is drawn in a step must be drawn again when the step is done again, and only then."""

import torch

from lmwright.training.seeds import seeded_modules, step_generator

CPU = torch.device("cpu")


def drawn(seed, step):
    with seeded_modules(seed, step, CPU):
        return torch.rand(4).tolist()


def test_draws_depend_on_seed_step_and_purpose_alone():
    torch.manual_seed(0)
    first = drawn(0, 3)
    torch.rand(7)
    assert drawn(0, 3) == first
    assert drawn(0, 4) != first
    assert drawn(1, 3) != first
    others = [(0, 3, "batches"), (0, 3, "modules"), (0, 33, "batches"), (3, 0, "batches")]
    numbers = [step_generator(*each).initial_seed() for each in others]
    assert len(set(numbers)) == len(numbers)
    assert numbers == [step_generator(*each).initial_seed() for each in others]


def test_nobody_elses_draws_are_changed():
    torch.manual_seed(5)
    expected = torch.rand(3).tolist()
    torch.manual_seed(5)
    drawn(0, 1)
    assert torch.rand(3).tolist() == expected
