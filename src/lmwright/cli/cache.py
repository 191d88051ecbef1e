"""The verbs `models pull`, `models list` and `models rm`: what is in the caches."""

import sys
import time
from typing import Annotated

import typer

from lmwright.cli import options
from lmwright.cli.listing import say, table
from lmwright.core.errors import RequestError

Name = Annotated[
    str, typer.Argument(help="starter, hub:ORG/NAME[@REVISION], or hub:ORG/NAME:Q4_K_M for a GGUF.")
]


def pull(model: Name, as_json: options.AsJson = False) -> None:
    """Fetch a model, so that it can be used without a network."""
    from lmwright.hub import resolve

    if model != "starter" and not model.startswith("hub:"):
        raise RequestError(f"{model}: expected starter or hub:ORG/NAME; anything else is here")
    path = resolve(model)
    files = path.rglob("*") if path.is_dir() else [path]
    size_bytes = sum(file.stat().st_size for file in files if file.is_file())
    data = {"model": model, "path": str(path), "size_bytes": size_bytes}
    say(f"{model}: {size_bytes / 1e9:.2f} GB in {path}", data, as_json=as_json)


def list_models(as_json: options.AsJson = False) -> None:
    """List the models in the caches, by the names that every verb knows."""
    from lmwright.core.text_table import TextTable, glued
    from lmwright.hub.stored import stored_models

    found = stored_models()
    data = [
        {
            "model": each.reference,
            "revision": each.revision,
            "size_bytes": each.size_bytes,
            "used": _time(each.used_s),
            "path": str(each.path),
        }
        for each in found
    ]
    rows = []
    for each in found:
        size = glued(f"{each.size_bytes / 1e9:.2f} GB")
        rows.append([each.reference, each.revision[:20], size, _time(each.used_s)[:10]])
    shown = table(TextTable(["model", "revision", "size", "used"], rows))
    nothing = "no models in the caches; fetch one: lmwright models pull starter"
    say(shown if found else nothing, data, as_json=as_json)


def rm(
    model: Annotated[str, typer.Argument(help="As `lmwright models list` names it.")],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: options.AsJson = False,
) -> None:
    """Remove a model from the caches and free the disk."""
    from lmwright.hub.stored import find, removal

    planned = removal(find(model))
    lines = [f"{model}: frees {planned.size_bytes / 1e9:.2f} GB by removing"]
    print("\n".join([*lines, *(f"  {path}" for path in planned.paths)]), file=sys.stderr)
    if not yes:
        if not sys.stdin.isatty():
            raise RequestError(f"{model}: nothing removed; say --yes where nobody can be asked")
        if not typer.confirm("Remove it?", err=True):
            raise RequestError(f"{model}: nothing removed")
    planned.execute()
    data = {
        "model": model,
        "freed_bytes": planned.size_bytes,
        "removed": [str(path) for path in planned.paths],
    }
    say(f"{model}: removed", data, as_json=as_json)


def _time(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


models = typer.Typer(
    help="Fetch, list and remove the models in the caches.",
    rich_markup_mode=None,
    no_args_is_help=True,
)
for name, verb in {"pull": pull, "list": list_models, "rm": rm}.items():
    models.command(name)(verb)
