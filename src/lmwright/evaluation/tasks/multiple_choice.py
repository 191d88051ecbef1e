"""General knowledge: which of four answers does the model find likeliest?"""

import json
from collections.abc import Sequence
from typing import Any

from lmwright.core.results import Row
from lmwright.engine.request import ScoreRequest
from lmwright.evaluation.selection import Selection, starter_lines, stratified
from lmwright.evaluation.statistics import Measure
from lmwright.lm import LanguageModel

MEASURE = Measure(
    name="multiple_choice",
    title="Multiple choice, general",
    unit="share",
    higher_is_better=True,
    kind="binary",
    margin=0.05,
    caveat="The likeliest of four answers by log-probability per byte (chance is 25 %); the "
    "questions are easy and our own, so no number elsewhere compares with this one.",
)


def rows(model: LanguageModel, selection: Selection) -> list[Row]:
    """Score each answer after "Question: ... Answer:", per byte; the detail is JSON."""
    items = stratified(
        starter_lines("multiple-choice.jsonl"),
        selection.count("multiple_choice"),
        name=lambda item: item["id"],
        stratum=lambda item: item["topic"],
    )
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
        value=float(chosen == answer),
        cluster=item["id"],
        group=item["topic"],
        detail=json.dumps(detail, sort_keys=True),
    )


def _best(values: Sequence[float]) -> int:
    return max(range(len(values)), key=lambda i: values[i])
