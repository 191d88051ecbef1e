"""Models from elsewhere: what a recipe names but does not make."""

from pathlib import Path

from lmwright.core.artifact import hash_json, hash_path
from lmwright.core.errors import ModelError, RecipeError
from lmwright.core.stage import ASSUMED_PARAMS, MODEL, Estimate
from lmwright.hosted import address
from lmwright.hub import REFERENCE, STARTER_SHA256, resolve

# The one kind of thing that need not be made by a step, and the name of the model that is there.
KIND = MODEL
BUILT_IN = "starter"


def exists(name: str) -> bool:
    """Tell whether there is such a file or folder."""
    # An empty name would be the present folder.
    return name != "" and Path(name).expanduser().exists()


def check(name: str, here: str, *, allows_hosted: bool) -> bool:
    """Tell whether a name means a model; one that means a broken one is an error at `here`."""
    if name == BUILT_IN or REFERENCE.fullmatch(name):
        return True
    if address.is_hosted(name) and not allows_hosted:
        raise RecipeError(
            f"{here}: a hosted model can only be evaluated; its weights are elsewhere"
        )
    try:
        if address.is_hosted(name):
            address.parse(name)
            return True
        if exists(name) or "/" in name or name.endswith(".gguf"):
            resolve(name)
            return True
    except ModelError as error:
        raise RecipeError(f"{here}: {error}") from None
    if ":" in name:
        raise RecipeError(
            f"{here}: unknown kind of model; known: starter, a step of this recipe, "
            "a folder, a .gguf file, hub:ORG/NAME, hub:ORG/NAME@REVISION, openai:MODEL@URL"
        )
    return False


def model_hash(name: str) -> str:
    """Return the hash of a model from elsewhere; one on a hub is known by its name only.

    So is a hosted one, by its name and URL: what answers there may change without a sign.
    """
    if name == BUILT_IN:
        return STARTER_SHA256
    if name.startswith("hub:"):
        return name
    if address.is_hosted(name):
        return str(address.parse(name))
    path = resolve(name)
    if path.is_file():
        return hash_path(path)
    # A card beside the weights is written anew by every report and makes no other model.
    files = sorted(file for file in path.iterdir() if file.is_file() and file.name != "README.md")
    return hash_json([[file.name, hash_path(file)] for file in files])


def estimate(name: str) -> Estimate:
    """Return about how many parameters a model has, where something local tells."""
    path, n_params = Path(name), None
    if name == BUILT_IN:
        n_params = ASSUMED_PARAMS
    elif path.suffix == ".gguf" and path.is_file():
        # Most GGUF files are quantised to four or five bits.
        n_params = int(path.stat().st_size / 0.6)
    elif path.is_dir():
        n_params = sum(file.stat().st_size for file in path.rglob("*.safetensors")) // 2 or None
    return Estimate(0, 0, is_complete=n_params is not None, n_params=n_params)
