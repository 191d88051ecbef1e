"""Models behind somebody's HTTP API (OpenAI's and all that speak like it) as language models."""
