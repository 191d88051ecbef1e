"""The parts of a model that tables of sizes speak of, by the names of our parameters."""

# In the order in which they are shown.
PARTS = (
    "embedding",
    "positions",
    "attention",
    "cross-attention",
    "feed-forward",
    "norms",
    "head",
    "other",
)
# A word in a parameter's name, and the part it tells; the first that is found counts.
PLACES = {
    "positions": "positions",
    "relative": "positions",
    "embedding": "embedding",
    "cross_attention": "cross-attention",
    "attention": "attention",
    "mlp": "feed-forward",
}


def part_of(name: str) -> str:
    """Return the part that a parameter (by our name of it) belongs to."""
    words = name.split(".")
    if words[0] in ("head", "pooler"):
        return "head"
    if any("norm" in word for word in words):
        return "norms"
    return next((part for word, part in PLACES.items() if word in words), "other")
