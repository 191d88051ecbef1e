"""Marian: BART with sinusoids for positions and no norm of the embedding."""

from dataclasses import replace

from lmwright.model.families.bart import BART

MARIAN = replace(
    BART,
    name="marian",
    architectures={"language": "MarianMTModel"},
    choices={
        **BART.choices,
        "positions": "sinusoidal",
        "position_offset": 0,
        "has_embedding_norm": False,
    },
    defaults={
        **BART.defaults,
        "bos_token_id": None,
        "decoder_start_token_id": 58_100,
        "pad_token_id": 58_100,
        "eos_token_id": 0,
    },
    only={
        "share_encoder_decoder_embeddings": True,
        "normalize_before": False,
        "normalize_embedding": False,
        "static_position_embeddings": True,
    },
    ignored=("embed_positions.weight",),
)
