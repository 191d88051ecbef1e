"""The step that a recipe runs: where the model comes from, and where it is written."""

import json

import pytest
import torch

from lmwright.compression.config import Compress
from lmwright.compression.run import run
from lmwright.core.errors import RequestError
from lmwright.formats.safetensors_folder import read_weights, write_weights

CONFIG = {
    "model_type": "llama",
    "vocab_size": 16,
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "tie_word_embeddings": True,
}
MATRICES = (
    "self_attn.q_proj",
    "self_attn.k_proj",
    "self_attn.v_proj",
    "self_attn.o_proj",
    "mlp.gate_proj",
    "mlp.up_proj",
    "mlp.down_proj",
)


@pytest.fixture
def model(tmp_path):
    folder = tmp_path / "tuned" / "model"
    tensors = {f"model.layers.0.{name}.weight": torch.eye(16) for name in MATRICES}
    for name in ("layers.0.input_layernorm", "layers.0.post_attention_layernorm", "norm"):
        tensors[f"model.{name}.weight"] = torch.ones(16)
    tensors["model.embed_tokens.weight"] = torch.eye(16)
    write_weights(tensors, folder)
    (folder / "config.json").write_text(json.dumps(CONFIG))
    (folder / "tokenizer.json").write_text("{}")
    return folder


def test_a_step_of_the_recipe_is_read_where_its_folder_lies(model, tmp_path):
    config = Compress(model="tuned", method="int8", group_size=16)
    result = run(config, tmp_path / "int8", inputs={"tuned": model})
    assert "model.layers.0.mlp.up_proj.weight_packed" in read_weights(tmp_path / "int8" / "model")
    assert result["method"] == "int8"
    assert [path.name for path in (tmp_path / "int8").iterdir()] == ["model"]


def test_a_folder_is_read_by_its_path(model, tmp_path):
    config = Compress(model=str(model), method="int4", group_size=8)
    result = run(config, tmp_path / "out", inputs={})
    assert result["group_size"] == 8
    assert (tmp_path / "out" / "model" / "config.json").is_file()


def test_a_model_that_does_not_exist_is_the_users_error(tmp_path):
    config = Compress(model="no/such/model", method="int4")
    with pytest.raises(RequestError, match="no/such/model"):
        run(config, tmp_path / "out", inputs={})
    assert not (tmp_path / "out" / "model").exists()
