"""The gate as a step: an evaluation's result in, the decision out."""

import json
from pathlib import Path
from typing import Any

from lmwright.core.artifact import RESULT
from lmwright.core.stage import StepContext
from lmwright.gate.config import Gate
from lmwright.gate.gate import check


def run(config: Gate, out: Path, context: StepContext) -> dict[str, Any]:  # noqa: ARG001
    """Decide every rule; return the decision, for result.json."""
    path = Path(context.inputs[config.evaluation]) / RESULT
    return check(config, json.loads(path.read_text(encoding="utf-8"))).to_json()
