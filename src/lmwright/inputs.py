"""What a recipe names but does not make itself: a hash that knows it again."""

from lmwright.core.artifact import hash_json, hash_path
from lmwright.data.sources import STARTER, locate
from lmwright.hub import STARTER_SHA256, resolve


def model_hash(name: str) -> str:
    """Return the hash of a model from elsewhere; one on a hub is known by its name only."""
    if name == "starter":
        return STARTER_SHA256
    # Of a step of another run only the model counts, not its state and logs.
    return name if name.startswith("hub:") else hash_path(resolve(name))


def source_hash(source: str) -> str:
    """Return the hash of a data source; one on a hub is known by its name only."""
    if source.startswith("hub:"):
        return source
    return hash_json([hash_path(path) for path in locate(source)])


def starter_hash() -> str:
    """Return the hash of the questions that come with the package."""
    return hash_path(STARTER)
