"""An export checks itself: it is opened again and compared with its source, or refused."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from lmwright.core.errors import LmwrightError
from lmwright.verification.bounds import Bound, bound_for
from lmwright.verification.opening import open_path
from lmwright.verification.verdict import Verdict
from lmwright.verification.verify import verify

# Enough to find a file that is not what was meant, in a second.
LIGHT_PROMPTS = 3
LIGHT_TOKENS = 4


class VerificationError(LmwrightError):
    """What was written is not the model that it was made from."""

    def __init__(self, message: str, verdicts: Sequence[Verdict]) -> None:
        super().__init__(message)
        self.verdicts = tuple(verdicts)


def check_folder(source: Path, copy: Path) -> dict[str, Any]:
    """Compare a compressed folder with its source in a few tokens; return numbers for a result.

    Whether rounding cost too much quality is for an evaluation to say. So of what the two say only
    so much is asked that they have to do with each other; weights, configuration and tokens must
    be those of the source, to the rounding of the format. An error lists what is not.
    """
    a, b = open_path(source), open_path(copy)
    verdict = verify(
        a,
        b,
        n_prompts=LIGHT_PROMPTS,
        n_tokens=LIGHT_TOKENS,
        bound=light(bound_for(a, b)),
    )
    demand([verdict], what=str(copy))
    return {**verdict.numbers, "n_prompts": verdict.n_prompts, "n_positions": verdict.n_positions}


def light(bound: Bound) -> Bound:
    """Return what is asked of a compressed copy whose quality is measured elsewhere."""
    related = None if bound.relative_error is None else 1.0
    return replace(bound, relative_error=related, mean_kl=None, agreement=None)


def demand(verdicts: Sequence[Verdict], *, what: str) -> None:
    """Raise an error that names each check that failed, if any did."""
    failures = [
        f"- {verdict.title}: {check.name}: {check.found}"
        + (f" (allowed: {check.allowed})" if check.allowed else "")
        for verdict in verdicts
        for check in verdict.failures
    ]
    if failures:
        lines = [f"{what}: is not the model that it was made from", *failures]
        raise VerificationError("\n".join(lines), verdicts)
