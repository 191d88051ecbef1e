"""The command line. Only typer is imported here, so that `--help` is instant.

Exit codes: 0 done, 1 failed, 2 the request was wrong, 3 a gate said no. With `--json`, stdout
carries JSON and nothing else; progress, logs and errors go to stderr.
"""

import json
import logging
import os
import sys
import time
import traceback
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lmwright import __version__, options
from lmwright.core.errors import LmwrightError, RequestError, suggestion

if TYPE_CHECKING:
    from lmwright.conversation import Conversation
    from lmwright.engine.request import Prompt, Sampling
    from lmwright.lm import LanguageModel

app = typer.Typer(
    rich_markup_mode=None,
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@dataclass
class Settings:
    """What the options before the verb said."""

    debug: bool = False


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code; an error is one line, not a traceback."""
    settings = Settings()
    try:
        app(args=arguments, prog_name="lmwright", obj=settings)
        return 0
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except LmwrightError as error:
        return _fail(error, str(error), code=error.exit_code, debug=settings.debug)
    except BrokenPipeError:
        # The reader (head, less) has gone; Python would complain when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        named = f"{error.filename}: " if error.filename else ""
        return _fail(error, f"{named}{error.strerror or error}", code=1, debug=settings.debug)
    except MemoryError as error:
        message = "out of memory; use a smaller model or micro_batch_tokens"
        return _fail(error, message, code=1, debug=settings.debug)


def _fail(error: BaseException, message: str, *, code: int, debug: bool) -> int:
    if debug:
        traceback.print_exception(error)
    print(f"error: {message}", file=sys.stderr)
    return code


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
    context.obj.debug = debug
    logger = logging.getLogger("lmwright")
    if not logger.handlers:
        logger.addHandler(logging.StreamHandler())
    logger.setLevel(logging.DEBUG if debug else logging.INFO)


@app.command()
def new(
    name: Annotated[str, typer.Argument(help="The recipe's name; NAME.toml is written.")],
    template: Annotated[str, typer.Option(help="Which recipe to start from.")] = "support",
    as_json: options.AsJson = False,
) -> None:
    """Write a recipe to start from, ready to run."""
    from lmwright.recipe import parse

    folder = Path(__file__).parent / "recipes"
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
    if as_json:
        _print_json({"recipe": str(path)})
    else:
        print(f"wrote {path}; next: lmwright run {path}")


@app.command()
def run(
    recipe: Annotated[Path, typer.Argument(help="A recipe (.toml).")],
    only: Annotated[str | None, typer.Option(metavar="STEP", help="Run just this step.")] = None,
    start: Annotated[
        str | None,
        typer.Option("--from", metavar="STEP", help="Redo a step and all that follows from it."),
    ] = None,
    changes: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="As in finetune.tuned.rank=8; repeatable."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only show what would be done.")
    ] = False,
    out: Annotated[Path | None, typer.Option(help="The run's folder (default: runs/NAME).")] = None,
    as_json: options.AsJson = False,
) -> None:
    """Do the steps of a recipe that are not done yet."""
    from lmwright import listing, pipeline
    from lmwright.recipe import read

    plan = pipeline.plan(read(recipe, overrides=changes or ()), out=out, only=only, start=start)
    if dry_run:
        if as_json:
            _print_json(plan.to_json())
        else:
            print(listing.plan(plan))
        return
    print(listing.plan(plan), file=sys.stderr)
    result = pipeline.run(plan.recipe, out=out, only=only, start=start)
    reports = [result.folder / name / "report.html" for name in plan.recipe.report]
    reports = [path for path in reports if path.exists()]
    if as_json:
        data = {"folder": str(result.folder), "ran": result.ran, "skipped": result.skipped}
        gate = result.gate.to_json() if result.gate else None
        paths = [str(path) for path in reports]
        _print_json({**data, "seconds": result.seconds, "gate": gate, "reports": paths})
    else:
        for each in plan.steps:
            if each.step.stage == "evaluate" and (evaluation := each.artifact.result):
                print(listing.scores(evaluation, is_terminal=sys.stdout.isatty()))
        if result.gate is not None:
            print(f"\n{listing.gate(result.gate)}")
        for path in reports:
            print(f"\nreport: {path}")
    raise typer.Exit(result.exit_code)


@app.command()
def generate(
    model: options.Model,
    prompt: Annotated[str | None, typer.Option(help="What to continue or to answer.")] = None,
    prompts: Annotated[
        Path | None,
        typer.Option(help='A file: a prompt a line, or .jsonl with "prompt" or "messages".'),
    ] = None,
    chat: Annotated[
        bool | None,
        typer.Option(
            "--chat/--raw", help="As a user's message, or as plain text (default: chat if it can)."
        ),
    ] = None,
    max_tokens: options.MaxTokens = 128,
    temperature: options.Temperature = 0.0,
    top_k: options.TopK = 0,
    top_p: options.TopP = 1.0,
    min_p: options.MinP = 0.0,
    repetition_penalty: options.Penalty = 1.0,
    stop: options.Stop = None,
    seed: options.Seed = 0,
    as_json: options.AsJson = False,
) -> None:
    """Continue a prompt, or answer it."""
    from lmwright.conversation import as_messages

    limits = {"max_tokens": max_tokens, "stop": tuple(stop or ()), "seed": seed}
    cuts = {"top_k": top_k, "top_p": top_p, "min_p": min_p}
    sampling = _sampling(
        **limits, **cuts, temperature=temperature, repetition_penalty=repetition_penalty
    )
    given = _given(prompt, prompts)
    loaded = _load(model)
    if chat or (chat is None and loaded.tokenizer.chat_template is not None):
        given = as_messages(given)
    if prompt is not None and not as_json:
        for chunk in loaded.stream(given[0], sampling):
            print(chunk.text, end="", flush=True)
        print()
        return
    started = time.perf_counter()
    completions = loaded.generate(given, sampling)
    seconds = time.perf_counter() - started
    if as_json:
        answers = [
            {"prompt": each, **asdict(completion)}
            for each, completion in zip(given, completions, strict=True)
        ]
        _print_json({"model": model, "completions": answers, "seconds": seconds})
    else:
        print("\n".join(completion.text for completion in completions))


def _given(prompt: str | None, file: Path | None) -> "list[Prompt]":
    from lmwright.conversation import read_prompts

    if prompt is not None and file is None:
        return [prompt]
    if file is not None and prompt is None:
        return read_prompts(file)
    raise RequestError("give one of --prompt TEXT and --prompts FILE")


@app.command()
def chat(
    model: options.Model = "starter",
    system: Annotated[str | None, typer.Option(help="A system message.")] = None,
    max_tokens: options.MaxTokens = 512,
    temperature: options.Temperature = 0.2,
    top_p: options.TopP = 0.9,
    seed: options.Seed = 0,
    as_json: options.AsJson = False,
) -> None:
    """Talk to a model (/help lists its commands)."""
    from lmwright.conversation import Conversation

    sampling = _sampling(max_tokens=max_tokens, temperature=temperature, top_p=top_p, seed=seed)
    conversation = Conversation(_load(model), sampling, system=system)
    is_terminal = sys.stdin.isatty() and not as_json
    if is_terminal:
        print("/help lists the commands, /exit leaves; Ctrl-C ends a reply.")
    while True:
        try:
            line = input("you> " if is_terminal else "").strip()
            if line == "/exit":
                return
            if line.startswith("/"):
                print(conversation.command(line), file=sys.stderr)
            elif line:
                _answer(conversation, line, as_json=as_json)
        except EOFError:
            return
        except KeyboardInterrupt:
            print("\n(/exit leaves)", file=sys.stderr)
        except RequestError as error:
            print(f"error: {error}", file=sys.stderr)


def _answer(conversation: "Conversation", line: str, *, as_json: bool) -> None:
    """Print a reply while it is made; Ctrl-C ends it, and what was said so far stays said."""
    pieces: list[str] = []
    reply = conversation.reply(line)
    is_cut = False
    try:
        for piece in reply:
            pieces.append(piece)
            if not as_json:
                print(piece, end="", flush=True)
    except KeyboardInterrupt:
        is_cut = True
        reply.close()
    if as_json:
        print(json.dumps({"prompt": line, "text": "".join(pieces), "is_cut": is_cut}), flush=True)
    else:
        print(" [cut]" if is_cut else "")


@app.command()
def evaluate(
    models: Annotated[list[str], typer.Argument(metavar="MODEL...", help=options.MODEL_HELP)],
    suite: Annotated[str, typer.Option(help="quick (a minute a model) or full.")] = "quick",
    tasks: Annotated[
        list[str] | None, typer.Option("--tasks", help="Only this task; may be repeated.")
    ] = None,
    data: Annotated[
        str | None, typer.Option(help="Held-out questions: a data step's folder, or a source.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Keep rows and result.json here.")] = None,
    as_json: options.AsJson = False,
) -> None:
    """Measure models side by side, with intervals and verdicts."""
    import tempfile

    from lmwright import listing, pipeline

    recipe = pipeline.evaluation_recipe(models, suite=suite, tasks=tasks, data=data)
    with tempfile.TemporaryDirectory() as scratch:
        folder = out or Path(scratch)
        pipeline.run(recipe, out=folder)
        result = json.loads((folder / "scores" / "result.json").read_text(encoding="utf-8"))
    if as_json:
        _print_json(result)
    else:
        print(listing.scores(result, is_terminal=sys.stdout.isatty()))


@app.command()
def show(
    what: Annotated[str, typer.Argument(metavar="MODEL|RUN", help="A run's folder, or a model.")],
    as_json: options.AsJson = False,
) -> None:
    """Show what a run has done, or what a model is."""
    from lmwright import listing, pipeline

    folder = Path(what)
    if (folder / pipeline.LOCK).is_file():
        found = pipeline.status(folder)
    elif (folder / "result.json").is_file() and not (folder / "model").is_dir():
        found = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    else:
        loaded = _load(what)
        found = {"model": what, **asdict(loaded.facts)}
        found["chat_template"] = loaded.tokenizer.chat_template is not None
        found["vocabulary"] = loaded.tokenizer.vocab_size
    if as_json:
        _print_json(found)
    else:
        print(listing.fields(found))


@app.command()
def doctor(
    recipe: Annotated[Path | None, typer.Argument(help="Look at this recipe's needs, too.")] = None,
    as_json: options.AsJson = False,
) -> None:
    """Say whether this machine is ready, and what to do if not."""
    from lmwright.doctor import examine

    checks = []
    for check in examine(recipe):
        checks.append(check)
        if not as_json:
            remedy = f"\n{'':17}{check.remedy}" if check.remedy else ""
            print(f"{check.status:<5} {check.name:<10} {check.found}{remedy}", flush=True)
    if as_json:
        _print_json([asdict(check) for check in checks])
    raise typer.Exit(1 if any(check.status == "fail" for check in checks) else 0)


@app.command()
def serve(
    model: options.Model = "starter",
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8000,
    key_file: Annotated[
        Path | None, typer.Option(help="A file with the API key that clients must send.")
    ] = None,
) -> None:
    """Serve a model to OpenAI's clients over HTTP."""
    from lmwright.serving.app import serve as listen

    key = key_file.read_text(encoding="utf-8").strip() if key_file is not None else None
    listen(_load(model), host=host, port=port, api_key=key)


def _load(model: str) -> "LanguageModel":
    from lmwright.lm import load

    return load(model)


def _sampling(**values: Any) -> "Sampling":
    """Check the sampling options; `values` are the fields of `Sampling`, all of them named."""
    from lmwright.engine.request import Sampling

    try:
        return Sampling(**values)
    except ValueError as error:
        raise RequestError(f"--{str(error).replace('_', '-', 1)}") from None


def _print_json(data: Any) -> None:
    print(json.dumps(data, indent=2, ensure_ascii=False))
