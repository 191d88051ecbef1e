"""The step of a recipe: rows on disk, a killed run goes on, the result is plain data."""

import json

import pytest

from lmwright import lm
from lmwright.core.artifact import write_json
from lmwright.core.errors import DataError, RecipeError, RequestError
from lmwright.core.results import Asked, Scores, read_rows
from lmwright.core.stage import StepContext
from lmwright.data.run import write_lines
from lmwright.evaluation import run as evaluation_run
from lmwright.evaluation import speed
from lmwright.evaluation.config import Evaluate
from lmwright.evaluation.run import folder_name, run
from lmwright.evaluation.tasks import MEASUREMENTS


@pytest.fixture
def loaded(make_model, monkeypatch):
    """Replace `load` by one that hands out fake models and notes what was asked for."""
    calls = []

    def load(source, *, precision, name):
        calls.append((str(source), precision, name))
        dtype = {"fp32": "float32", "auto": "bfloat16"}[precision]
        return make_model(name, dtype=dtype, likes={"the": -0.3} if name == "int4" else {})

    def in_turns(models, suite, measurements, _):
        """As `measure_in_turns`, but here: another process would not know the fakes."""
        return [speed.time_model(*model, suite, measurements) for model in models]

    monkeypatch.setattr(lm, "load", load)
    monkeypatch.setattr(evaluation_run, "measure_in_turns", in_turns)
    return calls


@pytest.fixture
def data(tmp_path):
    folder = tmp_path / "dialogues"
    questions = [
        {
            "id": f"f{i}/0",
            "cluster": f"f{i}",
            "messages": [{"role": "user", "content": f"What is {i}?"}],
            "accept": ["here you are"],
        }
        for i in range(12)
    ]
    write_lines(folder / "questions.jsonl", questions)
    return folder


def within(inputs=None, parents=None):
    return StepContext(inputs or {}, parents or {}, run_folder=None, seed=0)


CONFIG = Evaluate(models=["starter", "int4"], data="dialogues")


def test_result_is_plain_data_and_rows_lie_on_disk(tmp_path, loaded, data):
    inputs = {"int4": tmp_path / "int4", "dialogues": data}
    result = run(CONFIG, tmp_path / "card", within(inputs, {"int4": ("starter",), "other": ("x",)}))
    write_json(tmp_path / "result.json", result)
    assert loaded == [
        ("starter", "fp32", "starter"),
        (str(tmp_path / "int4"), "fp32", "int4"),
        ("starter", "auto", "starter"),
        (str(tmp_path / "int4"), "auto", "int4"),
    ]
    scores = Scores.from_json(json.loads((tmp_path / "result.json").read_text()))
    assert scores.models == ("starter", "int4")
    assert scores.parents == {"int4": ("starter",)}
    assert set(scores.metrics["int4"]) == {spec.name for spec in scores.specs}
    assert len(scores.specs) == 8
    assert scores.metrics["starter"]["qa_accuracy"].value == 1.0
    assert scores.comparison("bits_per_byte", "int4", baseline="starter").verdict == "worse"
    rows = read_rows(tmp_path / "card" / result["rows"]["int4"] / "qa_accuracy.parquet")
    assert [row.detail for row in rows] == ["Here you are."] * 12
    assert scores.asked["qa_accuracy"]["f3/0"] == Asked("What is 3?", "here you are")
    assert result["counts"] == {name: m.n_items["quick"] for name, m in MEASUREMENTS.items()}
    facts = result["facts_of_models"]["int4"]
    assert (facts["quality_dtype"], facts["speed_dtype"]) == ("float32", "bfloat16")
    assert facts["size_bytes"] == 4000
    assert facts["peak_memory_bytes"] > 1_000_000
    assert facts["batch_difference"] == 0.0


def test_a_killed_run_goes_on_where_it_stood(tmp_path, loaded, data, make_model, monkeypatch):
    out, inputs = tmp_path / "card", {"dialogues": data}
    whole = run(CONFIG, out, within(inputs))
    n_loads = len(loaded)
    assert run(CONFIG, out, within(inputs)) == whole
    assert len(loaded) == n_loads

    # As if killed in the middle of the second model: one task is missing.
    (out / "rows/int4/gender_gap.parquet").unlink()
    kept = (out / "rows/int4/qa_accuracy.parquet").stat().st_mtime_ns
    assert run(CONFIG, out, within(inputs)) == whole
    assert loaded[n_loads:] == [("int4", "fp32", "int4")]
    assert (out / "rows/int4/qa_accuracy.parquet").stat().st_mtime_ns == kept


def test_without_data_answers_are_not_measured(tmp_path, loaded):
    config = Evaluate(models=["starter"], tasks=["refusals", "bits_per_byte"])
    result = run(config, tmp_path, within())
    assert "qa_accuracy" in result["not_measured"]
    assert "speed" in result["not_measured"]["decode_tokens_per_s"]
    assert set(result["metrics"]["starter"]) == {
        "bits_per_byte", "refusal_rate", "over_refusal_rate",
    }  # fmt: skip
    # Only quality was asked for, so nothing was loaded for speed.
    assert [precision for _, precision, _ in loaded] == ["fp32"]


def test_wrong_requests_are_refused_before_a_model_is_loaded(tmp_path, loaded):
    with pytest.raises(RequestError, match="occurs twice"):
        run(Evaluate(models=["a", "a"]), tmp_path, within())
    with pytest.raises(RequestError, match="needs held-out questions"):
        run(Evaluate(models=["a"], tasks=["qa_accuracy"]), tmp_path, within())
    with pytest.raises(DataError, match=r"questions\.jsonl is missing"):
        run(Evaluate(models=["a"], data="nowhere"), tmp_path, within())
    assert loaded == []


def test_models_named_by_a_path_get_a_folder_of_their_own():
    assert folder_name("int4") == "int4"
    assert folder_name("tuned-v2.1") == "tuned-v2.1"
    names = [
        folder_name(name) for name in ("runs/a/int4", "runs-a/int4", "../x", "/x", ".", "hub:A/B")
    ]
    assert len(set(names)) == len(names)
    assert all("/" not in name and name.strip(".") and name != ".." for name in names)


def test_a_table_with_an_unknown_or_renamed_task_says_what_is_meant():
    with pytest.raises(RecipeError, match="tasks: 'facts' is called 'qa_accuracy' now"):
        Evaluate(models=["a"], tasks=["facts"])
    with pytest.raises(RecipeError, match="no task 'refusal'; did you mean 'refusals'"):
        Evaluate(models=["a"], tasks=["refusal"])
