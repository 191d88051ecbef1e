"""What a shell offers after Tab: models, recipes, steps, tasks. Nothing heavy is imported.

A shell without an offer from here completes file names itself.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import typer


def models(incomplete: str) -> list[str]:
    """Return the models that begin so: the starter, steps of runs, model folders, .gguf files."""
    return [name for name in ("starter", *_model_paths(incomplete)) if name.startswith(incomplete)]


def models_and_runs(incomplete: str) -> list[str]:
    """Return what `show` knows: the models, runs, and all finished steps that begin so."""
    runs = [path.parent for path in _found("*/recipe.lock.json")]
    made = [path.parent for path in _found("*/[!.]*/result.json")]
    names = [*models(incomplete), *(path.as_posix() for path in (*runs, *made))]
    return [name for name in dict.fromkeys(names) if name.startswith(incomplete)]


def recipes(incomplete: str) -> list[str]:
    """Return the recipes that begin so, .toml files with stages in them."""
    return [path for path in _beside(incomplete) if path.endswith(".toml") and _steps(Path(path))]


def steps(context: typer.Context, incomplete: str) -> list[str]:
    """Return the steps of the recipe that was named before."""
    # Behind an option that lacks its value, the arguments are not sorted out yet.
    recipe = context.params.get("recipe") or next(iter(context.args), "")
    return [name for name in _steps(Path(recipe)) if name.startswith(incomplete)]


def among(names: Sequence[str]) -> Callable[[str], list[str]]:
    """Return what completes one of these names."""

    def offered(incomplete: str) -> list[str]:
        return [name for name in names if name.startswith(incomplete)]

    return offered


def _model_paths(incomplete: str) -> Iterator[str]:
    for config in _found("*/[!.]*/model/config.json"):
        yield config.parent.parent.as_posix()
    for path in _beside(incomplete):
        if path.endswith(".gguf") or Path(path, "config.json").is_file():
            yield path


def _found(pattern: str) -> list[Path]:
    """Return what lies in the folder of runs."""
    with contextlib.suppress(OSError):
        return sorted(Path("runs").glob(pattern))
    return []


def _beside(incomplete: str) -> list[str]:
    """Return the files and folders in the folder that was begun, as the user spells it."""
    folder = incomplete[: incomplete.rfind("/") + 1]
    try:
        names = sorted(path.name for path in Path(folder or ".").expanduser().iterdir())
    except (OSError, RuntimeError):
        return []
    return [folder + name for name in names if (folder + name).startswith(incomplete)]


def _steps(recipe: Path) -> list[str]:
    """Return the names of a recipe's steps; of a file that is no recipe, none."""
    import tomllib

    try:
        tables = tomllib.loads(recipe.expanduser().read_text(encoding="utf-8"))
    except (OSError, RuntimeError, ValueError, RecursionError):
        return []
    found = []
    for stage, table in tables.items():
        if not isinstance(table, dict):
            continue
        # [finetune.tuned] is the step `tuned`, [gate] the step `gate`.
        named = [name for name, value in table.items() if isinstance(value, dict)]
        found += named if len(named) == len(table) else [stage]
    return found
