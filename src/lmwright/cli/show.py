"""The verb show: what a run has done, or what a model is."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from lmwright.cli import options
from lmwright.cli.listing import fields, say
from lmwright.core.errors import RequestError


def show(
    what: Annotated[str, typer.Argument(metavar="MODEL|RUN", help="A run's folder, or a model.")],
    context: Annotated[
        int | None, typer.Option(help="Tell the memory for so many tokens (default: a few).")
    ] = None,
    batch: Annotated[
        int | None, typer.Option(help="Tell the memory for so many texts at once (default: 1).")
    ] = None,
    tensorboard: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Write what a run's training logged for TensorBoard."),
    ] = None,
    as_json: options.AsJson = False,
) -> None:
    """Show what a run has done, or what a model is."""
    if tensorboard is not None:
        from lmwright.training.tensorboard import write_events

        folders = [str(folder) for folder in write_events(Path(what), tensorboard)]
        shown = f"tensorboard --logdir {tensorboard}"
        say(shown, {"logdir": str(tensorboard), "folders": folders}, as_json=as_json)
        return
    from lmwright.core.artifact import read_state
    from lmwright.recipe.run import LOCK, status

    folder = Path(what)
    result = folder / "result.json"
    is_run = (folder / LOCK).is_file()
    if not is_run and not (result.is_file() and not (folder / "model").is_dir()):
        from lmwright.summary.page import page
        from lmwright.summary.summary import summarise

        found = summarise(what, context=context, batch=batch)
        say(page(found, is_terminal=sys.stdout.isatty()), found.to_json(), as_json=as_json)
        return
    if context is not None or batch is not None:
        raise RequestError(f"{what}: --context and --batch are for models")
    told = status(folder) if is_run else read_state(result, remedy="run its recipe again")
    say(fields(told), told, as_json=as_json)
