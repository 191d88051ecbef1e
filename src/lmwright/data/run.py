"""The data step: files in, files out; nothing downstream depends on where the data came from."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lmwright.core.artifact import replacing
from lmwright.core.stage import StepContext
from lmwright.data.config import Data
from lmwright.data.prepare import prepare
from lmwright.data.samples import Sample

TRAIN, VALIDATION, QUESTIONS = "train.jsonl", "validation.jsonl", "questions.jsonl"


def run(config: Data, out: Path, context: StepContext) -> dict[str, Any]:  # noqa: ARG001
    """Write train.jsonl, validation.jsonl and questions.jsonl; return their counts."""
    data = prepare(config)
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
    with path.open(encoding="utf-8") as file:
        records = [json.loads(line) for line in file]
    return [Sample(record["id"], tuple(record["messages"])) for record in records]
