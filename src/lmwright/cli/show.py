"""The verb show: what a run has done, or what a model is."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lmwright.cli import completion, options
from lmwright.cli.listing import say
from lmwright.core.errors import RequestError

if TYPE_CHECKING:
    from lmwright.reporting.steps import RunStep


def show(
    what: Annotated[
        str,
        typer.Argument(
            metavar="MODEL|RUN",
            help="A run's folder, or a model.",
            autocompletion=completion.models_and_runs,
        ),
    ],
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
    from lmwright.cli import run_page
    from lmwright.core.artifact import RECIPE_LOCK, RESULT
    from lmwright.reporting.steps import read_run, read_step

    folder = Path(what)
    is_run = (folder / RECIPE_LOCK).is_file()
    is_step = (folder / RESULT).is_file()
    step = read_step(folder) if is_step and not is_run else None
    if not is_run and (step is None or step.makes == "model"):
        _show_model(what, step, context=context, batch=batch, as_json=as_json)
        return
    if context is not None or batch is not None:
        raise RequestError(f"{what}: --context and --batch are for models")
    if step is None:
        run = read_run(folder)
        say(run_page.run_page(run), run_page.run_json(run), as_json=as_json)
        return
    say(run_page.step_page(step), dict(step.result), as_json=as_json)


def _show_model(
    what: str, step: "RunStep | None", *, context: int | None, batch: int | None, as_json: bool
) -> None:
    """Print what a model is, and how it was made where that is known."""
    from lmwright.cli import run_page
    from lmwright.summary.page import page
    from lmwright.summary.summary import summarise

    found = summarise(what, context=context, batch=batch)
    told = page(found, is_terminal=sys.stdout.isatty())
    if step is not None:
        told = f"{told}\n\n{run_page.step_lines(step)}"
    say(told, found.to_json(), as_json=as_json)
