"""BERT: learned positions and types, norms behind each sum, a head for each task."""

from collections.abc import Collection
from dataclasses import replace

from lmwright.core.errors import ModelError
from lmwright.model.config import Head, ModelConfig
from lmwright.model.families.family import CLASSIC, COMMON_KEYS, POST_NORM, Family, TensorRow, table
from lmwright.model.transformer import EncoderLM

ROWS = table("""
encoder.embedding                                     bert.embeddings.word_embeddings
encoder.embedding.{positions,types,norm}              bert.embeddings.{position_embeddings,token_type_embeddings,LayerNorm}
encoder.blocks.{i}.attention.{q,k,v}                  bert.encoder.layer.{i}.attention.self.{query,key,value}
encoder.blocks.{i}.attention.out                      bert.encoder.layer.{i}.attention.output.dense
encoder.blocks.{i}.mlp.{up,down}                      bert.encoder.layer.{i}.{intermediate,output}.dense
encoder.blocks.{i}.{attention,mlp}_residual.norm_sum  bert.encoder.layer.{i}.{attention.output,output}.LayerNorm
pooler.dense                                          bert.pooler.dense
""")  # noqa: E501
TOKENS = table("head.out  classifier")
MASKED = table("""
head.dense     cls.predictions.transform.dense
head.norm      cls.predictions.transform.LayerNorm
head.out       cls.predictions.decoder
head.out.bias  cls.predictions.bias
""")
PRETRAINING = table("""
head.pooler.dense   bert.pooler.dense
head.next_sentence  cls.seq_relationship
""")
SEQUENCE = table("""
head.pooler.dense  bert.pooler.dense
head.out           classifier
""")
HEADS: dict[Head, tuple[TensorRow, ...]] = {
    "masked": MASKED,
    "pretraining": (*MASKED, *PRETRAINING),
    "sequence": SEQUENCE,
    "tokens": TOKENS,
    "none": (),
}
# The class of each head, behind the family's own name.
CLASSES: dict[Head, str] = {
    "masked": "ForMaskedLM",
    "pretraining": "ForPreTraining",
    "sequence": "ForSequenceClassification",
    "tokens": "ForTokenClassification",
    "none": "Model",
}


def refine(config: ModelConfig, names: Collection[str]) -> ModelConfig:
    """See whether the file holds a pooler besides its head, and BERT's second task."""
    if config.head == "masked" and "cls.seq_relationship.weight" in names:
        config = replace(config, head="pretraining")
    if config.head in ("masked", "pretraining") and not config.ties_embeddings:
        raise ModelError("tie_word_embeddings = false is not built for masked words")
    has_pooler = any(name.endswith("pooler.dense.weight") for name in names)
    is_own = config.head in ("sequence", "pretraining") and config.family == "bert"
    return replace(config, has_pooler=has_pooler and not is_own)


BERT = Family(
    name="bert",
    assembly=EncoderLM,
    architectures={head: f"Bert{CLASSES[head]}" for head in HEADS},
    keys={**COMMON_KEYS, "norm_eps": "layer_norm_eps", "n_token_types": "type_vocab_size"},
    rows=ROWS,
    more_rows=lambda config: HEADS[config.head],
    choices={**CLASSIC, **POST_NORM},
    defaults={
        "max_position_embeddings": 512,
        "layer_norm_eps": 1e-12,
        "hidden_act": "gelu",
        "type_vocab_size": 2,
        "tie_word_embeddings": True,
    },
    only={"position_embedding_type": "absolute", "is_decoder": False, "add_cross_attention": False},
    refine=refine,
    prefix="bert.",
    ignored=("embeddings.position_ids", "embeddings.token_type_ids"),
    copies={
        "cls.predictions.decoder.weight": "bert.embeddings.word_embeddings.weight",
        "cls.predictions.decoder.bias": "cls.predictions.bias",
    },
    # As the first release of BERT, in TensorFlow, called them.
    old_endings={"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"},
)
