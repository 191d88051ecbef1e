"""Files in, files out: the step `[gate]` of a recipe."""

from pathlib import Path
from typing import Any

from lmwright.core.artifact import RESULT
from lmwright.core.results import Scores, plain, read_plain
from lmwright.core.stage import StepContext
from lmwright.gate.config import Gate
from lmwright.gate.decide import decide


def run(config: Gate, out: Path, context: StepContext) -> dict[str, Any]:  # noqa: ARG001
    """Return the decision; "passed": false ends a run with exit code 3."""
    path = Path(context.inputs[config.evaluation]) / RESULT
    scores = read_plain(Scores, path, remedy=f"redo its step (--from {config.evaluation})")
    return plain(decide(config, scores))
