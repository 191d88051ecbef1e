"""A hash that misses a change would pass off an old result as a new one."""

import json
from pathlib import Path

import pytest

from lmwright.core.errors import ModelError
from lmwright.core.stage import ASSUMED_MATRICES
from lmwright.hub import STARTER_SHA256
from lmwright.recipe.outside import estimate, exists, model_hash


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "step" / "model"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}", encoding="utf-8")
    (folder / "model.safetensors").write_bytes(b"weights")
    return folder


def test_the_starter_and_models_on_a_hub_are_known_without_being_fetched() -> None:
    assert model_hash("starter") == STARTER_SHA256
    assert model_hash("hub:org/name@main") == "hub:org/name@main"
    assert model_hash("openai:m@HTTPS://host/v1/") == "openai:m@https://host/v1"
    assert model_hash("openai:m") == "openai:m@https://api.openai.com/v1"


def test_a_step_is_known_by_its_model_alone(model: Path) -> None:
    before = model_hash(str(model))
    (model.parent / "metrics.jsonl").write_text("log", encoding="utf-8")
    (model / "README.md").write_text("card", encoding="utf-8")
    assert model_hash(str(model.parent)) == model_hash(str(model)) == before
    (model / "model.safetensors").write_bytes(b"weightz")
    assert model_hash(str(model)) != before


def test_a_folder_without_a_model_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ModelError):
        model_hash(str(tmp_path))


def test_the_matrices_of_a_local_model_are_told_by_its_header(tiny_folder: Path) -> None:
    found = estimate(str(tiny_folder)).matrices
    config = json.loads((tiny_folder / "config.json").read_text(encoding="utf-8"))
    assert found is not None
    assert (found.d_model, found.n_blocks) == (config["hidden_size"], config["num_hidden_layers"])
    assert found.shapes[-1] == (config["hidden_size"], config["intermediate_size"])
    assert estimate("starter").matrices == ASSUMED_MATRICES
    for name in ("hub:org/name", "openai:m", "no/such"):
        assert (estimate(name).matrices, estimate(name).is_complete) == (None, False)


def test_nobodys_home_holds_no_model() -> None:
    assert not exists("~nosuchuser/model")
    assert not exists("")
