"""From sources to what is trained on, validated on and asked: the same for recipe and Python.

The step writes files; nothing downstream depends on where the data came from.
"""

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lmwright.core.artifact import read_state_lines, reading, replacing
from lmwright.core.errors import DataError
from lmwright.core.stage import StepContext
from lmwright.data.config import Data
from lmwright.data.samples import Question, Sample
from lmwright.data.sources import read

TRAIN, VALIDATION, QUESTIONS = "train.jsonl", "validation.jsonl", "questions.jsonl"


def run(config: Data, out: Path, context: StepContext) -> dict[str, Any]:  # noqa: ARG001
    """Write train.jsonl, validation.jsonl and questions.jsonl; return their counts."""
    data = prepare_data(config)
    parts = {TRAIN: data.train, VALIDATION: data.validation, QUESTIONS: data.questions}
    for name, records in parts.items():
        write_lines(out / name, [asdict(record) for record in records])
    return {
        "n_train": len(data.train),
        "n_validation": len(data.validation),
        "n_questions": len(data.questions),
        "n_duplicates_dropped": data.n_duplicates_dropped,
    }


def write_lines(path: Path, records: Sequence[dict[str, Any]]) -> None:
    """Write JSON lines atomically."""
    with replacing(path) as temporary:
        lines = [json.dumps(record, ensure_ascii=False) + "\n" for record in records]
        temporary.write_text("".join(lines), encoding="utf-8")


def read_samples(path: Path) -> list[Sample]:
    """Read the samples that the data step wrote."""
    remedy = f"redo its step (--from {path.parent.name})"
    records = read_state_lines(path, remedy=remedy)
    with reading(path, remedy=remedy):
        return [Sample(record["id"], tuple(record["messages"])) for record in records]


@dataclass(frozen=True)
class PreparedData:
    """Samples to train on and to validate with, and the held-out questions."""

    train: list[Sample]
    validation: list[Sample]
    questions: list[Question]
    n_duplicates_dropped: int


def prepare_data(config: Data) -> PreparedData:
    """Read all sources once, drop duplicates, check the held-out questions, and split."""
    samples, questions = read(config.sources, config.system)
    seen: dict[str, Sample] = {}
    for sample in samples:
        seen.setdefault(json.dumps(sample.messages), sample)
    unique = list(seen.values())
    check_heldout(unique, questions)
    n_dropped = len(samples) - len(unique)
    if config.limit is not None:
        # By another hash than the split's: that one's first samples are those for validation.
        unique = sorted(unique, key=lambda s: draw(s, f"limit/{config.seed}"))[: config.limit]
    train, validation = split(unique, config.validation, config.seed)
    return PreparedData(train, validation, questions, n_dropped)


def check_heldout(samples: Sequence[Sample], questions: Sequence[Question]) -> None:
    """Refuse data in which a held-out question is also trained on."""
    trained = {
        normalised(turn["content"]): sample.id
        for sample in samples
        for turn in sample.messages
        if turn["role"] == "user"
    }
    for question in questions:
        text = question.messages[-1]["content"]
        if normalised(text) in trained:
            raise DataError(
                f"the held-out question {question.id} ({text!r}) is also in the training sample "
                f"{trained[normalised(text)]}: it would measure memory. Remove one of them"
            )


def normalised(text: str) -> str:
    """Return the letters and digits of a text in lower case, words apart by one space."""
    return " ".join(re.findall(r"\w+", text.lower()))


def split(samples: Sequence[Sample], share: float, seed: int) -> tuple[list[Sample], list[Sample]]:
    """Return training and validation samples; who goes where depends on seed and id alone.

    So new data moves no old sample, and the share is met on average only. Of few samples, one is
    for validation in any case, and one for training.
    """
    if len(samples) < 2:
        raise DataError(
            f"{len(samples)} sample(s): at least 2 are needed, one of them for validation"
        )
    draws = [draw(sample, str(seed)) for sample in samples]
    ordered = sorted(draws)
    limit = min(max(share, ordered[0]), ordered[-2])
    return (
        [sample for sample, drawn in zip(samples, draws, strict=True) if drawn > limit],
        [sample for sample, drawn in zip(samples, draws, strict=True) if drawn <= limit],
    )


def draw(sample: Sample, purpose: str) -> float:
    """Return a number from 0 to 1 that looks random and is a hash of purpose and id."""
    digest = hashlib.sha256(f"{purpose}/{sample.id}".encode()).digest()
    return int.from_bytes(digest[:8]) / 2**64
