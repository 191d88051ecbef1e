"""Sizes by part are compared between a summary and a compression: both must name them alike."""

from lmwright.model.parts import PARTS, part_of


def test_every_parameter_has_a_part() -> None:
    assert part_of("decoder.blocks.3.attention.q.weight") == "attention"
    assert part_of("decoder.blocks.3.attention.q_norm.weight") == "norms"
    assert part_of("decoder.blocks.3.attention_residual.norm_in.weight") == "norms"
    assert part_of("decoder.blocks.3.cross_attention.k.bias") == "cross-attention"
    assert part_of("encoder.embedding.types.weight") == "embedding"
    assert part_of("encoder.embedding.positions.weight") == "positions"
    assert part_of("encoder.embedding.norm.bias") == "norms"
    assert part_of("decoder.relative.weight") == "positions"
    assert part_of("head.norm.weight") == "head"
    assert part_of("pooler.dense.weight") == "head"
    assert part_of("something.else") == "other"
    assert "other" in PARTS
