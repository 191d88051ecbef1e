"""RoBERTa: BERT with positions that begin behind padding's own, and heads of another shape."""

from dataclasses import replace

from lmwright.model.config import Head, ModelConfig
from lmwright.model.families.bert import BERT, CLASSES, ROWS, TOKENS
from lmwright.model.families.family import ConfigJson, TensorRow, table

HEADS: dict[Head, tuple[TensorRow, ...]] = {
    "masked": table("""
head.dense     lm_head.dense
head.norm      lm_head.layer_norm
head.out       lm_head.decoder
head.out.bias  lm_head.bias
"""),
    "sequence": table("""
head.pooler.dense  classifier.dense
head.out           classifier.out_proj
"""),
    "tokens": TOKENS,
    "none": (),
}


def read(settings: ConfigJson) -> dict[str, object]:
    """Return positions as they are used: the first rows, up to padding's own, stand for nothing."""
    offset = settings["pad_token_id"] + 1
    n_positions = settings["max_position_embeddings"] - offset
    return {"position_offset": offset, "max_positions": n_positions}


def write(config: ModelConfig) -> dict[str, object]:
    """Return all rows of the table of positions."""
    return {"max_position_embeddings": config.max_positions + config.position_offset}


def _roberta_name(row: TensorRow) -> TensorRow:
    return replace(row, hugging_face=row.hugging_face.replace("bert.", "roberta.", 1))


ROBERTA = replace(
    BERT,
    name="roberta",
    architectures={head: f"Roberta{CLASSES[head]}" for head in HEADS},
    rows=tuple(_roberta_name(row) for row in ROWS),
    more_rows=lambda config: HEADS[config.head],
    defaults={**BERT.defaults, "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2},
    read=read,
    write=write,
    prefix="roberta.",
    copies={
        "lm_head.decoder.weight": "roberta.embeddings.word_embeddings.weight",
        "lm_head.decoder.bias": "lm_head.bias",
    },
    old_endings={},
)
