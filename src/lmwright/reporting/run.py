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

    The card beside the page is that of the gate's model, or of the last one without a gate.
    """
    run_folder = context.run_folder
    story = collect(Path(context.inputs[config.evaluation]), run_folder)
    _write(out / PAGE, render(story))
    cards = []
    for model in story.models:
        # A model from elsewhere keeps the card that it came with.
        if model in {step.name for step in story.steps} and (run_folder / model / "model").is_dir():
            path = run_folder / model / "model" / CARD
            _write(path, card(story, model))
            cards.append(path.relative_to(run_folder).as_posix())
    shown = story.gate["model"] if story.gate else story.models[-1]
    _write(out / CARD, card(story, shown))
    return {"page": PAGE, "card": CARD, "card_of": shown, "cards": cards}


def _write(path: Path, text: str) -> None:
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
