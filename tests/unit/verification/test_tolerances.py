"""What is allowed must follow from what was done to the weights, and by which engine."""

from dataclasses import dataclass

import pytest

from lmwright.core.errors import RequestError
from lmwright.tokenizer.encode import Tokenizer
from lmwright.verification.tolerances import (
    BY_NAME,
    EXACT,
    TOLERANCES,
    check_format,
    custom,
    is_coarser,
    own_noise,
    tolerance_for,
)


@dataclass
class Kind:
    """All of a subject that a bound depends on."""

    weights: str | None
    engine: str = "lmwright"
    name: str = "x"
    context_length: int | None = None
    n_ids: int | None = None
    tokenizer: Tokenizer | None = None
    is_gguf: bool = False
    here: None = None

    def encode(self, prompt: object) -> None: ...

    def trace(self, *args: object, **kwargs: object) -> list: ...


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ("fp32", "fp32", "the same numbers"),
        ("Q4_1", "fp32", "the same numbers"),
        ("bf16", "bf16", "the same numbers"),
        ("Q4_0", "Q4_0", "the same numbers"),
        ("fp32", "fp16", "16 bits (fp16)"),
        ("fp16", "bf16", "16 bits (bf16)"),
        ("fp32", "int8", "8 bits"),
        ("bf16", "Q8_0", "8 bits"),
        ("bf16", "Q6_K", "6 bits"),
        ("bf16", "Q5_1", "5 bits"),
        ("bf16", "int4", "4 bits"),
        ("bf16", "IQ4_NL", "4 bits"),
        ("bf16", "IQ3_XXS", "3 bits"),
        ("bf16", "TQ2_0", "2 bits"),
    ],
)
def test_a_copy_may_differ_by_the_rounding_of_its_format(a: str, b: str, expected: str) -> None:
    assert tolerance_for(Kind(a), Kind(b)).name == expected


def test_what_is_known_of_the_weights_says_more_than_the_names_of_formats() -> None:
    # bf16 values in an fp32 file lose nothing; Q8_0 of Q8_0 is rounded anew.
    assert tolerance_for(Kind("fp32"), Kind("bf16"), has_same_weights=True) is EXACT
    assert tolerance_for(Kind("Q8_0"), Kind("Q8_0"), has_same_weights=False).name == "8 bits"
    assert tolerance_for(Kind("bf16"), Kind("fp32"), has_same_weights=False) is EXACT


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        (Kind("fp32"), Kind("fp32", "llama.cpp"), "32 bits elsewhere"),
        (Kind("fp16"), Kind("fp16", "llama.cpp"), "16 bits (fp16)"),
        (Kind("Q4_0"), Kind("Q4_0", "llama.cpp"), "8 bits"),
        (Kind("fp32"), Kind("Q4_0", "llama.cpp"), "4 bits"),
        (Kind("bf16"), Kind(None, "server"), "16 bits (bf16)"),
        # No API tells what a server holds; fp16, for example, is no fault.
        (Kind("fp32"), Kind(None, "server"), "16 bits (bf16)"),
        (Kind("fp32"), Kind("fp16", "server"), "16 bits (fp16)"),
        (Kind("fp32"), Kind("fp32", "server"), "32 bits elsewhere"),
        (Kind("fp32"), Kind("Q4_0", "server"), "4 bits"),
        (Kind("int4"), Kind(None, "server"), "8 bits"),
        (Kind(None, "server"), Kind("bf16"), "16 bits (bf16)"),
    ],
)
def test_another_engine_adds_its_own_rounding(a: Kind, b: Kind, expected: str) -> None:
    assert tolerance_for(a, b).name == expected


def test_each_bound_is_at_least_as_wide_as_the_one_before() -> None:
    for name in ("relative_error", "mean_kl", "weight_error"):
        values = [value for b in TOLERANCES if (value := getattr(b, name)) is not None]
        assert values == sorted(values)
    agreements = [b.agreement for b in TOLERANCES if b.agreement is not None]
    assert agreements == sorted(agreements, reverse=True)


def test_rounding_of_exact_numbers_grows_with_the_logits() -> None:
    assert EXACT.largest_allowed(0.0) == 1e-4
    assert EXACT.largest_allowed(40.0) == pytest.approx(5e-4)
    assert custom(0.5).largest_allowed(40.0) == 0.5
    assert TOLERANCES[2].largest_allowed(40.0) is None


@pytest.mark.parametrize("name", ["fp32", "bf16", "fp8", "int8", "Q8_0", "IQ3_XXS", "TQ2_0"])
def test_formats_are_known_by_name(name: str) -> None:
    assert check_format(name) == name


@pytest.mark.parametrize("name", ["", "f16", "q8_0", "64 bits", "fp64", "Q9_0"])
def test_a_name_that_says_nothing_is_refused(name: str) -> None:
    with pytest.raises(RequestError, match="is no number format; expected fp32"):
        check_format(name)


def test_noise_is_that_of_the_engine() -> None:
    assert own_noise(Kind("Q8_0")) == 0
    assert own_noise(Kind("Q4_0", "llama.cpp")) == BY_NAME["8 bits"].own_noise
    assert own_noise(Kind(None, "server")) == BY_NAME["16 bits (bf16)"].own_noise


def test_an_original_of_fewer_bits_is_noticed() -> None:
    assert is_coarser(Kind("int4"), Kind("bf16"))
    assert not is_coarser(Kind("bf16"), Kind("int4"))
    assert not is_coarser(Kind("int4"), Kind(None, "server"))
