"""The verbs about one model: generate, chat, show, serve."""

import json
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lmwright.cli import options
from lmwright.cli.listing import fields, say
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


def show(
    what: Annotated[str, typer.Argument(metavar="MODEL|RUN", help="A run's folder, or a model.")],
    context: Annotated[
        int | None, typer.Option(help="Tell the memory for so many tokens (default: a few).")
    ] = None,
    batch: Annotated[
        int | None, typer.Option(help="Tell the memory for so many texts at once (default: 1).")
    ] = None,
    as_json: options.AsJson = False,
) -> None:
    """Show what a run has done, or what a model is."""
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
    told = status(folder) if is_run else json.loads(result.read_text(encoding="utf-8"))
    say(fields(told), told, as_json=as_json)


def serve(
    model: options.ModelName = "starter",
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8000,
    key_file: Annotated[
        Path | None, typer.Option(help="A file with the API key that clients must send.")
    ] = None,
) -> None:
    """Serve a model to OpenAI's clients over HTTP."""
    from lmwright import lm
    from lmwright.serving.app import serve as listen

    key = key_file.read_text(encoding="utf-8").strip() if key_file is not None else None
    listen(lm.load(model), host=host, port=port, api_key=key)


def _sampling(**values: Any) -> "Sampling":
    """Check the sampling options; `values` are the fields of `Sampling`, all of them named."""
    from lmwright.engine.request import Sampling

    try:
        return Sampling(**values)
    except ValueError as error:
        raise RequestError(f"--{str(error).replace('_', '-', 1)}") from None
