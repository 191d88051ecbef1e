"""Files in, files out: the step `[report.NAME]` of a recipe."""

from pathlib import Path
from typing import Any

from lmwright.core.artifact import replacing
from lmwright.core.stage import StepContext
from lmwright.reporting.card import card
from lmwright.reporting.collect import collect
from lmwright.reporting.config import Report
from lmwright.reporting.html import render

PAGE = "report.html"
CARD = "README.md"


def run(config: Report, out: Path, context: StepContext) -> dict[str, Any]:
    """Write the page and a card, and a card beside the weights of each model of this run.

    The card beside the page is that of the first gate's model, or of the last one without a gate.
    """
    folder = context.run_folder
    gates = [Path(context.inputs[name]) for name in config.gates or ()]
    report = collect(Path(context.inputs[config.evaluation]), folder, gates)
    _write(out / PAGE, render(report))
    cards = []
    for model in report.models:
        # A model from elsewhere keeps the card that it came with.
        if report.step(model) is not None and (folder / model / "model").is_dir():
            path = folder / model / "model" / CARD
            _write(path, card(report, model))
            cards.append(path.relative_to(folder).as_posix())
    shown = report.gates[0].model if report.gates else report.models[-1]
    _write(out / CARD, card(report, shown))
    return {"page": PAGE, "card": CARD, "card_of": shown, "cards": cards}


def _write(path: Path, text: str) -> None:
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
