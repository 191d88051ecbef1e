"""A damaged or strange model must be refused by name: a random weight nobody asked for is worse."""

import json
import re

import pytest
import torch

from lmwright.core.errors import LmwrightError, ModelError
from lmwright.formats.safetensors_folder import read_weights, write_weights
from lmwright.model import checkpoint
from lmwright.model.families import FAMILIES

NORM = "model.layers.1.input_layernorm.weight"


@pytest.fixture
def folder(tiny_folder, tmp_path):
    """A copy that a test may break."""
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_bytes((tiny_folder / name).read_bytes())
    return tmp_path


def load(folder):
    return checkpoint.load_folder(folder, torch.float32)


def change_config(folder, **values):
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def change_tensors(folder, changes):
    """Replace, add or (None) remove tensors."""
    tensors = {**read_weights(folder), **changes}
    write_weights({name: t for name, t in tensors.items() if t is not None}, folder)


def test_weights_and_configuration_come_back_bit_for_bit(tiny_model, tmp_path):
    checkpoint.save(tiny_model, tmp_path, torch.float32)
    read = load(tmp_path)
    assert read.config == tiny_model.config
    weights = tiny_model.state_dict()
    assert read.state_dict().keys() == weights.keys()
    for name, tensor in read.state_dict().items():
        assert torch.equal(tensor, weights[name]), name
    assert not any(parameter.requires_grad for parameter in read.parameters())


def test_every_weight_is_in_the_dtype_asked_for(tiny_folder):
    model = checkpoint.load_folder(tiny_folder, torch.bfloat16)
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16} == {model.compute_dtype}


def test_a_missing_tensor_is_named(folder):
    change_tensors(folder, {NORM: None})
    with pytest.raises(ModelError, match=rf"{re.escape(str(folder))}.*{re.escape(NORM)}.*missing"):
        load(folder)


def test_an_extra_tensor_is_named(folder):
    change_tensors(folder, {"model.layers.1.self_attn.q_proj.bias": torch.zeros(64)})
    with pytest.raises(ModelError, match=rf"{re.escape(str(folder))}.*q_proj\.bias.*no place"):
        load(folder)


def test_a_layer_more_than_the_configuration_says_is_an_extra_tensor(folder):
    change_config(folder, num_hidden_layers=1)
    with pytest.raises(ModelError, match=r"model\.layers\.1\..*no place"):
        load(folder)


def test_a_misshaped_tensor_is_named_with_both_shapes(folder):
    change_tensors(folder, {NORM: torch.ones(63)})
    with pytest.raises(ModelError, match=rf"{re.escape(NORM)}.*\(63,\).*\(64,\)"):
        load(folder)


def test_rotary_buffers_of_old_checkpoints_are_ignored(folder):
    before = load(folder).state_dict()
    change_tensors(folder, {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(8)})
    after = load(folder).state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def tied(folder, **extra):
    change_config(folder, tie_word_embeddings=True)
    embedding = read_weights(folder)["model.embed_tokens.weight"]
    change_tensors(folder, {"lm_head.weight": None, **extra})
    return embedding


def test_a_tied_head_is_the_embedding_itself(folder):
    embedding = tied(folder)
    model = load(folder)
    assert model.head.weight is model.decoder.embedding.weight
    assert torch.equal(model.head.weight, embedding)


def test_a_tied_head_stored_a_second_time_is_accepted(folder):
    head = read_weights(folder)["model.embed_tokens.weight"]
    embedding = tied(folder, **{"lm_head.weight": head.clone()})
    model = load(folder)
    assert model.head.weight is model.decoder.embedding.weight
    assert torch.equal(model.head.weight, embedding)


def test_a_tied_head_that_differs_is_refused(folder):
    tied(folder, **{"lm_head.weight": torch.zeros(300, 64)})
    with pytest.raises(ModelError, match=r"lm_head\.weight.*model\.embed_tokens\.weight.*differs"):
        load(folder)


def test_a_tensor_with_and_without_its_prefix_is_refused(folder):
    change_tensors(folder, {"norm.weight": torch.ones(64)})
    with pytest.raises(ModelError, match=r"'norm\.weight' has no place"):
        load(folder)


def test_a_tied_model_is_saved_without_its_head(folder, tmp_path):
    tied(folder)
    checkpoint.save(load(folder), tmp_path / "saved", torch.float32)
    assert "lm_head.weight" not in read_weights(tmp_path / "saved")


@pytest.mark.parametrize("kind", ["mamba2", "lama", "", None, 3, ["llama"], {"a": 1}])
def test_an_unknown_family_is_refused(folder, kind):
    change_config(folder, model_type=kind)
    with pytest.raises(ModelError, match=rf"{re.escape(str(folder))}.*model_type"):
        load(folder)


def test_a_typing_error_in_the_family_gets_a_suggestion(folder):
    change_config(folder, model_type="lama")
    with pytest.raises(ModelError, match="did you mean 'llama'"):
        load(folder)


