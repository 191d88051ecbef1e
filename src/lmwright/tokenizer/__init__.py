"""Text to token ids and back, and dialogues to token ids by the model's chat template."""
