"""How weights lie in files: safetensors folders, packed integers, GGUF. Knows no model."""
