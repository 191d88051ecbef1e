"""The recipe: read and checked, put in order, planned, run."""
