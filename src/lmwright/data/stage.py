"""The stage `[data.NAME]`: what a recipe must know of it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from lmwright.core.artifact import hash_json, hash_path
from lmwright.core.stage import DATA, Estimate, Stage
from lmwright.data.config import Data
from lmwright.data.samples import Sample, parse
from lmwright.data.sources import locate, records

# English text; the chat template adds about so many tokens a turn.
BYTES_PER_TOKEN = 4.2
TOKENS_PER_TURN = 5
TOKENS_PER_SAMPLE = 200
# So many records of a file are looked at, and the rest is taken to be like them.
N_LOOKED_AT = 200
# Files that are no lines can only be read as a whole: larger ones are judged by their size.
READABLE_BYTES = 20_000_000


def source_hash(source: str) -> str:
    """Return the hash of a data source; one on a hub is known by its name only."""
    if source.startswith("hub:"):
        return source
    return hash_json([hash_path(path) for path in locate(source)])


def _estimate(config: Data, _: Mapping[str, Estimate]) -> Estimate:
    if any(source.startswith("hub:") for source in config.sources):
        return Estimate(1, 200_000_000, is_complete=False)
    paths = [path for source in config.sources for path in locate(source)]
    n_bytes = sum(path.stat().st_size for path in paths)
    sizes = [_size(path, config) for path in paths]
    n_samples = sum(size.n_samples for size in sizes)
    n_tokens = sum(size.n_tokens for size in sizes)
    n_questions = sum(size.n_questions for size in sizes)
    if config.limit is not None and n_samples > config.limit:
        n_tokens *= config.limit / n_samples
        n_samples = config.limit
    # Of what was not looked at nothing is known, unless some are there already.
    is_known = n_questions or all(size.is_whole for size in sizes)
    return Estimate(
        1 + n_bytes / 5e6,
        200_000_000 + 5 * n_bytes,
        n_tokens=int(n_tokens * (1 - config.validation)),
        n_samples=max(1, round(n_samples * (1 - config.validation))),
        n_questions=n_questions if is_known else None,
    )


@dataclass(frozen=True)
class _Size:
    """About what a file holds."""

    n_samples: float
    n_tokens: float
    n_questions: int = 0
    is_whole: bool = False


def _size(path: Path, config: Data) -> _Size:
    """Return about what a file holds, from its first records."""
    n_bytes = path.stat().st_size
    if path.suffix != ".jsonl" and n_bytes > READABLE_BYTES:
        n_tokens = n_bytes / BYTES_PER_TOKEN
        return _Size(n_tokens / TOKENS_PER_SAMPLE, n_tokens)
    seen, n_records, n_questions, samples = 0, 0, 0, list[Sample]()
    found = records(path)
    for number, where, record in islice(found, N_LOOKED_AT):
        seen += len(json.dumps(record, ensure_ascii=False).encode()) + 1
        read, questions = parse(record, where=where, id_=str(number), system=config.system)
        samples += read
        n_records, n_questions = n_records + 1, n_questions + len(questions)
    if path.suffix == ".jsonl":
        is_whole = next(found, None) is None
        more = 1.0 if is_whole else max(1.0, n_bytes / seen)
    else:  # read as a whole in any case
        n_others = sum(1 for _ in found)
        is_whole, more = n_others == 0, 1 + n_others / max(1, n_records)
    characters = sum(len(turn["content"]) for sample in samples for turn in sample.messages)
    n_turns = sum(len(sample.messages) for sample in samples)
    n_tokens = characters / BYTES_PER_TOKEN + n_turns * TOKENS_PER_TURN
    return _Size(more * len(samples), more * n_tokens, n_questions, is_whole)


DATA_STAGE = Stage(
    name="data",
    title="Data",
    config=Data,
    makes=DATA,
    version=1,
    run="lmwright.data.run:run",
    files=("train.jsonl", "validation.jsonl", "questions.jsonl"),
    estimate=_estimate,
    external=lambda config: {source: source_hash(source) for source in config.sources},
)
