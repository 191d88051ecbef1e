"""Reading, checking, splitting and packing what models learn from."""
