"""What a model is, read from its headers: no weight is loaded."""
