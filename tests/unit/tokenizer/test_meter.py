"""A count that is not kept lets a template run for ever; one that is too high refuses real ones."""

import pytest

from lmwright.core.errors import RequestError
from lmwright.tokenizer.meter import MAX_CHARACTERS, MAX_STEPS, STEP_CHARACTERS, StepMeter


def spent(count, value) -> int:
    meter = StepMeter()
    assert getattr(meter, count)(value) == value
    return MAX_STEPS - meter.left


def test_texts_and_lists_count_by_their_length():
    assert spent("size", "x" * 10 * STEP_CHARACTERS) == 11
    assert spent("size", [0] * 80) == 11
    assert spent("size", 3) == 1


def test_what_is_read_to_its_end_counts_all_that_is_inside():
    nested = {"a": ["x" * 10 * STEP_CHARACTERS] * 3, "b": None}
    assert spent("size", nested) == 1
    assert spent("whole", nested) > 3 * 10


def test_a_list_that_holds_itself_many_times_over_is_endless():
    value: list = []
    for _ in range(40):
        value = [value, value]
    assert spent("size", value) == 1
    with pytest.raises(RequestError, match="more than 2,000,000 steps"):
        StepMeter().whole(value)


def test_items_of_a_generator_count_when_they_come():
    meter = StepMeter()
    items = meter.size(iter(["x"] * 5))
    assert meter.left == MAX_STEPS
    assert list(items) == ["x"] * 5
    assert meter.left == MAX_STEPS - 5


def test_one_text_is_bounded():
    with pytest.raises(OverflowError, match="20,000,000"):
        StepMeter().text(MAX_CHARACTERS + 1)
