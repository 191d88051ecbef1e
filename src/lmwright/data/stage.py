"""The stage `[data.NAME]`: what a recipe must know of it."""

import json
from collections.abc import Mapping
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
    n_samples = sum(n for n, _ in sizes)
    n_tokens = sum(n for _, n in sizes) * (1 - config.validation)
    if config.limit is not None and n_samples > config.limit:
        n_tokens *= config.limit / n_samples
    return Estimate(1 + n_bytes / 5e6, 200_000_000 + 5 * n_bytes, n_tokens=int(n_tokens))


def _size(path: Path, config: Data) -> tuple[float, float]:
    """Return about how many samples and how many tokens a file holds, from its first records."""
    n_bytes = path.stat().st_size
    if path.suffix != ".jsonl" and n_bytes > READABLE_BYTES:
        return 0, n_bytes / BYTES_PER_TOKEN
    seen, samples = 0, list[Sample]()
    found = records(path)
    for number, where, record in islice(found, N_LOOKED_AT):
        seen += len(json.dumps(record, ensure_ascii=False).encode()) + 1
        samples += parse(record, where=where, id_=str(number), system=config.system)[0]
    more = 1.0 if next(found, None) is None else max(1.0, n_bytes / seen)
    characters = sum(len(turn["content"]) for sample in samples for turn in sample.messages)
    n_turns = sum(len(sample.messages) for sample in samples)
    return more * len(samples), more * (characters / BYTES_PER_TOKEN + n_turns * TOKENS_PER_TURN)


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
