"""A hash that misses a change would pass off an old result as a new one."""

from pathlib import Path

import pytest

from lmwright.core.errors import ModelError
from lmwright.hub import STARTER_SHA256
from lmwright.recipe.outside import model_hash


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
