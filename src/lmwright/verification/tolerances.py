"""How far apart two copies of one model may be, by how their weights are stored.

Measured on SmolLM2-135M-Instruct, and wider by a factor of two to four, for models differ. Over
each stands what was measured. With the wrong rotary permutation in all layers the relative
error is 0.7 to 0.9, the divergence 1 to 2 nats, and 30 to 40 % of the choices are the same.
"""

import re
from dataclasses import dataclass

from lmwright.core.errors import RequestError
from lmwright.verification.subject import Subject


@dataclass(frozen=True)
class Tolerance:
    """What is allowed; None is not judged."""

    name: str
    # Of any logit, or log-probability where logits are not told: this much ...
    largest: float | None = None
    # ... and this much for each unit of the largest logit.
    per_logit: float = 0.0
    # Of logits less their mean: the root of squared errors over squares. At 1, B says no more of
    # what A thinks than a constant would.
    relative_error: float | None = None
    # Nats a token, on average.
    mean_kl: float | None = None
    # Share of the places at which both choose the same token.
    agreement: float | None = None
    # Of a weight matrix or vector, and of one row: the root of squared errors over squares. Each
    # tensor is judged by the tolerance of the format that it is stored in itself.
    weight_error: float | None = None
    row_error: float | None = None
    # How far log-probabilities of one file move in one engine, at most, between decoding and
    # reading the same tokens as a prompt.
    own_noise: float = 0.0
    judges_weights: bool = True

    def largest_allowed(self, scale: float) -> float | None:
        """Return the largest difference allowed where the largest logit is `scale`."""
        return None if self.largest is None else self.largest + self.per_logit * scale


# The same numbers in another order of summation: 7e-5 at logits up to 43, decoding with a cache.
# Weights: a file may hold 1 + w in place of w.
EXACT = Tolerance(
    "the same numbers", largest=1e-4, per_logit=1e-5, weight_error=1e-6, row_error=1e-6
)
# From the tightest to the loosest; where two apply, the looser one counts.
TOLERANCES = (
    EXACT,
    # 0.0003, in llama.cpp.
    Tolerance(
        "32 bits elsewhere", largest=0.01, weight_error=1e-6, row_error=1e-6, own_noise=0.001
    ),
    # 0.002 and 5e-6 nats.
    Tolerance(
        "16 bits (fp16)", relative_error=0.02, mean_kl=0.001, weight_error=0.001, row_error=0.001,
        own_noise=0.05,
    ),
    # 0.015 and 1e-4 nats.
    Tolerance(
        "16 bits (bf16)", relative_error=0.1, mean_kl=0.01, weight_error=0.004, row_error=0.004,
        own_noise=0.3,
    ),
    # 0.08, 0.005 nats, 96 % the same choice (Q8_0 in llama.cpp; Q4_0 against itself there).
    Tolerance(
        "8 bits", relative_error=0.25, mean_kl=0.05, agreement=0.8, weight_error=0.02,
        row_error=0.25, own_noise=0.7,
    ),
    # Not measured: in between.
    Tolerance(
        "6 bits", relative_error=0.35, mean_kl=0.1, agreement=0.75, weight_error=0.05,
        row_error=0.35, own_noise=0.7,
    ),
    Tolerance(
        "5 bits", relative_error=0.5, mean_kl=0.3, agreement=0.7, weight_error=0.1, row_error=0.45,
        own_noise=0.7,
    ),
    # 0.53, 0.30 nats, 73 % (Q4_0 in llama.cpp); 0.43, 0.46 nats, 66 % (int4, groups of 64).
    Tolerance(
        "4 bits", relative_error=0.75, mean_kl=1.0, agreement=0.5, weight_error=0.25, row_error=0.6,
        own_noise=0.7,
    ),
    # Not measured: wide, so that little but the weights is judged.
    Tolerance(
        "3 bits", relative_error=0.9, mean_kl=1.5, agreement=0.4, weight_error=0.5, row_error=0.8,
        own_noise=0.7,
    ),
    Tolerance(
        "2 bits", relative_error=1.0, mean_kl=2.5, agreement=0.25, weight_error=0.8, row_error=0.95,
        own_noise=0.7,
    ),
)  # fmt: skip
BY_NAME = {each.name: each for each in TOLERANCES}
# A server does not tell what it holds. If it is not named, none of few bits is taken for granted.
ASSUMED = "bf16"
# How exactly another engine multiplies goes by the weights that it has.
ELSEWHERE = {"fp32": "32 bits elsewhere", "fp16": "16 bits (fp16)", "bf16": "16 bits (bf16)"}

