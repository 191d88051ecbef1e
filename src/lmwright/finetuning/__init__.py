"""Teaching a model that exists: dialogues in, a tuned model out."""
