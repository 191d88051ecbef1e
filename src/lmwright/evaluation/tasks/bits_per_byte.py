"""How well does the model predict ordinary text, whatever its tokenizer?"""

from math import log

from lmwright.core.results import Row
from lmwright.engine.request import ScoreRequest
from lmwright.evaluation.selection import Selection, starter_lines, stratified
from lmwright.evaluation.statistics import Measure
from lmwright.lm import LanguageModel

MEASURE = Measure(
    name="bits_per_byte",
    title="Bits per byte, neutral text",
    unit="bits/byte",
    higher_is_better=False,
    kind="continuous",
    margin=0.02,
    margin_is_relative=True,
    caveat="Measured on our own short English texts after a line break, so it does not compare "
    "with perplexities of other corpora.",
)

# Models without a BOS cannot score a first token. After a line break every model can score all
# of the text, so every byte counts for every model.
CONTEXT = "\n"


def rows(model: LanguageModel, selection: Selection) -> list[Row]:
    """Score each text: value bits, weight bytes."""
    items = stratified(
        starter_lines("neutral-text.jsonl"),
        selection.count("texts"),
        name=lambda item: item["id"],
        stratum=lambda item: item["topic"],
    )
    scores = model.score([ScoreRequest(CONTEXT, item["text"]) for item in items])
    return [
        Row(
            item=item["id"],
            value=-score.logprob / log(2),
            weight=len(item["text"].encode()),
            cluster=item["id"],
            group=item["topic"],
            detail=f"{len(score.token_ids)} tokens",
        )
        for item, score in zip(items, scores, strict=True)
    ]
