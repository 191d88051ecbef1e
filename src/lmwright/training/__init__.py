"""The training loop and its parts; it does not know what a model is trained for."""
