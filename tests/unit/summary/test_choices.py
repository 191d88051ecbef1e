"""An architecture is told in words: each choice must show, and a plain model must show none."""

from dataclasses import replace
from typing import Any

import pytest

from lmwright.formats.sentence_transformers import Pooling
from lmwright.model.config import ModelConfig, Rope
from lmwright.summary.choices import choices, head, pooled

PLAIN = ModelConfig(
    family="llama", vocab_size=300, d_model=64, n_layers=4, n_heads=4, n_kv_heads=4, d_head=16,
    d_ff=128, max_positions=256,
)  # fmt: skip
ENCODER = replace(
    PLAIN, positions="learned", position_offset=2, norm="layer", norm_places=("sum",),
    has_embedding_norm=True, has_final_norm=False, qkv_bias=True, out_bias=True, mlp_bias=True,
    is_gated=False, activation="gelu", n_token_types=2, ties_embeddings=True, head="masked",
)  # fmt: skip
LABELS = ("no", "yes")


def test_a_plain_model_differs_by_nothing() -> None:
    assert choices(PLAIN) == []


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"rope": Rope(theta=500_000)}, "rotary base 500,000"),
        ({"rope": Rope(fraction=0.75)}, "only 75% of each head is rotated"),
        (
            {"rope": Rope(scaling="linear", factor=4)},
            "positions stretched 4 times (linear)",
        ),
        (
            {"rope": Rope(scaling="yarn", factor=4, original_max_positions=8192)},
            "positions stretched from 8,192 tokens by 4 (yarn)",
        ),
        ({"norm_places": ("in", "out")}, "norms before and behind each branch"),
        ({"norm_places": ("out",)}, "norms behind each branch instead of before it"),
        ({"norm_offset": 1.0}, "norms multiply by 1 + weight"),
        ({"qk_norm": "head"}, "queries and keys are normed head by head"),
        ({"qk_norm": "width"}, "queries and keys are normed in their full width"),
        ({"n_kv_heads": 1}, "1 key/value head for 4 query heads"),
        ({"n_kv_heads": 2}, "2 key/value heads for 4 query heads"),
        ({"d_head": 32}, "heads together 128 wide, not 64"),
        ({"attention_scale": 1.0}, "attention scores are not scaled"),
        ({"attention_scale": 24**-0.5}, "attention scores are scaled by 1 / sqrt(24)"),
        ({"attention_softcap": 50.0}, "attention scores capped at 50"),
        ({"logit_softcap": 30.0}, "logits capped at 30"),
        ({"sliding_window": 64}, "a window of 64 tokens in all layers"),
        (
            {"sliding_window": 64, "local_layers": (True, True, False, True)},
            "a window of 64 tokens in 3 of 4 layers (not in 3)",
        ),
        ({"activation": "gelu_tanh"}, "the gate is GELU (tanh)"),
        ({"is_gated": False, "activation": "relu"}, "feed-forward without a gate, ReLU"),
        ({"qkv_bias": True}, "biases of queries, keys, values"),
        ({"embedding_scale": 8.0}, "embeddings times 8"),
        ({"ties_embeddings": True}, "the head is the embedding once more"),
        ({"head_scale": 0.125}, "states times 0.125 before the head"),
        ({"head_bias": True}, "a bias in the head"),
    ],
)
def test_each_choice_is_told_in_words(changes: dict[str, Any], expected: str) -> None:
    assert choices(replace(PLAIN, **changes)) == [expected]


def test_a_scale_that_is_the_usual_one_is_no_choice() -> None:
    assert choices(replace(PLAIN, attention_scale=16**-0.5)) == []


def test_an_encoder_differs_by_much() -> None:
    assert choices(ENCODER) == [
        "a learned vector for each of 256 positions, behind 2 unused",
        "LayerNorm instead of RMSNorm",
        "norms behind each sum (post-norm)",
        "a norm behind the embedding",
        "no norm before the head",
        "feed-forward without a gate, GELU",
        "biases in attention and feed-forward",
        "2 token types",
        "the head is the embedding once more",
    ]


def test_the_head_is_told_with_its_classes() -> None:
    assert head(PLAIN) == "says which token comes next"
    assert head(ENCODER) == "says which token is hidden behind a mask"
    classifier = replace(ENCODER, head="sequence", labels=LABELS)
    assert head(classifier) == "classifies a text: 2 classes (no, yes)"
    several = replace(classifier, problem="multi_label")
    assert head(several) == "classifies a text: 2 classes, several at once (no, yes)"
    assert head(replace(classifier, labels=("score",), problem="regression")) == (
        "gives a text a number"
    )
    many = replace(classifier, head="tokens", labels=tuple(map(str, range(20))))
    assert head(many) == "classifies each token: 20 classes (0, 1, 2, 3, 4, 5, 6, 7, ...)"


def test_pooling_is_told_in_words() -> None:
    pooling = Pooling(kinds=("mean",), is_normalized=True, prompt="query: ")
    assert pooled(pooling) == (
        "a text as one vector: mean of its tokens, scaled to length 1, behind the prompt 'query: '"
    )
