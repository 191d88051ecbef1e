"""The verbs about two copies of one model: verify, convert."""

from pathlib import Path
from typing import Annotated

import typer

from lmwright.cli import options
from lmwright.cli.listing import say
from lmwright.core.errors import RequestError

SUBJECT_HELP = f"{options.MODEL_HELP} Also llama.cpp:FILE.gguf and openai:MODEL@URL."


def verify(
    a: Annotated[str, typer.Argument(metavar="A", help=f"The original: {SUBJECT_HELP}")],
    b: Annotated[str, typer.Argument(metavar="B", help="What claims to be a copy of it.")],
    prompts: Annotated[
        Path | None,
        typer.Option(help='Continue these: a prompt a line, or .jsonl with "prompt"/"messages".'),
    ] = None,
    n_tokens: Annotated[
        int, typer.Option(min=1, max=512, help="Continue each prompt by so many tokens.")
    ] = 16,
    tolerance: Annotated[
        float | None,
        typer.Option(min=0, help="Judge by the largest difference alone; it may be so large."),
    ] = None,
    server_weights: Annotated[
        str | None,
        typer.Option(
            metavar="FORMAT",
            help="What a server holds: fp32, fp16, int8, Q8_0, ... (taken for bf16 if not named).",
        ),
    ] = None,
    as_json: options.AsJson = False,
) -> None:
    """Say whether two models are the same: same tokens, same choices, same log-probabilities."""
    from lmwright.cli.conversation import read_prompts
    from lmwright.verification import remote
    from lmwright.verification.tolerances import custom
    from lmwright.verification.verify import verify as compare

    given = None if prompts is None else read_prompts(prompts)
    pair = remote.open_pair(a, b, server_weights=server_weights)
    try:
        judged_by = None if tolerance is None else custom(tolerance)
        result = compare(*pair, prompts=given, n_tokens=n_tokens, tolerance=judged_by)
    finally:
        remote.close(*pair)
    say(result, result.to_json(), as_json=as_json)
    raise typer.Exit(0 if result.is_passed else 1)


def convert(
    model: options.ModelName,
    out: Annotated[Path, typer.Argument(metavar="OUT", help="A new folder, or FILE.gguf.")],
    to: Annotated[str, typer.Option(help="hf (a Hugging Face folder) or gguf.")],
    dtype: Annotated[
        str | None,
        typer.Option(help="Of a folder: fp32, bf16 or fp16 (default: the source's, or bf16)."),
    ] = None,
    type_: Annotated[
        str | None,
        typer.Option("--type", help="Of a GGUF: f16, bf16, q8_0 or q4_0 (default: f16)."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an older model at OUT.")] = False,
    keep_failed: Annotated[
        bool, typer.Option("--keep-failed", help="Keep what did not pass as OUT.failed.")
    ] = False,
    as_json: options.AsJson = False,
) -> None:
    """Write a model in another format, and verify that it is the same."""
    from lmwright.conversion import convert as conversion

    wrong = {"hf": ("--type", type_), "gguf": ("--dtype", dtype)}.get(to)
    if wrong is not None and wrong[1] is not None:
        raise RequestError(f"{wrong[0]} {wrong[1]}: has no meaning with --to {to}")
    done = conversion.convert(
        model,
        out,
        to=to,  # pyright: ignore[reportArgumentType]  checked there
        number_format=type_ if to == "gguf" else dtype,
        is_forced=force,
        keeps_failed=keep_failed,
    )
    if not as_json:
        for result in done.results:
            say(result, None, as_json=False)
        for note in done.notes:
            print(f"note: {note}")
    wrote = f"wrote {done.out} ({done.format}, {done.size_bytes / 1e6:,.0f} MB)"
    say(wrote, done.to_json(), as_json=as_json)
