"""The optional libraries, and which extra of the package brings each of them."""

from importlib import import_module
from importlib.util import find_spec
from typing import Any

from lmwright.core.errors import RequestError

# Module -> extra, as in pyproject.toml.
EXTRAS = {
    "torch": "train",
    "pyarrow": "evaluate",
    "scipy": "evaluate",
    "fastapi": "serve",
    "uvicorn": "serve",
    "openai": "hosted",
    "xllamacpp": "llama-cpp",
}


def load(module: str, user: str) -> Any:
    """Import an optional module; without it a `RequestError` names its `user` and the remedy."""
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        name = absent(error)
        if name is None:
            raise
        raise RequestError(missing(name, user)) from None


def check(modules: tuple[str, ...], user: str) -> None:
    """Raise the error of `load` for the first module that is not installed; import none."""
    for module in modules:
        if find_spec(module) is None:
            raise RequestError(missing(module, user))


def absent(error: ModuleNotFoundError) -> str | None:
    """Return the optional module that an import failed for; None if it is none of them."""
    name = (error.name or "").partition(".")[0]
    return name if name in EXTRAS else None


def missing(module: str, user: str) -> str:
    """Say in one sentence who needs a module that is not installed, and how to install it."""
    return (
        f"{user} needs {module}, which is not installed: pip install 'lmwright[{EXTRAS[module]}]'"
    )
