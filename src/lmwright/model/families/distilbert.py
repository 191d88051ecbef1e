"""DistilBERT: BERT with half the layers, without token types, under names of its own."""

from dataclasses import replace

from lmwright.model.config import Head
from lmwright.model.families.bert import BERT, CLASSES, TOKENS
from lmwright.model.families.family import COMMON_KEYS, TensorRow, table

HEADS: dict[Head, tuple[TensorRow, ...]] = {
    "masked": table("""
head.dense  vocab_transform
head.norm   vocab_layer_norm
head.out    vocab_projector
"""),
    "sequence": table("""
head.pooler.dense  pre_classifier
head.out           classifier
"""),
    "tokens": TOKENS,
    "none": (),
}

DISTILBERT = replace(
    BERT,
    name="distilbert",
    architectures={head: f"DistilBert{CLASSES[head]}" for head in HEADS},
    keys={
        **COMMON_KEYS,
        "d_model": "dim",
        "n_layers": "n_layers",
        "n_heads": "n_heads",
        "d_ff": "hidden_dim",
        "activation": "activation",
    },
    rows=table("""
encoder.embedding                                     distilbert.embeddings.word_embeddings
encoder.embedding.{positions,norm}                    distilbert.embeddings.{position_embeddings,LayerNorm}
encoder.blocks.{i}.attention.{q,k,v,out}              distilbert.transformer.layer.{i}.attention.{q,k,v,out}_lin
encoder.blocks.{i}.mlp.{up,down}                      distilbert.transformer.layer.{i}.ffn.{lin1,lin2}
encoder.blocks.{i}.{attention,mlp}_residual.norm_sum  distilbert.transformer.layer.{i}.{sa_layer_norm,output_layer_norm}
"""),  # noqa: E501
    more_rows=lambda config: HEADS[config.head],
    choices={**BERT.choices, "norm_eps": 1e-12, "pooler_activation": "relu"},
    defaults={"max_position_embeddings": 512, "activation": "gelu", "tie_word_embeddings": True},
    # Positions that are sinusoids lie in the file like trained ones.
    only={},
    refine=lambda config, names: config,  # noqa: ARG005
    prefix="distilbert.",
    copies={"vocab_projector.weight": "distilbert.embeddings.word_embeddings.weight"},
    old_endings={},
)
