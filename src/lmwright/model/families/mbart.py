"""mBART: BART with norms before each branch and behind each tower."""

from dataclasses import replace

from lmwright.model.families.bart import BART, rows

MBART = replace(
    BART,
    name="mbart",
    architectures={"language": "MBartForConditionalGeneration"},
    rows=rows("norm_in"),
    choices={**BART.choices, "norm_places": ("in",), "has_final_norm": True},
)
