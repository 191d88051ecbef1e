"""A method that trains too much costs memory; one that trains too little learns nothing."""

import pytest
import torch

from lmwright.core.errors import RecipeError
from lmwright.finetuning.config import LEARNING_RATES, Finetune
from lmwright.finetuning.methods import METHODS, prepare
from lmwright.training.state import trained_weights


@pytest.mark.parametrize("method", METHODS)
def test_lora_trains_little_and_full_trains_all(tiny_model, method):
    prepare(tiny_model, Finetune(data="d", method=method, precision="fp32", rank=2))
    trained = set(trained_weights(tiny_model))
    if method == "full":
        assert trained == {name for name, _ in tiny_model.named_parameters()}
    else:
        assert trained
        assert all(name.endswith((".a", ".b")) for name in trained)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", ["encoder", "seq2seq"])
def test_no_kind_of_model_is_left_out(tiny_encoder, tiny_seq2seq, kind, method):
    model = tiny_encoder() if kind == "encoder" else tiny_seq2seq()
    prepare(model, Finetune(data="d", method=method, precision="bf16", rank=2))
    assert model.compute_dtype == torch.bfloat16
    trained = trained_weights(model)
    assert {p.dtype for p in trained.values()} == {torch.float32}
    for stack in ("encoder",) if kind == "encoder" else ("encoder", "decoder"):
        assert any(name.startswith(f"{stack}.blocks.1.attention.") for name in trained)


def test_the_learning_rate_is_the_tables_or_what_suits_the_method():
    assert set(LEARNING_RATES) == set(METHODS)
    assert Finetune(data="d", method="lora").peak_lr == 1e-3
    assert Finetune(data="d", method="full").peak_lr == 1e-4
    assert Finetune(data="d", method="full", lr=0.5).peak_lr == 0.5


def test_an_update_that_is_no_thinner_than_the_model_is_refused(tiny_model):
    width = tiny_model.config.d_model
    with pytest.raises(RecipeError, match=f"rank = {width + 1}: the model is {width} wide"):
        prepare(tiny_model, Finetune(data="d", precision="fp32", rank=width + 1))
