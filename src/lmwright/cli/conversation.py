"""What is said to a model: prompts from a file, and a dialogue with its commands."""

import json
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any

from lmwright.core.artifact import replacing
from lmwright.core.errors import DataError, RequestError, suggestion
from lmwright.data.sources import records
from lmwright.engine.request import Message, Prompt, Sampling
from lmwright.lm import LanguageModel

COMMANDS = {
    "/reset": "forget the dialogue (the system message stays)",
    "/system": "/system TEXT: replace the system message; without TEXT, remove it",
    "/save": "/save FILE: write the dialogue as a line of training data",
    "/help": "show this list",
    "/exit": "leave (or Ctrl-D); Ctrl-C ends a reply, not the chat",
}


class Conversation:
    """The turns of a dialogue, one model, and how it samples."""

    def __init__(
        self, model: LanguageModel, sampling: Sampling, *, system: str | None = None
    ) -> None:
        self.model = model
        self.sampling = sampling
        self.system = system
        self.turns: list[Message] = []

    @property
    def messages(self) -> list[Message]:
        """All that the model is given: the system message, if any, and the turns."""
        first: list[Message] = []
        if self.system:
            first.append({"role": "system", "content": self.system})
        return first + self.turns

    def reply(self, text: str) -> Generator[str]:
        """Say something and give the answer piece by piece.

        An answer that is cut short (the iterator is closed, Ctrl-C) counts as far as it went; if
        nothing was said at all, the question is forgotten, too.
        """
        said = ""
        self.turns.append({"role": "user", "content": text})
        try:
            for chunk in self.model.stream(self.messages, self.sampling):
                said += chunk.text
                yield chunk.text
        finally:
            if said:
                self.turns.append({"role": "assistant", "content": said})
            else:
                self.turns.pop()

    def command(self, line: str) -> str:
        """Obey a line such as `/save FILE` and return what to tell the user."""
        name, _, rest = line.strip().partition(" ")
        rest = rest.strip()
        if name == "/reset":
            self.turns.clear()
            return "forgotten"
        if name == "/system":
            self.system = rest or None
            return "system message set" if rest else "no system message"
        if name == "/save":
            return self._save(rest)
        if name == "/help":
            return "\n".join(f"{command:<9} {text}" for command, text in COMMANDS.items())
        raise RequestError(f"{name}: no such command{suggestion(name, COMMANDS)}")

    def _save(self, name: str) -> str:
        if not name:
            raise RequestError("/save needs a file name: /save dialogue.jsonl")
        line = json.dumps({"messages": self.messages}, ensure_ascii=False)
        with replacing(Path(name)) as temporary:
            temporary.write_text(line + "\n", encoding="utf-8")
        return f"saved {len(self.messages)} messages to {name}"


def read_prompts(path: Path) -> list[Prompt]:
    """Read a prompt a line; in a .jsonl file each is {"prompt": ...} or {"messages": [...]}."""
    try:
        if path.suffix == ".jsonl":
            found: list[Prompt] = [_prompt(each, where) for _, where, each in records(path)]
        else:
            lines = path.read_text(encoding="utf-8").splitlines()
            found = [line for line in lines if line.strip()]
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 (byte {error.start})") from None
    if not found:
        raise DataError(f"{path}: no prompts in it; expected one a line")
    return found


def as_messages(prompts: Sequence[Prompt]) -> list[Prompt]:
    """Turn plain text into what a user says; dialogues stay as they are."""
    return [[Message(role="user", content=p)] if isinstance(p, str) else p for p in prompts]


def _prompt(record: dict[str, Any], where: str) -> Prompt:
    if isinstance(text := record.get("prompt"), str):
        return text
    if isinstance(messages := record.get("messages"), list) and messages:
        return messages
    raise DataError(f'{where}: expected {{"prompt": "..."}} or {{"messages": [...]}}')
