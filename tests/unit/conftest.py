"""A random encoder, a random encoder-decoder, and a tokenizer that frames texts for both."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from tokenizers import processors

from lmwright.model.config import ModelConfig
from lmwright.model.transformer import EncoderDecoderLM, EncoderLM, tie
from lmwright.tokenizer.encode import Tokenizer

# What BERT and BART have in common.
POST_NORM = {
    "vocab_size": 300, "d_model": 32, "n_layers": 2, "n_heads": 4, "n_kv_heads": 4, "d_head": 8,
    "d_ff": 48, "max_positions": 64, "positions": "learned", "norm": "layer",
    "norm_places": ("sum",), "has_embedding_norm": True, "has_final_norm": False,
    "qkv_bias": True, "out_bias": True, "mlp_bias": True, "is_gated": False, "activation": "gelu",
}  # fmt: skip
ENCODER = ModelConfig(family="bert", n_token_types=2, head="none", **POST_NORM)
SEQ2SEQ = ModelConfig(
    family="bart", n_decoder_layers=3, position_offset=2, head_bias=True, ties_embeddings=True,
    eos_ids=(2,), decoder_start_id=2, **POST_NORM,
)  # fmt: skip


def random_model(kind, config: ModelConfig):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        model = kind(config).eval()
        for name, parameter in model.named_parameters():
            # Large weights, so that attention is sharp and a wrong mask moves everything.
            parameter.data.normal_(0, 0.3)
            if "norm" in name and name.endswith("weight"):
                parameter.data.add_(1)
    tie(model)
    return model.requires_grad_(False)


@pytest.fixture
def tiny_encoder() -> Callable[..., EncoderLM]:
    """Make an encoder with some fields of its configuration changed."""
    return lambda **changes: random_model(EncoderLM, replace(ENCODER, **changes))


@pytest.fixture
def tiny_seq2seq() -> Callable[..., EncoderDecoderLM]:
    """Make an encoder-decoder with some fields of its configuration changed."""
    return lambda **changes: random_model(EncoderDecoderLM, replace(SEQ2SEQ, **changes))


@pytest.fixture
def framing_tokenizer(tiny_tokenizer: Tokenizer) -> Tokenizer:
    """0 stands before a text, 2 (which ends an answer) behind each."""
    backend = tiny_tokenizer._backend
    start, end = "<|endoftext|>", "<|im_end|>"
    backend.post_processor = processors.TemplateProcessing(
        single=f"{start} $A {end}",
        pair=f"{start} $A {end} $B:1 {end}:1",
        special_tokens=[(start, 0), (end, 2)],
    )
    roles = {"cls_token": start, "sep_token": end, "eos_token": end}
    return Tokenizer(backend, special_tokens=roles)
