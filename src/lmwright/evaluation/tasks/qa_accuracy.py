"""Does the model know the facts of the recipe's data, asked in words it never saw?"""

import re
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import cast

from lmwright.core.artifact import read_state_lines, reading
from lmwright.core.errors import DataError
from lmwright.core.results import Asked, MetricSpec, Row
from lmwright.data.samples import Question
from lmwright.engine.request import Message, Sampling
from lmwright.evaluation.measurement import Measurement
from lmwright.evaluation.selection import Selection, stratified
from lmwright.evaluation.statistics import estimate_groups
from lmwright.lm import LanguageModel

MAX_TOKENS = 48
# What an assistant says to a question outside its field.
DECLINE = "only help with"


def rows(model: LanguageModel, selection: Selection) -> list[Row]:
    """Ask greedily and look for an accepted answer; the detail is the reply."""
    questions = _chosen(selection)
    # The data step checked the roles.
    prompts = [cast(Sequence[Message], question.messages) for question in questions]
    replies = model.generate(prompts, Sampling(max_tokens=MAX_TOKENS))
    return [_row(question, reply.text) for question, reply in zip(questions, replies, strict=True)]


def asked(selection: Selection) -> dict[str, Asked]:
    """Return what is asked and the first of the accepted answers, by item."""
    return {
        question.id: Asked(question.messages[-1]["content"], question.accept[0])
        for question in _chosen(selection)
    }


def read_questions(path: Path) -> tuple[Question, ...]:
    """Read the questions.jsonl that the data step wrote."""
    remedy = f"redo its step (--from {path.parent.name})"
    try:
        records = read_state_lines(path, remedy=remedy)
    except FileNotFoundError:
        raise DataError(f"{path} is missing: run the data step first") from None
    with reading(path, remedy=remedy):
        return tuple(
            Question(each["id"], each["cluster"], tuple(each["messages"]), tuple(each["accept"]))
            for each in records
        )


def _chosen(selection: Selection) -> list[Question]:
    # Every fact once before any fact twice.
    return stratified(
        selection.questions,
        selection.n,
        name=lambda question: question.id,
        stratum=lambda question: question.cluster,
    )


def _row(question: Question, reply: str) -> Row:
    return Row(
        item=question.id,
        sums=(float(mentions(reply, question.accept)), 1.0),
        cluster=question.cluster,
        group="out of scope" if DECLINE in question.accept else "in scope",
        detail=reply,
    )


def mentions(reply: str, accept: Iterable[str]) -> bool:
    """Whether any accepted text occurs in the reply as whole words and whole numbers."""
    text = normalise(reply)
    return any(_pattern(normalise(answer)).search(text) for answer in accept)


def normalise(text: str) -> str:
    """Return lower case, single spaces, straight quotes, 2500 for 2,500, no full stop at the end.

    >>> normalise("It costs 2,500 Euros.")
    'it costs 2500 euros'
    """
    text = unicodedata.normalize("NFKC", text).replace("\u2019", "'").lower()
    text = re.sub(r"(?<=\d),(?=\d{3}(?!\d))", "", text)
    return " ".join(text.split()).rstrip(".")


def _pattern(answer: str) -> re.Pattern[str]:
    # "8 euros" is neither in "18 euros" nor in "0.8 euros", and "8" not in "8.50".
    return re.compile(rf"(?<!\w)(?<!\d[.,]){re.escape(answer)}(?!\w)(?![.,]\d)")


QA_ACCURACY = Measurement(
    MetricSpec(
        name="qa_accuracy",
        title="Answer accuracy, held-out questions",
        unit="share",
        higher_is_better=True,
        kind="binary",
        margin=0.05,
        caveat="Right means that an accepted answer occurs in the reply; what else the reply says "
        "is not judged.",
        hub_type="accuracy",
        role="quality",
    ),
    task="qa_accuracy",
    n_items={"quick": 100, "full": None},
    rows=rows,
    slices=estimate_groups,
    asked=asked,
    needs_questions=True,
)
