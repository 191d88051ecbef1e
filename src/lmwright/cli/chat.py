"""The verb chat: a dialogue with a model, at a terminal or line by line from a pipe."""

import contextlib
import json
import sys
from collections.abc import Generator
from typing import TYPE_CHECKING, Annotated

import typer

from lmwright.cli import options
from lmwright.cli.models import opened, sampled, visible
from lmwright.core.errors import ContextLengthError, LmwrightError, RequestError

if TYPE_CHECKING:
    from lmwright.cli.conversation import Conversation
    from lmwright.cli.editor import LineEditor

# Also those of other programs, which fingers know.
EXITS = ("/exit", "/quit", "/bye")


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
    from lmwright.cli.conversation import Conversation

    sampling = sampled(max_tokens=max_tokens, temperature=temperature, top_p=top_p, seed=seed)
    loaded = opened(model)
    if not loaded.can_chat:
        raise RequestError(
            f"{model}: has no chat template, so it takes part in no dialogue; "
            f"let it continue a text: lmwright generate {model} --prompt TEXT"
        )
    conversation = Conversation(loaded, sampling, system=system)
    is_terminal = sys.stdin.isatty() and sys.stdout.isatty() and not as_json
    editor = _editor() if is_terminal else None
    read, hushed = (editor.read, editor.hushed) if editor else (_piped, contextlib.nullcontext)
    while True:
        try:
            text = read()
            if text.strip() in EXITS:
                return
            with hushed():
                _obey_or_answer(conversation, text, as_json=as_json)
        except EOFError:
            return
        except KeyboardInterrupt:
            if not is_terminal:
                raise
            print("(Ctrl-D or /exit leaves)")
        except BrokenPipeError:
            raise
        except (LmwrightError, OSError) as error:
            is_full = isinstance(error, ContextLengthError)
            hint = "; /undo forgets the last turn, /reset the dialogue" if is_full else ""
            print(f"error: {error}{hint}", file=sys.stderr)


def _editor() -> "LineEditor":
    from lmwright.cli.editor import LineEditor
    from lmwright.hub import cache_folder

    print("/help lists the commands and keys; Ctrl-C ends a reply, Ctrl-D the chat.")
    return LineEditor(cache_folder() / "chat_history")


def _piped() -> str:
    line = sys.stdin.buffer.readline()
    if not line:
        raise EOFError
    try:
        return line.decode("utf-8").removesuffix("\n")
    except UnicodeDecodeError as error:
        raise RequestError(f"not UTF-8 (byte {error.start} of the line {line!r})") from None


def _obey_or_answer(conversation: "Conversation", text: str, *, as_json: bool) -> None:
    message = text.strip()
    if text.rstrip() == "/retry":
        _answer(conversation, conversation.retry(), as_json=as_json)
    elif text.startswith("/"):
        print(conversation.command(text), file=sys.stderr)
    elif message:
        _answer(conversation, conversation.reply(message), as_json=as_json)


def _answer(conversation: "Conversation", reply: Generator[str], *, as_json: bool) -> None:
    """Print a reply while it is made; Ctrl-C ends it, and what was said so far stays said."""
    pieces: list[str] = []
    is_cut = False
    try:
        for piece in reply:
            pieces.append(piece)
            if not as_json:
                print(visible(piece), end="", flush=True)
    except KeyboardInterrupt:
        is_cut = True
        reply.close()
    except (LmwrightError, OSError):
        if pieces and not as_json:
            print()
        raise
    reason = conversation.finish_reason
    if as_json:
        said = {"prompt": conversation.asked, "text": "".join(pieces), "is_cut": is_cut}
        print(json.dumps({**said, "finish_reason": reason}), flush=True)
    else:
        is_short = reason == "length"
        limit = f" [max_tokens = {conversation.sampling.max_tokens} reached]" if is_short else ""
        print(" [cut]" if is_cut else limit)
