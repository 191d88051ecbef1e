"""How well does the model predict ordinary text, whatever its tokenizer?"""

from math import log

from lmwright.core.results import MetricSpec, Row
from lmwright.engine.request import ScoreRequest
from lmwright.evaluation.measurement import Measurement
from lmwright.evaluation.selection import Selection, starter_items
from lmwright.lm import LanguageModel

# Models without a BOS cannot score a first token. After a line break every model can score all
# of the text, so every byte counts for every model.
CONTEXT = "\n"


def rows(model: LanguageModel, selection: Selection) -> list[Row]:
    """Score each text: sums (bits, bytes)."""
    items = starter_items("neutral-text.jsonl", selection.n, stratum="topic")
    scores = model.score([ScoreRequest(CONTEXT, item["text"]) for item in items])
    return [
        Row(
            item=item["id"],
            sums=(-score.logprob / log(2), len(item["text"].encode())),
            cluster=item["id"],
            group=item["topic"],
            detail=f"{len(score.token_ids)} tokens",
        )
        for item, score in zip(items, scores, strict=True)
    ]


BITS_PER_BYTE = Measurement(
    MetricSpec(
        name="bits_per_byte",
        title="Bits per byte, neutral text",
        unit="bits/byte",
        higher_is_better=False,
        kind="continuous",
        margin=0.02,
        margin_is_relative=True,
        caveat="Measured on our own short English texts after a line break, so it does not compare "
        "with perplexities of other corpora.",
        role="quality",
    ),
    task="bits_per_byte",
    n_items={"quick": 24, "full": None},
    rows=rows,
)