def test_an_unknown_family_ends_in_what_is_known_and_what_can_still_be_done(folder):
    change_config(folder, model_type="mamba2")
    with pytest.raises(ModelError) as error:
        load(folder)
    assert all(name in str(error.value) for name in FAMILIES)
    assert "openai:MODEL@URL" in str(error.value)


def test_a_head_that_is_not_built_ends_in_those_that_are(folder):
    change_config(folder, architectures=["LlamaForSequenceClassification"])
    with pytest.raises(ModelError, match=r"config\.json.*LlamaForSequence.*LlamaForCausalLM"):
        load(folder)


def test_pickles_are_not_opened(folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"pickle.*pytorch_model\.bin.*convert it"):
        load(folder)


def test_the_models_own_code_is_never_run(folder):
    change_config(folder, auto_map={"AutoModelForCausalLM": "modeling_evil.Evil"})
    with pytest.raises(ModelError, match=r"config\.json.*auto_map"):
        load(folder)


BROKEN = {
    "no heads": {"num_attention_heads": 0},
    "negative heads": {"num_attention_heads": -4},
    "no kv heads": {"num_key_value_heads": 0},
    "heads no multiple of kv heads": {"num_key_value_heads": 3},
    "more kv heads than heads": {"num_key_value_heads": 8},
    "odd head": {"head_dim": 15},
    "2^31 heads": {"num_attention_heads": 2**31},
    "2^31 wide": {"hidden_size": 2**31},
    "2^31 layers": {"num_hidden_layers": 2**31},
    "2^31 tokens": {"vocab_size": 2**31},
    "2^63 feed-forward": {"intermediate_size": 2**63},
    "text for a number": {"hidden_size": "64"},
    "fraction": {"num_hidden_layers": 2.5},
    "null": {"vocab_size": None},
    "list": {"intermediate_size": [128]},
    "bool": {"num_hidden_layers": True},
    "width that the heads do not divide": {"hidden_size": 66, "head_dim": None},
    "eps text": {"rms_norm_eps": "1e-5"},
    "eps negative": {"rms_norm_eps": -1.0},
    "eps not a number": {"rms_norm_eps": float("nan")},
    "window 0": {"model_type": "mistral", "sliding_window": 0},
    "window text": {"model_type": "mistral", "sliding_window": "all"},
    "theta 0": {"rope_parameters": None, "rope_theta": 0},
    "theta text": {"rope_parameters": None, "rope_theta": "big"},
    "theta beyond floats": {"rope_parameters": None, "rope_theta": 10**400},
    "rope no table": {"rope_parameters": ["default"]},
    "rope unknown": {"rope_parameters": {"rope_type": "spiral", "factor": 4.0}},
    "rope factor 0": {"rope_parameters": {"rope_type": "linear", "factor": 0}},
    "rope band without width": {
        "rope_parameters": {"rope_type": "llama3", "low_freq_factor": 4, "high_freq_factor": 4}
    },
    "other activation": {"hidden_act": "squared_relu"},
    "biases": {"attention_bias": True},
    "tied text": {"tie_word_embeddings": "no"},
    "bos text": {"bos_token_id": "<s>"},
    "eos text": {"eos_token_id": ["</s>"]},
    "quantised unknown": {"quantization_config": {"quant_method": "gptq", "bits": 4}},
}


@pytest.mark.parametrize("fault", BROKEN)
def test_absurd_values_are_refused_with_the_folder_named(folder, fault):
    change_config(folder, **BROKEN[fault])
    with pytest.raises(ModelError, match=re.escape(str(folder))):
        load(folder)


@pytest.mark.parametrize("key", ["hidden_size", "vocab_size", "num_attention_heads"])
def test_a_missing_size_is_named(folder, key):
    path = folder / "config.json"
    config = json.loads(path.read_text())
    del config[key]
    path.write_text(json.dumps(config))
    with pytest.raises(ModelError, match=key):
        load(folder)


@pytest.mark.parametrize(
    "text",
    [b"", b"{", b"\xff\xfe{}", b"[]", b"null", b"[" * 100_000, b'{"a": ' + b"9" * 5000 + b"}"],
    ids=["empty", "half", "utf16", "list", "null", "deep", "long-number"],
)
def test_a_config_that_is_no_json_object_is_refused(folder, text):
    (folder / "config.json").write_bytes(text)
    with pytest.raises(ModelError, match=re.escape(str(folder / "config.json"))):
        load(folder)


def test_a_folder_without_config_is_no_model(tmp_path):
    with pytest.raises(ModelError, match=r"config\.json is missing"):
        load(tmp_path)


def test_saving_to_a_full_disk_names_the_file_and_leaves_no_model(
    tiny_model, tmp_path, monkeypatch
):
    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("lmwright.core.artifact.os.fsync", full)
    with pytest.raises(LmwrightError, match=r"model\.safetensors: No space left"):
        checkpoint.save(tiny_model, tmp_path, torch.float32)
    assert list(tmp_path.iterdir()) == []
