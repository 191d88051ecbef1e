"""What is said to a model: prompts from a file, and a dialogue with its commands."""

import json
from collections.abc import Callable, Generator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from lmwright.core.errors import DataError, LmwrightError, RequestError, suggestion
from lmwright.data.sources import records
from lmwright.engine.request import FinishReason, Message, Prompt, Sampling
from lmwright.lm import LanguageModel
from lmwright.tokenizer.chat import check_messages

COMMANDS = {
    "/system": "/system TEXT: replace the system message; without TEXT, remove it",
    "/set": "/set temperature=0.7: change how answers are drawn; alone, show it",
    "/retry": "drop the last answer and let the model answer again",
    "/undo": "forget the last question and its answer",
    "/reset": "forget the dialogue (the system message stays)",
    "/save": "/save FILE.jsonl: append the dialogue to FILE, as a line of training data",
    "/help": "show this list",
    "/exit": "leave, as Ctrl-D does; Ctrl-C ends a reply, not the chat",
}
KEYS = "Enter sends; Alt-Enter, or \\ and Enter, begins a new line; Tab completes a command."
# What /set changes: fields of `Sampling`, and how each is read.
SETTINGS: dict[str, Callable[[str], float]] = {
    "temperature": float,
    "max_tokens": int,
    "top_k": int,
    "top_p": float,
    "min_p": float,
    "repetition_penalty": float,
    "seed": int,
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
        # The last question, and why its answer ended (None: it was cut short).
        self.asked = ""
        self.finish_reason: FinishReason | None = None

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
        said, self.asked, self.finish_reason = "", text, None
        self.turns.append({"role": "user", "content": text})
        try:
            for chunk in self.model.stream(self.messages, self.sampling):
                said += chunk.text
                if chunk.completion is not None:
                    self.finish_reason = chunk.completion.finish_reason
                yield chunk.text
        finally:
            if said:
                self.turns.append({"role": "assistant", "content": said})
            else:
                self.turns.pop()

    def retry(self) -> Generator[str]:
        """Ask the last question again, with the next seed; without an answer, keep the old one."""
        kept, question = list(self.turns), self._last_exchange("/retry")[0]["content"]
        del self.turns[-2:]
        self.sampling = replace(self.sampling, seed=(self.sampling.seed + 1) % 2**64)
        try:
            yield from self.reply(question)
        finally:
            if len(self.turns) < len(kept):
                self.turns = kept

    def command(self, line: str) -> str:
        """Obey a line such as `/save FILE` and return what to tell the user."""
        name, rest = (*line.split(maxsplit=1), "")[:2]
        rest = rest.strip()
        obey = {
            "/system": self._set_system,
            "/set": self._set,
            "/undo": self._undo,
            "/reset": self._reset,
            "/save": self._save,
            "/help": _help,
        }.get(name)
        if obey is None:
            known = suggestion(name, COMMANDS)
            raise RequestError(
                f"{name}: no such command{known} (a message may begin with a space and then /)"
            )
        return obey(rest)

    def _set_system(self, text: str) -> str:
        self.system = text or None
        return "system message set" if text else "no system message"

    def _set(self, change: str) -> str:
        if change:
            name, equals, value = (part.strip() for part in change.partition("="))
            if not equals or name not in SETTINGS:
                known = suggestion(name, SETTINGS) if name not in SETTINGS else ""
                raise RequestError(f"/set {change}: expected NAME=VALUE{known}")
            try:
                number = SETTINGS[name](value)
            except ValueError:
                raise RequestError(f"/set {name}: expected a number, not {value!r}") from None
            try:
                self.sampling = replace(self.sampling, **{name: number})
            except ValueError as error:
                raise RequestError(f"/set {error}") from None
        return "  ".join(f"{name}={getattr(self.sampling, name)}" for name in SETTINGS)

    def _undo(self, _: str) -> str:
        question = self._last_exchange("/undo")[0]["content"]
        del self.turns[-2:]
        first_line = question.partition("\n")[0]
        return f"forgotten: {first_line[:60]}"

    def _last_exchange(self, command: str) -> tuple[Message, Message]:
        if not self.turns:
            raise RequestError(f"{command}: nothing was said yet")
        return self.turns[-2], self.turns[-1]

    def _reset(self, _: str) -> str:
        self.turns.clear()
        return "forgotten"

    def _save(self, name: str) -> str:
        # The suffix by which data are read, and so no other file is ever written to.
        if not name.endswith(".jsonl"):
            raise RequestError("/save needs a name that ends in .jsonl, as in /save dialogue.jsonl")
        if not self.turns:
            raise RequestError("/save: nothing was said yet")
        line = json.dumps({"messages": self.messages}, ensure_ascii=False)
        try:
            path = Path(name).expanduser()
            is_new = _append(path, line.encode() + b"\n")
        except (OSError, RuntimeError) as error:
            reason = getattr(error, "strerror", None) or error
            raise LmwrightError(f"cannot write {name}: {reason}; the dialogue goes on") from None
        return f"{'saved' if is_new else 'added'} {len(self.messages)} messages to {path}"


def _append(path: Path, line: bytes) -> bool:
    """Append a line, in one write; return whether the file was empty or not there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab+") as file:
        is_new = file.tell() == 0
        if not is_new:
            file.seek(-1, 2)
            # An editor may have left the last line without its end.
            line = line if file.read(1) == b"\n" else b"\n" + line
        file.write(line)
    return is_new


def _help(_: str) -> str:
    listed = [f"{command:<9} {text}" for command, text in COMMANDS.items()]
    return "\n".join([*listed, KEYS])


def read_prompts(path: Path) -> list[Prompt]:
    """Read a prompt a line; in a .jsonl file each is {"prompt": ...} or {"messages": [...]}."""
    try:
        if path.suffix == ".jsonl":
            found: list[Prompt] = [_prompt(each, where) for _, where, each in records(path)]
        else:
            # Not splitlines, which breaks a prompt at U+2028, too.
            lines = path.read_text(encoding="utf-8-sig").split("\n")
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
    if isinstance(messages := record.get("messages"), list):
        try:
            check_messages(messages)
        except RequestError as error:
            raise DataError(f"{where}: {error}") from None
        return messages
    raise DataError(f'{where}: expected {{"prompt": "..."}} or {{"messages": [...]}}')
