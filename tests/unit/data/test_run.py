"""All later steps read these files: they must hold what was read, and all of it."""

import json
from dataclasses import asdict

import pytest

from lmwright.core.errors import DataError, StateError
from lmwright.core.stage import StepContext
from lmwright.data.config import Data
from lmwright.data.run import read_samples, run, write_lines
from lmwright.data.samples import Sample

DATA_FILES = ["questions.jsonl", "train.jsonl", "validation.jsonl"]


@pytest.fixture
def context(tmp_path):
    return StepContext(inputs={}, parents={}, run_folder=tmp_path, seed=0)


def sample(number: int, text: str | None = None) -> Sample:
    user = {"role": "user", "content": text or f"question {number}"}
    return Sample(f"s-{number}", (user, {"role": "assistant", "content": "answer"}))


def test_the_step_writes_what_it_counts(tmp_path, context):
    samples = [*(sample(i) for i in range(40)), sample(99, "question 3")]
    source = tmp_path / "x.jsonl"
    write_lines(source, [asdict(s) for s in samples])
    counts = run(Data(source=str(source), validation=0.2), tmp_path / "out", context)
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == DATA_FILES
    train = read_samples(tmp_path / "out" / "train.jsonl")
    validation = read_samples(tmp_path / "out" / "validation.jsonl")
    # The copy of question 3 goes, the first one stays.
    assert sorted([*train, *validation], key=lambda s: int(s.id[2:])) == samples[:-1]
    assert counts == {
        "n_train": len(train),
        "n_validation": len(validation),
        "n_questions": 0,
        "n_duplicates_dropped": 1,
    }


def test_data_that_is_refused_leaves_nothing_behind(tmp_path, context):
    record = {"questions": ["a?"], "answers": ["b"], "heldout": ["A"], "accept": ["b"]}
    (tmp_path / "x.jsonl").write_text(json.dumps(record))
    with pytest.raises(DataError, match="it would measure memory"):
        run(Data(source=str(tmp_path / "x.jsonl")), tmp_path / "out", context)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("raw", ["{\n", "[]\n", '{"id": "s-1"}\n', '{"id": 1, "messages": 5}\n'])
def test_damaged_samples_are_named_with_the_remedy(tmp_path, raw):
    path = tmp_path / "words" / "train.jsonl"
    path.parent.mkdir()
    path.write_text(raw)
    with pytest.raises(StateError, match=r"train\.jsonl: is damaged .*; redo .*--from words"):
        read_samples(path)
