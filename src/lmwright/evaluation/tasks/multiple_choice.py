"""General knowledge: which of four answers does the model find likeliest?"""

import json
from collections.abc import Sequence
from typing import Any

from lmwright.core.results import MetricSpec, Row
from lmwright.engine.request import ScoreRequest
from lmwright.evaluation.measurement import Measurement
from lmwright.evaluation.selection import Selection, starter_items
from lmwright.evaluation.statistics import estimate_groups
from lmwright.lm import LanguageModel


def rows(model: LanguageModel, selection: Selection) -> list[Row]:
    """Score each answer after "Question: ... Answer:", per byte; the detail is JSON."""
    items = starter_items("multiple-choice.jsonl", selection.n, stratum="topic")
    scores = iter(model.score([request for item in items for request in requests(item)]))
    return [_row(item, [next(scores).logprob for _ in item["choices"]]) for item in items]


def requests(item: dict[str, Any]) -> list[ScoreRequest]:
    """Return one request for each answer of a question."""
    context = f"Question: {item['question']}\nAnswer:"
    return [ScoreRequest(context, f" {choice}") for choice in item["choices"]]


def _row(item: dict[str, Any], logprobs: Sequence[float]) -> Row:
    # Per byte of the answer, as a long answer is less likely as a whole; the model's own tokens
    # would make the measure depend on the tokenizer.
    pairs = zip(logprobs, item["choices"], strict=True)
    per_byte = [logprob / len(choice.encode()) for logprob, choice in pairs]
    chosen, answer = _best(per_byte), item["answer"]
    others = [value for i, value in enumerate(per_byte) if i != answer]
    detail = {
        "chosen": chosen,
        "answer": answer,
        "logprobs": [round(value, 6) for value in logprobs],
        "margin_per_byte": round(per_byte[answer] - max(others), 6),
        "right_without_normalising": _best(logprobs) == answer,
    }
    return Row(
        item=item["id"],
        sums=(float(chosen == answer), 1.0),
        cluster=item["id"],
        group=item["topic"],
        detail=json.dumps(detail, sort_keys=True),
    )


def _best(values: Sequence[float]) -> int:
    return max(range(len(values)), key=lambda i: values[i])


MULTIPLE_CHOICE = Measurement(
    MetricSpec(
        name="multiple_choice",
        title="Multiple choice, general",
        unit="share",
        higher_is_better=True,
        kind="binary",
        margin=0.05,
        caveat="The likeliest of four answers by log-probability per byte (chance is 25 %); the "
        "questions are easy and our own, so no number elsewhere compares with this one.",
        hub_type="accuracy",
        role="quality",
    ),
    task="multiple_choice",
    n_items={"quick": 100, "full": None},
    rows=rows,
    slices=estimate_groups,
)
