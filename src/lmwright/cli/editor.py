"""What a user writes at a terminal: edited, completed, remembered. Imported by `chat` only."""

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

from prompt_toolkit import PromptSession
from prompt_toolkit.completion import CompleteEvent, Completer, Completion, PathCompleter
from prompt_toolkit.document import Document
from prompt_toolkit.enums import DEFAULT_BUFFER
from prompt_toolkit.filters import has_focus
from prompt_toolkit.history import FileHistory, History, InMemoryHistory
from prompt_toolkit.input import Input
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.output import Output

from lmwright.cli.conversation import COMMANDS, SETTINGS


class LineEditor:
    """A prompt with the keys of a shell; a message may have several lines."""

    def __init__(
        self, history: Path, *, input: Input | None = None, output: Output | None = None
    ) -> None:
        """`history` is a file that keeps what was written; it is made if it is missing."""
        prompt = "you> "
        self._session: PromptSession[str] = PromptSession(
            [("bold", prompt)],
            multiline=True,
            prompt_continuation=" " * len(prompt),
            key_bindings=_keys(),
            completer=_Commands(),
            complete_while_typing=False,
            enable_suspend=True,
            history=_open_history(history),
            input=input,
            output=output,
        )

    def read(self) -> str:
        """Return what the user sends; Ctrl-D raises EOFError, Ctrl-C KeyboardInterrupt."""
        text = self._session.prompt()
        # Bytes that are no UTF-8 arrive as lone surrogates, which no tokenizer takes.
        return text.encode(errors="surrogateescape").decode(errors="replace")

    @contextlib.contextmanager
    def hushed(self) -> Iterator[None]:
        """Keep what is typed meanwhile off the screen, whole, for the next `read`."""
        try:
            import termios
        except ImportError:  # Windows
            yield
            return
        terminal = sys.stdin.fileno()
        before = termios.tcgetattr(terminal)
        silent = termios.tcgetattr(terminal)
        # Not by lines either: of those, a terminal keeps 4,095 characters and drops the rest.
        silent[3] &= ~(termios.ECHO | termios.ICANON)
        try:
            termios.tcsetattr(terminal, termios.TCSADRAIN, silent)
            yield
        finally:
            termios.tcsetattr(terminal, termios.TCSADRAIN, before)


class _Commands(Completer):
    """The names of commands and settings, and of files to save to."""

    def get_completions(
        self, document: Document, complete_event: CompleteEvent
    ) -> Iterator[Completion]:
        text = document.text_before_cursor
        name, space, rest = text.partition(" ")
        if not space:
            for command, meaning in COMMANDS.items():
                if text and command.startswith(text):
                    yield Completion(command, -len(text), display_meta=meaning)
        elif name == "/save":
            paths = PathCompleter(expanduser=True, file_filter=_can_hold_dialogues)
            yield from paths.get_completions(Document(rest), complete_event)
        elif name == "/set":
            for setting in SETTINGS:
                if setting.startswith(rest):
                    yield Completion(f"{setting}=", -len(rest))


class _History(FileHistory):
    """What was written earlier; a full disk keeps nobody from writing on."""

    def store_string(self, string: str) -> None:
        with contextlib.suppress(OSError):
            super().store_string(string)


def _open_history(path: Path) -> History:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600)
        path.chmod(0o600)
    except OSError as error:
        reason = f"{path}: {error.strerror or error}"
        print(f"note: what you write is not kept: {reason}", file=sys.stderr)
        return InMemoryHistory()
    return _History(path)


def _can_hold_dialogues(path: str) -> bool:
    return path.endswith(".jsonl") or Path(path).is_dir()


def _keys() -> KeyBindings:
    bindings = KeyBindings()
    is_writing = has_focus(DEFAULT_BUFFER)

    @bindings.add("enter", filter=is_writing)
    def _(event: KeyPressEvent) -> None:
        buffer = event.current_buffer
        if buffer.complete_state and buffer.complete_state.current_completion:
            buffer.complete_state = None
        elif buffer.document.char_before_cursor == "\\":
            buffer.delete_before_cursor()
            buffer.insert_text("\n")
        else:
            buffer.validate_and_handle()

    @bindings.add("escape", "enter", filter=is_writing)
    def _(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")

    return bindings
