"""The Transformer: shared parts, families as data. No tokenizer, no optimiser."""
