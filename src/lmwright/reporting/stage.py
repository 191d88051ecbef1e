"""The stage `[report.NAME]`: what a recipe must know of it."""

from typing import Any

from lmwright.core.stage import DECISION, EVALUATION, PAGE, Estimate, Reference, Stage, TablesByKind
from lmwright.reporting.config import Report


def _complete(config: Report, made: TablesByKind) -> dict[str, Any]:
    """Show the gates that are about the same evaluation where none are named."""
    if config.gates is not None:
        return {}
    gates = made.get(DECISION, {}).items()
    return {"gates": [name for name, gate in gates if gate.evaluation == config.evaluation]}


REPORT_STAGE = Stage(
    name="report",
    title="Report",
    config=Report,
    makes=PAGE,
    version=2,
    run="lmwright.reporting.run:run",
    files=("report.html", "README.md"),
    estimate=lambda _config, _known: Estimate(5, 400_000_000),
    references={"evaluation": Reference(EVALUATION), "gates": Reference(DECISION)},
    complete=_complete,
    needs=lambda _: ("pyarrow",),
)
