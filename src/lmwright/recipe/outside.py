"""What a recipe names but does not make itself: a hash that knows it again."""

from lmwright.core.artifact import hash_json, hash_path
from lmwright.data.sources import STARTER, locate
from lmwright.hosted.address import is_hosted, parse
from lmwright.hub import STARTER_SHA256, resolve


def model_hash(name: str) -> str:
    """Return the hash of a model from elsewhere; one on a hub is known by its name only.

    So is a hosted one, by its name and URL: what answers there may change without a sign.
    """
    if name == "starter":
        return STARTER_SHA256
    if name.startswith("hub:"):
        return name
    if is_hosted(name):
        return str(parse(name))
    path = resolve(name)
    if path.is_file():
        return hash_path(path)
    # A card beside the weights is written anew by every report and makes no other model.
    files = sorted(file for file in path.iterdir() if file.is_file() and file.name != "README.md")
    return hash_json([[file.name, hash_path(file)] for file in files])


def source_hash(source: str) -> str:
    """Return the hash of a data source; one on a hub is known by its name only."""
    if source.startswith("hub:"):
        return source
    return hash_json([hash_path(path) for path in locate(source)])


def starter_hash() -> str:
    """Return the hash of the questions that come with the package."""
    return hash_path(STARTER)
