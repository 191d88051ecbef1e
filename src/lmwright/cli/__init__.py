"""The command line. Only typer is imported here, so that `--help` is instant.

Exit codes: 0 done, 1 failed, 2 the request was wrong, 3 a gate said no, 130 interrupted (Ctrl-C).
With `--json`, stdout carries JSON and nothing else; progress, logs and errors go to stderr.
"""

import io
import logging
import os
import sys
import traceback
from collections.abc import Sequence
from typing import Annotated

import typer

from lmwright import __version__
from lmwright.cli import cache, chat, export, models, new, recipes, serve, show
from lmwright.cli.examples import epilog
from lmwright.core import extras
from lmwright.core.errors import InterruptError, LmwrightError, RequestError, is_out_of_memory

# In the order in which `--help` lists them.
VERBS = (
    new.new,
    recipes.run,
    models.generate,
    chat.chat,
    recipes.evaluate,
    show.show,
    recipes.doctor,
    export.convert,
    export.verify,
    serve.serve,
)

app = typer.Typer(
    rich_markup_mode=None,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code; an error is one line, not a traceback."""
    settings = {"debug": False}
    try:
        app(args=arguments, prog_name="lmwright", obj=settings)
        return 0
    except SystemExit as stop:
        # So typer ends a verb that Ctrl-C came to, without a word; no verb ends so by itself.
        if stop.code == InterruptError.exit_code:
            print("error: interrupted", file=sys.stderr)
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except KeyboardInterrupt:
        print("error: interrupted", file=sys.stderr)
        return InterruptError.exit_code
    except BrokenPipeError:
        # The reader (head, less) has gone; Python would complain when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (LmwrightError, OSError, MemoryError, RuntimeError, ModuleNotFoundError) as error:
        message, code = _explained(error)
        if settings["debug"]:
            traceback.print_exception(error)
        print(f"error: {message}", file=sys.stderr)
        return code


def _explained(error: BaseException) -> tuple[str, int]:
    """Return what to say about an error, and the exit code."""
    if isinstance(error, LmwrightError):
        return str(error), error.exit_code
    if is_out_of_memory(error):
        return (
            "out of memory; end other programs, or use a smaller model, a shorter text or context, "
            "or a smaller micro_batch_tokens in the recipe"
        ), 1
    if isinstance(error, OSError):
        named = f"{error.filename}: " if error.filename else ""
        return f"{named}{error.strerror or error}", 1
    if isinstance(error, ModuleNotFoundError) and (module := extras.absent(error)):
        return extras.missing("this command", module), RequestError.exit_code
    raise error


def _version(wanted: bool) -> None:
    if wanted:
        print(f"lmwright {__version__}")
        raise typer.Exit


@app.callback()
def before(
    context: typer.Context,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    _: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Build, measure and ship language models. Start with: lmwright new support"""
    context.obj["debug"] = debug
    if isinstance(sys.stdout, io.TextIOWrapper):
        # What an ASCII terminal cannot show is escaped; it does not end the work.
        sys.stdout.reconfigure(errors="backslashreplace")
    logger = logging.getLogger("lmwright")
    if not logger.handlers:
        logger.addHandler(logging.StreamHandler())
    logger.setLevel(logging.DEBUG if debug else logging.INFO)


for verb in VERBS:
    app.command(epilog=epilog(verb.__name__))(verb)
app.add_typer(cache.models, name="models", epilog=epilog("models"))
