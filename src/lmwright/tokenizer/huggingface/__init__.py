"""Tokenizers in the files of a Hugging Face folder, also older ones without tokenizer.json."""