# Blocks of 32 with one scale: all others wrong by half a step, beside one as large as 127 or 8.
WORST_ROWS = {"Q8_0": 0.0225, "Q4_0": 0.335}
# Scales in half precision have steps of 2^-24, and integers of 8 bits multiply half of one by 127.
LEAST_STEP = 127 * 2.0**-25


def tolerance_for(a: Subject, b: Subject, *, has_same_weights: bool | None = None) -> Tolerance:
    """Return what is allowed between a model and what claims to be a copy of it.

    A copy in other numbers differs by their rounding, and an engine other than ours by its own.
    `has_same_weights` None: not known; the names of the formats must do.
    """
    found = [EXACT]
    if has_same_weights is None:
        has_same_weights = b.weights in (None, a.weights, "fp32")
    if not has_same_weights and b.weights is not None:
        found.append(format_tolerance(b.weights))
    for one, other in ((a, b), (b, a)):
        if one.engine != "lmwright":
            if one.weights is None:
                found.append(BY_NAME[ELSEWHERE[ASSUMED]])
            found.append(elsewhere(one.weights or other.weights or ASSUMED))
    return max(found, key=TOLERANCES.index)


def elsewhere(weights: str) -> Tolerance:
    """Return how exactly another engine multiplies with weights that are stored so."""
    # llama.cpp rounds what it multiplies with quantised weights to 8 bits, too.
    return BY_NAME[ELSEWHERE.get(weights, "8 bits")]


def is_coarser(a: Subject, b: Subject) -> bool:
    """Tell whether A has fewer bits than B, so that B can hardly be what was made from it."""
    if a.weights is None or b.weights is None:
        return False
    first, second = (TOLERANCES.index(format_tolerance(w)) for w in (a.weights, b.weights))
    return first > second


def custom(tolerance: float) -> Tolerance:
    """Return a tolerance of the user's own, on the largest difference alone."""
    return Tolerance(f"--tolerance {tolerance:g}", largest=tolerance, judges_weights=False)


def own_noise(subject: Subject) -> float:
    """Return how far a subject's log-probabilities may move when it is asked again."""
    if subject.engine == "lmwright":
        return 0.0
    return elsewhere(subject.weights or ASSUMED).own_noise


def format_tolerance(weights: str) -> Tolerance:
    """Return what rounding to a format explains."""
    if weights == "fp32":
        return EXACT
    if weights in ELSEWHERE:
        return BY_NAME[ELSEWHERE[weights]]
    # int8, int4, and GGUF's names: Q8_0, Q4_K, IQ3_XXS, MXFP4.
    digit = re.search(r"\d", weights)
    return BY_NAME.get(f"{digit[0]} bits" if digit else "", TOLERANCES[-1])


def row_error_allowed(weights: str) -> float:
    """Return how large the relative error of one row of a matrix may be."""
    tolerance = format_tolerance(weights)
    assert tolerance.row_error is not None
    return WORST_ROWS.get(weights, tolerance.row_error)


def step_allowed(weights: str) -> float:
    """Return an error of a single number that no relative bound covers: the least step there is."""
    return 2.0**-24 if weights == "fp32" or weights in ELSEWHERE else LEAST_STEP


def check_format(weights: str) -> str:
    """Return the name of a number format, or refuse one that says nothing."""
    if not re.fullmatch(
        r"fp32|fp16|bf16|fp8|fp4|int[2-8]|[A-Z]*Q[2-8](_\w+)?|MXFP4|NVFP4", weights
    ):
        raise RequestError(
            f"{weights!r} is no number format; expected fp32, fp16, bf16, fp8, int8, int4 or one "
            "of GGUF's: Q8_0, Q4_K"
        )
    return weights
