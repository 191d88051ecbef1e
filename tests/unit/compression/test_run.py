"""The step that a recipe runs: where the model comes from and goes, and that it is checked."""

from pathlib import Path

import pytest
import torch

from lmwright.compression import folder
from lmwright.compression.config import Compress
from lmwright.compression.run import run
from lmwright.conversion.check import VerificationError
from lmwright.core.errors import RequestError
from lmwright.core.stage import StepContext
from lmwright.formats.safetensors_folder import read_weights


def step_context(run_folder: Path, **inputs: Path) -> StepContext:
    return StepContext(inputs, parents={}, run_folder=run_folder, seed=0)


def test_a_step_of_the_recipe_is_read_where_its_folder_lies(tiny_folder: Path, tmp_path: Path):
    config = Compress(model="tuned", method="int8", group_size=16)
    result = run(config, tmp_path / "int8", step_context(tmp_path, tuned=tiny_folder))
    assert "model.layers.0.mlp.up_proj.weight_packed" in read_weights(tmp_path / "int8" / "model")
    assert (result["method"], result["bits"]) == ("rtn", 8)
    assert [path.name for path in (tmp_path / "int8").iterdir()] == ["model"]


def test_a_folder_is_read_by_its_path(tiny_folder: Path, tmp_path: Path):
    config = Compress(model=str(tiny_folder), method="int4", group_size=8)
    result = run(config, tmp_path / "out", step_context(tmp_path))
    assert result["group_size"] == 8
    assert (tmp_path / "out" / "model" / "config.json").is_file()


def test_a_model_that_does_not_exist_is_the_users_error(tmp_path: Path):
    config = Compress(model="no/such/model", method="int4")
    with pytest.raises(RequestError, match="no/such/model"):
        run(config, tmp_path / "out", step_context(tmp_path))
    assert not (tmp_path / "out" / "model").exists()


@pytest.mark.parametrize(("method", "most"), [("int8", 0.02), ("int4", 0.25)])
def test_what_was_written_is_compared_with_its_source(
    method: str, most: float, tiny_folder: Path, tmp_path: Path
):
    config = Compress(model=str(tiny_folder), method=method)
    found = run(config, tmp_path / "out", step_context(tmp_path))["verification"]
    assert 0 < found["weight_error"] < most
    assert 0 < found["relative_error"] < 1
    assert found["n_positions"] > 8


def test_a_file_that_holds_another_model_is_refused_and_removed(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def reversed_pack(name: str, ints: torch.Tensor, scales: torch.Tensor, *, bits: int):
        return pack(name, ints.flip(1), scales, bits=bits)

    pack = folder.pack
    monkeypatch.setattr(folder, "pack", reversed_pack)
    config = Compress(model=str(tiny_folder), method="int8")
    with pytest.raises(VerificationError, match=r"weights: relative error up to 1\d\d %"):
        run(config, tmp_path / "out", step_context(tmp_path))
    assert not (tmp_path / "out" / "model").exists()
