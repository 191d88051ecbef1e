"""An adapter of ours must do in PEFT what it does here; else `saved in PEFT's format` is a lie."""

import pytest
import torch

from lmwright.finetuning.lora import LoraLinear, add_lora, merge, save_adapter
from lmwright.model import checkpoint
from lmwright.model.families import FAMILIES
from lmwright.model.families.family import rows_of

transformers = pytest.importorskip("transformers", reason="needs the `dev` extra")
peft = pytest.importorskip("peft", reason="needs the `dev` extra")

IDS = torch.randint(3, 300, (2, 20), generator=torch.Generator().manual_seed(0))
RANK, ALPHA = 4, 12


@pytest.fixture
def adapted(tiny_folder):
    model = checkpoint.load_folder(tiny_folder, torch.float32)
    add_lora(model, RANK, alpha=ALPHA, seed=0)
    generator = torch.Generator().manual_seed(1)
    for layer in model.modules():
        if isinstance(layer, LoraLinear):
            layer.b.data.normal_(0, 0.2, generator=generator)
    return model


@torch.no_grad()
def test_peft_opens_our_adapter_with_the_same_logits(adapted, tiny_folder, tmp_path):
    save_adapter(adapted, tmp_path, base=str(tiny_folder), rank=RANK, alpha=ALPHA)
    base = transformers.AutoModelForCausalLM.from_pretrained(tiny_folder, dtype=torch.float32)
    plain = base(IDS).logits
    theirs = peft.PeftModel.from_pretrained(base, tmp_path)
    logits = theirs(IDS).logits
    torch.testing.assert_close(adapted(IDS), logits, rtol=0, atol=1e-4)
    assert float((logits - plain).abs().max()) > 0.1  # the adapter does something
    merged = theirs.merge_and_unload()
    merge(adapted)
    weights = adapted.state_dict()
    for row in rows_of(FAMILIES["llama"], adapted.config, set(weights) - set(adapted.ties)):
        expected = merged.state_dict()[row.hugging_face]
        torch.testing.assert_close(weights[row.ours[0]], expected, rtol=0, atol=1e-6)


def test_peft_starts_with_the_same_distribution(tiny_folder):
    """So that ranks, rates and scales found with PEFT carry over."""
    base = transformers.AutoModelForCausalLM.from_pretrained(tiny_folder, dtype=torch.float32)
    config = peft.LoraConfig(r=64, lora_alpha=128, target_modules=["down_proj"])
    theirs = dict(peft.get_peft_model(base, config).named_parameters())
    (a,) = (p for n, p in theirs.items() if "layers.0" in n and "lora_A" in n)
    model = checkpoint.load_folder(tiny_folder, torch.float32)
    add_lora(model, 64, alpha=128, seed=0)
    ours = model.decoder.blocks[0].mlp.down.a
    assert ours.shape == a.shape
    bound = 128**-0.5
    for tensor in (ours.detach(), a.detach()):
        assert bound * 0.99 < float(tensor.abs().max()) <= bound
        assert float(tensor.std()) == pytest.approx(bound / 3**0.5, rel=0.05)
