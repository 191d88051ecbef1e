"""Rules that a model must pass before it ships."""
