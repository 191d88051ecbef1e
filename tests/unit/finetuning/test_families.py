"""Fine-tuning knows no family: what can be opened must be able to learn and to be saved again."""

import pytest
import torch

from lmwright.finetuning.lora import add_lora, merge, save_adapter
from lmwright.model import checkpoint
from lmwright.model.config import ModelConfig, Rope
from lmwright.model.families.family import CLASSIC
from lmwright.model.transformer import DecoderLM
from lmwright.training.batches import Encoded, pack
from lmwright.training.losses import next_token

SIZES = {
    "vocab_size": 60, "d_model": 32, "n_layers": 3, "n_heads": 4, "n_kv_heads": 2, "d_head": 8,
    "d_ff": 48, "max_positions": 64,
}  # fmt: skip
SANDWICH = {"norm_offset": 1.0, "norm_places": ("in", "out"), "ties_embeddings": True,
            "activation": "gelu_tanh", "embedding_scale": 32**0.5, "sliding_window": 4,
            "attention_scale": 12**-0.5, "local_layers": (True, True, False)}  # fmt: skip
CHOICES = {
    "gpt2": {**CLASSIC, "activation": "gelu_tanh", "n_kv_heads": 4, "ties_embeddings": True},
    "llama": {},
    "mistral": {"sliding_window": 4},
    "qwen2": {"qkv_bias": True},
    "qwen3": {"qk_norm": "head"},
    "gemma2": {**SANDWICH, "attention_softcap": 5.0, "logit_softcap": 3.0},
    "gemma3_text": {**SANDWICH, "qk_norm": "head", "local_rope": Rope(theta=100.0)},
    "phi3": {},
    "olmo2": {"norm_places": ("out",), "qk_norm": "width"},
}
# Their files hold several of our matrices in one, for which PEFT has no name.
FUSED = ("gpt2", "phi3")


@pytest.fixture(params=CHOICES)
def model(request):
    torch.manual_seed(0)
    config = ModelConfig(family=request.param, **{**SIZES, **CHOICES[request.param]})
    return DecoderLM(config)


@pytest.fixture
def batch():
    ids = [torch.randint(3, 60, (n,), generator=torch.Generator().manual_seed(n)) for n in (7, 12)]
    return pack([Encoded("x", tuple(i.tolist()), (True,) * len(i)) for i in ids])


def losses(model, batch, *, lr):
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=lr)
    for _ in range(8):
        total, count = next_token(model, batch)
        optimizer.zero_grad()
        total.backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in parameters)
        optimizer.step()
        yield float(total.detach()) / count


def test_full_tuning_lowers_the_loss(model, batch):
    first, *_, last = losses(model, batch, lr=1e-2)
    assert last < 0.7 * first


def test_lora_lowers_the_loss_and_what_is_saved_says_the_same(model, batch, tmp_path, caplog):
    add_lora(model, 4, alpha=8, seed=0)
    first, *_, last = losses(model, batch, lr=1e-2)
    assert last < 0.9 * first
    save_adapter(model, tmp_path / "adapter", base="base", rank=4, alpha=8)
    is_fused = model.config.family in FUSED
    assert (tmp_path / "adapter").exists() != is_fused
    assert ("no adapter" in caplog.text) == is_fused
    ids = batch.tokens[None, :7]
    with torch.no_grad():
        expected = model(ids)
        merge(model)
        checkpoint.save(model, tmp_path / "model", torch.float32)
        again = checkpoint.load_folder(tmp_path / "model", torch.float32)
        torch.testing.assert_close(again(ids), expected, rtol=0, atol=1e-4)
