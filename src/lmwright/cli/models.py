"""The verb generate, and how every verb opens a model to talk to."""

import re
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lmwright.cli import options
from lmwright.cli.listing import say
from lmwright.core.errors import RequestError

if TYPE_CHECKING:
    from lmwright.engine.request import Completion, Prompt, Sampling
    from lmwright.lm import LanguageModel

# What would move the cursor, or worse, if a model said it at a terminal.
CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def generate(
    model: options.ModelName,
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
    from lmwright.cli.conversation import as_messages

    sampling = sampled(
        max_tokens=max_tokens,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        min_p=min_p,
        repetition_penalty=repetition_penalty,
        stop=tuple(stop or ()),
        seed=seed,
    )
    given = _given(prompt, prompts)
    loaded = opened(model)
    if chat or (chat is None and loaded.can_chat):
        given = as_messages(given)
    if prompt is not None and not as_json:
        for chunk in loaded.stream(given[0], sampling):
            print(visible(chunk.text), end="", flush=True)
        print()
        return
    started = time.perf_counter()
    answers: list[dict[str, Any]] = []
    try:
        for asked, completion in zip(given, _in_order(loaded, given, sampling), strict=True):
            answers.append({"prompt": asked, **asdict(completion)})
            if not as_json:
                print(visible(completion.text), flush=True)
    finally:
        # An interrupted run has said what was done; with --json that is one document, too.
        if as_json and answers:
            seconds = time.perf_counter() - started
            data = {"model": model, "completions": answers, "seconds": seconds}
            say("", {**data, "n_prompts": len(given)}, as_json=True)


def _in_order(
    model: "LanguageModel", prompts: "list[Prompt]", sampling: "Sampling"
) -> "Iterator[Completion]":
    """Yield the answers in the order of the prompts, each as soon as it can be."""
    from lmwright.core.progress import bar

    waiting: dict[int, Completion] = {}
    n_given = 0
    with bar("generate", total=len(prompts)) as progress:
        for number, completion in model.completions(prompts, sampling):
            waiting[number] = completion
            progress.advance()
            while n_given in waiting:
                yield waiting.pop(n_given)
                n_given += 1


def _given(prompt: str | None, file: Path | None) -> "list[Prompt]":
    from lmwright.cli.conversation import read_prompts

    if prompt is not None and file is None:
        return [prompt]
    if file is not None and prompt is None:
        return read_prompts(file)
    raise RequestError("give one of --prompt TEXT and --prompts FILE")


def opened(model: str) -> "LanguageModel":
    """Open a model, and say so on a terminal, as it may take a while."""
    from lmwright import lm

    if sys.stderr.isatty():
        print(f"loading {model} ...", file=sys.stderr, flush=True)
    return lm.load(model)


def sampled(**values: Any) -> "Sampling":
    """Check the sampling options; `values` are the fields of `Sampling`, all of them named."""
    from lmwright.engine.request import Sampling

    try:
        return Sampling(**values)
    except ValueError as error:
        raise RequestError(f"--{str(error).replace('_', '-', 1)}") from None


def visible(text: str) -> str:
    """Return a model's text as a terminal may show it; elsewhere it stays as it is."""
    return CONTROLS.sub("\ufffd", text) if sys.stdout.isatty() else text
