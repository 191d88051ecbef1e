"""The verb new: a recipe to start from."""

from pathlib import Path
from typing import Annotated

import typer

import lmwright
from lmwright.cli import completion, options
from lmwright.cli.listing import say
from lmwright.core.errors import RequestError, suggestion

# The template that reads a file of the user's.
OWN = "own"


def new(
    name: Annotated[str, typer.Argument(help="The recipe's name; NAME.toml is written.")],
    template: Annotated[
        str,
        typer.Option(
            help="support: an example that runs as it is; own: for your own data.",
            autocompletion=completion.among(("own", "support")),
        ),
    ] = "support",
    as_json: options.AsJson = False,
) -> None:
    """Write a recipe to start from."""
    from lmwright.recipe.read import parse
    from lmwright.recipe.recipe import name_fault

    if fault := name_fault(name):
        raise RequestError(f"{name!r}: {fault}")
    folder = Path(lmwright.__file__).parent / "recipes"
    known = [path.stem for path in folder.glob("*.toml")]
    if template not in known:
        raise RequestError(f"--template {template}: no such recipe{suggestion(template, known)}")
    text = (folder / f"{template}.toml").read_text(encoding="utf-8")
    text = _renamed(text, template, name)
    parse(text, where=name)
    path = Path(f"{name}.toml")
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise RequestError(f"{path} exists already; choose another name") from None
    data = Path(f"{name}.jsonl")
    needs_data = template == OWN and not data.exists()
    first = f"put your data into {data} (docs/data.md), then " if needs_data else ""
    say(f"wrote {path}; next: {first}lmwright run {path}", {"recipe": str(path)}, as_json=as_json)


def _renamed(text: str, template: str, name: str) -> str:
    """Put a recipe's name where the template has its own: files, folders, and the key itself."""
    for before in ('name = "{}"', "{}.toml", "runs/{}/", "{}.jsonl"):
        text = text.replace(before.format(template), before.format(name))
    return text
