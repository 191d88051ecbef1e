"""A setting out of range must be refused before any work is done, and by its name."""

import math

import numpy as np
import pytest

from lmwright.engine.request import EXPECTED, Classification, Sampling, Score


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_tokens", 0),
        ("temperature", -0.1),
        ("temperature", math.nan),
        ("temperature", math.inf),
        ("top_k", -1),
        ("top_p", 0.0),
        ("top_p", 1.1),
        ("min_p", -0.1),
        ("min_p", 1.1),
        ("repetition_penalty", 0.0),
        ("repetition_penalty", math.nan),
        ("stop", ("a", "")),
        ("stop", "end"),
        ("seed", -1),
        ("seed", 2**64),
        ("logprobs", -1),
        ("logprobs", 21),
        ("n_beams", 0),
        ("n_beams", 33),
        ("length_penalty", 10.5),
        ("length_penalty", math.nan),
    ],
)
def test_a_setting_out_of_range_is_told_with_its_range(name, value):
    with pytest.raises(ValueError, match="expected") as refused:
        Sampling(**{name: value})
    assert str(refused.value) == f"{name} = {value!r}: expected {EXPECTED[name]}"


def test_the_limits_themselves_are_fine():
    Sampling(max_tokens=1, temperature=100, top_p=1.0, min_p=1, seed=2**64 - 1, logprobs=20)
    assert Sampling().temperature == 0


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"n_beams": 4, "temperature": 0.7}, r"n_beams = 4: .* set temperature to 0 \(it is 0.7\)"),
        ({"n_beams": 4, "stop": ("a",)}, "n_beams = 4 does not go together with stop"),
        ({"n_beams": 4, "logprobs": 0}, "n_beams = 4 does not go together with logprobs"),
        ({"length_penalty": 2.0}, "length_penalty = 2.0 is for beams: set n_beams above 1"),
        ({"early_stopping": True}, "early_stopping = True is for beams"),
    ],
)
def test_settings_that_would_be_ignored_are_refused(settings, expected):
    with pytest.raises(ValueError, match=f"^{expected}"):
        Sampling(**settings)


def test_the_label_is_the_likeliest_class():
    found = Classification(("bad", "so", "good"), (0.2, 0.3, 0.5), "single_label")
    assert found.label == "good"


def test_the_logprob_of_a_score_is_the_sum():
    assert Score((1, 2), np.array([-0.5, -1.25]), False).logprob == -1.75
