"""Models from elsewhere: what a recipe names but does not make."""

from pathlib import Path
from typing import TYPE_CHECKING

from lmwright.core.artifact import hash_json, hash_path
from lmwright.core.errors import ModelError, RecipeError
from lmwright.core.paths import expanded
from lmwright.core.stage import ASSUMED_MATRICES, ASSUMED_PARAMS, MODEL, Estimate, Matrices
from lmwright.hosted import address
from lmwright.hub import REFERENCE, STARTER_SHA256, resolve

if TYPE_CHECKING:
    from lmwright.model.config import ModelConfig
    from lmwright.summary.inventory import Inventory

# The one kind of thing that need not be made by a step, and the name of the model that is there.
KIND = MODEL
BUILT_IN = "starter"


def exists(name: str) -> bool:
    """Tell whether there is such a file or folder."""
    # An empty name would be the present folder.
    return name != "" and expanded(name).exists()


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
    """Return about how many parameters a model has, and in what matrices, where a file tells."""
    if name == BUILT_IN:
        return Estimate(0, 0, n_params=ASSUMED_PARAMS, matrices=ASSUMED_MATRICES)
    if found := _inventory(expanded(name)):
        return Estimate(0, 0, n_params=found.n_params, matrices=_matrices(found.config))
    return Estimate(0, 0, is_complete=False)


def _inventory(path: Path) -> "Inventory | None":
    """Return what the headers of a local model tell; None where it is not here, or broken."""
    try:
        if not path.exists():
            return None
        # Brings torch, which planning for the starter does without.
        from lmwright.formats.gguf import open_gguf
        from lmwright.summary.inventory import folder_inventory, gguf_inventory

        path = resolve(str(path))
        if path.is_dir():
            return folder_inventory(path)
        with open_gguf(path) as file:
            return gguf_inventory(file)
    # The step that opens it says what is wrong with the model, or with the installation.
    except (ModelError, ImportError):
        return None


def _matrices(config: "ModelConfig") -> Matrices:
    d_model, d_mix = config.d_model, config.n_heads * config.d_head
    d_kv = config.n_kv_heads * config.d_head
    attention = ((d_mix, d_model), (d_kv, d_model), (d_kv, d_model), (d_model, d_mix))
    inner = ((config.d_ff, d_model),) * (2 if config.is_gated else 1)
    return Matrices(d_model, (*attention, *inner, (d_model, config.d_ff)), config.n_layers)
