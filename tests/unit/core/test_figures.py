"""A number that is written wrongly is a wrong number, however well it was measured."""

import pytest

from lmwright.core import figures


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0.853, "share", "85.3 %"),
        (1.0734, "bits/byte", "1.073 bits/byte"),
        (41.26, "tokens/s", "41.3 tokens/s"),
        (1234.5, "tokens/s", "1,234 tokens/s"),
        (142_400_000, "bytes", "142 MB"),
        (1_500_000_000, "bytes", "1.50 GB"),
        (7, "", "7.00"),
    ],
)
def test_a_value_is_written_in_its_unit(value: float, unit: str, text: str) -> None:
    assert figures.figure(value, unit) == text


def test_differences_of_shares_are_points_and_signed() -> None:
    how = figures.difference("share", 0.021)
    assert how.figure(-0.021) == "-2.1 points"
    assert how.span(-0.021, 0.004) == "-2.1 to +0.4 points"


def test_a_difference_takes_the_digits_of_the_value_beside_it() -> None:
    assert figures.difference("tokens/s", 41.0).figure(-1.195) == "-1.2 tokens/s"


def test_there_is_no_minus_zero() -> None:
    assert figures.Scale(1.0, 1, "", is_signed=True).number(-0.0001) == "0.0"


@pytest.mark.parametrize(("n", "text"), [(7, "7"), (99, "99"), (401, "410"), (12_345, "13,000")])
def test_a_guessed_count_is_rounded_up_to_two_figures(n: int, text: str) -> None:
    assert figures.about(n) == text


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0.8534, "share", "85.3 %"),
        (1.07345, "bits/byte", "1.073"),
        (12.0, "tokens/s", "12.0"),
        (234.5, "tokens/s", "234"),
        (12345.6, "tokens/s", "12,346"),
    ],
)
def test_beside_its_unit_a_value_is_bare_but_for_percent(
    value: float, unit: str, text: str
) -> None:
    assert figures.short(value, unit) == text


def test_exact_figures_are_bytes_counts_or_two_digits() -> None:
    assert figures.exact(98_000_000, "bytes") == "98 MB"
    assert figures.exact(8.4, "bits") == "8.40"
    assert figures.exact(134_515_008, "") == "135 M"


def test_what_belongs_together_stays_on_one_line():
    text = "it is -2.0 points (95 % interval -5.3 to +1.4 points, n = 100 items), 98 to go"
    assert figures.tight(text).replace("\u00a0", "_") == (
        "it is -2.0_points (95_% interval -5.3_to_+1.4_points, n_=_100_items), 98 to go"
    )


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.2, "1 s"), (89, "89 s"), (90, "2 min"), (9000, "2.5 h")]
)
def test_times_are_written_as_people_say_them(seconds, text):
    assert figures.duration(seconds) == text
