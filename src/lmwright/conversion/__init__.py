"""Models in other formats, and the check that each copy is the model it was made from."""
