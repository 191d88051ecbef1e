"""An export checks itself: it is opened again and compared with its source, or refused."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lmwright.core.errors import LmwrightError
from lmwright.verification.result import VerificationResult
from lmwright.verification.subject import open_path
from lmwright.verification.tolerances import Tolerance, tolerance_for
from lmwright.verification.verify import verify

# Enough to find a file that is not what was meant, in a second.
LIGHT_PROMPTS = 3
LIGHT_TOKENS = 4


class VerificationError(LmwrightError):
    """What was written is not the model that it was made from."""

    def __init__(self, message: str, results: Sequence[VerificationResult]) -> None:
        super().__init__(message)
        self.results = tuple(results)


def check_folder(source: Path, copy: Path) -> dict[str, Any]:
    """Compare a compressed folder with its source in a few tokens; return numbers for a result.

    Weights, configuration and tokens must be those of the source, to the rounding of the format;
    an error lists what is not. Whether rounding cost too much quality is for an evaluation to say.
    """
    a, b = open_path(source), open_path(copy)
    tolerance = any_number(tolerance_for(a, b, has_same_weights=False).name)
    result = verify(a, b, n_prompts=LIGHT_PROMPTS, n_tokens=LIGHT_TOKENS, tolerance=tolerance)
    demand([result], what=str(copy))
    return {**result.numbers, "n_prompts": result.n_prompts, "n_positions": result.n_positions}


def any_number(name: str) -> Tolerance:
    """Return a tolerance for copies of few bits.

    Rounding that ruins a model (a fragile or hardly trained one) is no fault of the file: what it
    says must be numbers, while each of its weights must be that of the source.
    """
    return Tolerance(name, largest=sys.float_info.max)


def demand(results: Sequence[VerificationResult], *, what: str) -> None:
    """Raise an error that names each check that failed, if any did."""
    failures = [f"- {r.title}: {check.name}: {check.told}" for r in results for check in r.failures]
    if failures:
        lines = [f"{what}: is not the model that it was made from", *failures]
        raise VerificationError("\n".join(lines), results)
