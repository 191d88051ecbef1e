"""A model behind OpenAI's HTTP API; nothing here knows how the model computes."""
