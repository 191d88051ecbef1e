"""The verbs that talk to a model: generate, chat."""

import json
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lmwright.cli import options
from lmwright.cli.listing import say
from lmwright.core.errors import RequestError

if TYPE_CHECKING:
    from lmwright.cli.conversation import Conversation
    from lmwright.engine.request import Prompt, Sampling


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
    from lmwright import lm
    from lmwright.cli.conversation import as_messages

    sampling = _sampling(
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
    loaded = lm.load(model)
    if chat or (chat is None and loaded.can_chat):
        given = as_messages(given)
    if prompt is not None and not as_json:
        for chunk in loaded.stream(given[0], sampling):
            print(chunk.text, end="", flush=True)
        print()
        return
    started = time.perf_counter()
    completions = loaded.generate(given, sampling)
    seconds = time.perf_counter() - started
    answers = [
        {"prompt": each, **asdict(completion)}
        for each, completion in zip(given, completions, strict=True)
    ]
    data = {"model": model, "completions": answers, "seconds": seconds}
    say("\n".join(completion.text for completion in completions), data, as_json=as_json)


def _given(prompt: str | None, file: Path | None) -> "list[Prompt]":
    from lmwright.cli.conversation import read_prompts

    if prompt is not None and file is None:
        return [prompt]
    if file is not None and prompt is None:
        return read_prompts(file)
    raise RequestError("give one of --prompt TEXT and --prompts FILE")


def chat(
    model: options.ModelName = "starter",
    system: Annotated[str | None, typer.Option(help="A system message.")] = None,
    max_tokens: options.MaxTokens = 512,
    temperature: options.Temperature = 0.2,
    top_p: options.TopP = 0.9,
    seed: options.Seed = 0,
    as_json: options.AsJson = False,
) -> None:
    """Talk to a model (/help lists its commands)."""
    from lmwright import lm
    from lmwright.cli.conversation import Conversation

    sampling = _sampling(max_tokens=max_tokens, temperature=temperature, top_p=top_p, seed=seed)
    conversation = Conversation(lm.load(model), sampling, system=system)
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


def _sampling(**values: Any) -> "Sampling":
    """Check the sampling options; `values` are the fields of `Sampling`, all of them named."""
    from lmwright.engine.request import Sampling

    try:
        return Sampling(**values)
    except ValueError as error:
        raise RequestError(f"--{str(error).replace('_', '-', 1)}") from None
