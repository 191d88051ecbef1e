"""The Transformer: shared parts, families as data. Pure architecture, no tokenizer, no optimiser."""
