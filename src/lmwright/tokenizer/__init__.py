"""Text, dialogues and token ids: encoding and decoding, and tokenizers in files."""
