"""The verb new: a recipe to start from."""

import json
from pathlib import Path
from typing import Annotated

import typer

import lmwright
from lmwright.cli import options
from lmwright.cli.listing import say
from lmwright.core.errors import RequestError, suggestion


def new(
    name: Annotated[str, typer.Argument(help="The recipe's name; NAME.toml is written.")],
    template: Annotated[str, typer.Option(help="Which recipe to start from.")] = "support",
    as_json: options.AsJson = False,
) -> None:
    """Write a recipe to start from, ready to run."""
    from lmwright.recipe.read import parse

    folder = Path(lmwright.__file__).parent / "recipes"
    known = [path.stem for path in folder.glob("*.toml")]
    if template not in known:
        raise RequestError(f"--template {template}: no such recipe{suggestion(template, known)}")
    text = (folder / f"{template}.toml").read_text(encoding="utf-8")
    text = text.replace(f'name = "{template}"', f"name = {json.dumps(name)}", 1)
    parse(text, where=name)
    path = Path(f"{name}.toml")
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise RequestError(f"{path} exists already; choose another name") from None
    say(f"wrote {path}; next: lmwright run {path}", {"recipe": str(path)}, as_json=as_json)
