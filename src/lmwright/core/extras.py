"""The optional libraries, and which extra of the package brings each of them."""

from importlib.util import find_spec

from lmwright.core.errors import RequestError

# Module -> extra, as in pyproject.toml.
EXTRAS = {
    "torch": "train",
    "pyarrow": "evaluate",
    "scipy": "evaluate",
    "fastapi": "serve",
    "uvicorn": "serve",
    "openai": "hosted",
    "tensorboardX": "tensorboard",
    "xllamacpp": "llama-cpp",
}


def need(user: str, *modules: str) -> None:
    """Raise a `RequestError` for the first module that is not installed; nothing is imported."""
    for module in modules:
        if find_spec(module) is None:
            raise RequestError(missing(user, module))


def absent(error: ModuleNotFoundError) -> str | None:
    """Return the optional module that an import failed for; None if it is none of them."""
    name = (error.name or "").partition(".")[0]
    return name if name in EXTRAS else None


def missing(user: str, module: str) -> str:
    """Say in one sentence who needs a module that is not installed, and how to install it."""
    return f"{user} needs {module}, which is not installed: {remedy(module)}"


def remedy(module: str) -> str:
    """Return the command that installs an optional module."""
    return f"pip install 'lmwright[{EXTRAS[module]}]'"
