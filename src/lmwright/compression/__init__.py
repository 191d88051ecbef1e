"""Fewer bits a weight: a model folder in, a smaller one out."""
