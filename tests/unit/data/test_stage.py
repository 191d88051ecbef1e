"""A plan must know data again by its bytes, and judge its size without reading all of it."""

import json
from pathlib import Path

import pytest

from lmwright.core.errors import DataError
from lmwright.data.config import Data
from lmwright.data.stage import DATA_STAGE, N_LOOKED_AT, source_hash


def test_data_is_known_by_its_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a.jsonl", "b.jsonl"):
        Path(name).write_text("{}\n", encoding="utf-8")
    assert source_hash("a.jsonl") == source_hash("b.jsonl") != source_hash("*.jsonl")
    assert source_hash("*.jsonl") == source_hash(str(tmp_path / "*.jsonl")) == source_hash(".")
    Path("b.jsonl").write_text("{} \n", encoding="utf-8")
    assert source_hash("a.jsonl") != source_hash("b.jsonl")
    assert source_hash("hub:org/data") == "hub:org/data"
    with pytest.raises(DataError, match="none"):
        source_hash("none*.jsonl")


def n_tokens(**table: object) -> int:
    found = DATA_STAGE.estimate(Data(**table), {}).n_tokens
    assert found is not None
    return found


def test_a_large_file_is_taken_to_be_like_its_first_records(tmp_path: Path) -> None:
    line = json.dumps({"prompt": "What?", "completion": "A card." * 10}) + "\n"
    small, large = tmp_path / "small.jsonl", tmp_path / "large.jsonl"
    small.write_text(line * N_LOOKED_AT, encoding="utf-8")
    large.write_text(line * N_LOOKED_AT * 50 + "no JSON", encoding="utf-8")
    assert n_tokens(source=str(large)) == pytest.approx(50 * n_tokens(source=str(small)), rel=0.01)
    assert n_tokens(source=[str(small), str(large)]) > n_tokens(source=str(large))
    assert n_tokens(source=str(large), limit=N_LOOKED_AT) == pytest.approx(
        n_tokens(source=str(small)), rel=0.01
    )


def test_samples_and_questions_are_counted_where_the_file_can_be_read(tmp_path: Path) -> None:
    fact = {"questions": ["a", "b"], "answers": ["c"], "heldout": ["d"], "accept": ["c"]}
    path = tmp_path / "faq.json"
    path.write_text(json.dumps([fact] * 500), encoding="utf-8")
    found = DATA_STAGE.estimate(Data(source=str(path), validation=0.1), {})
    assert (found.n_samples, found.n_questions) == (900, N_LOOKED_AT)
    pair = json.dumps({"prompt": "a", "completion": "b"}) + "\n"
    small, large = tmp_path / "small.jsonl", tmp_path / "large.jsonl"
    small.write_text(pair * 3, encoding="utf-8")
    large.write_text(pair * 2 * N_LOOKED_AT, encoding="utf-8")
    # In what was not looked at there may be some.
    assert DATA_STAGE.estimate(Data(source=str(small)), {}).n_questions == 0
    assert DATA_STAGE.estimate(Data(source=str(large)), {}).n_questions is None
    table = tmp_path / "table.csv"
    table.write_text("question,answer\n" + "a,b\n" * 1000, encoding="utf-8")
    assert DATA_STAGE.estimate(Data(source=str(table), validation=0.1), {}).n_samples == 900
