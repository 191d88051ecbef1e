"""The families as data: how each spells its configuration and names its tensors."""

from lmwright.core.errors import ModelError, suggestion
from lmwright.model.families import llama
from lmwright.model.families.family import Family

# By `model_type` of config.json; GGUF calls all of these "llama".
FAMILIES: dict[str, Family] = {"llama": llama.LLAMA, "mistral": llama.MISTRAL}


def family(model_type: object) -> Family:
    """Return the family of this `model_type`, or say which are known."""
    # From a file, so it may be anything, also what no dict can look up.
    if not isinstance(model_type, str) or model_type not in FAMILIES:
        raise ModelError(
            f"model_type {model_type!r} is not a family that lmwright builds"
            f"{suggestion(str(model_type), FAMILIES)}"
        )
    return FAMILIES[model_type]
