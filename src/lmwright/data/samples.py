"""The two things that dialogue data becomes: samples to train on, questions to test with."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypedDict

from lmwright.core.errors import DataError

ROLES = ("system", "user", "assistant", "tool")
# Who speaks in ShareGPT's `conversations` -> our role.
SPEAKERS = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "assistant": "assistant",
    "system": "system",
    "tool": "tool",
    "observation": "tool",
}


class Turn(TypedDict):
    """One message of a dialogue."""

    role: str
    content: str


@dataclass(frozen=True)
class Sample:
    """A dialogue that ends with the assistant."""

    id: str
    messages: tuple[Turn, ...]


@dataclass(frozen=True)
class Question:
    """A held-out question; a reply that contains one of `accept` is right."""

    id: str
    # Questions for the same fact share it.
    cluster: str
    messages: tuple[Turn, ...]
    accept: tuple[str, ...]


def parse(
    record: Mapping[str, Any], *, where: str, id_: str, system: str | None
) -> tuple[list[Sample], list[Question]]:
    """Read one record of any of the known shapes; `where` is its file and line."""
    for required, reader in SHAPES.values():
        if required <= record.keys():
            return reader(_Record(record, where, id_, system))
    shapes = "; ".join(" + ".join(sorted(required)) for required, _ in SHAPES.values())
    raise DataError(
        f"{where}: the fields {sorted(record)} are none of the known shapes. Expected: {shapes}"
    )


@dataclass(frozen=True)
class _Record:
    """A record with what its errors must say."""

    fields: Mapping[str, Any]
    where: str
    id: str
    system: str | None

    def text(self, key: str, default: str | None = None) -> str:
        # Columns of a table are null where JSON lines have no field.
        value = self.fields.get(key)
        value = default if value is None else value
        if not isinstance(value, str) or (default is None and not value.strip()):
            raise DataError(f"{self.where}: {key} = {value!r}: expected a text that is not empty")
        return value

    def texts(self, key: str) -> list[str]:
        values = self.fields.get(key)
        values = [] if values is None else values
        if not isinstance(values, list) or not all(
            isinstance(v, str) and v.strip() for v in values
        ):
            raise DataError(f"{self.where}: {key}: expected a list of texts, none of them empty")
        return values

    def dialogue(self, *turns: tuple[str, str]) -> tuple[Turn, ...]:
        messages = [Turn(role=role, content=content) for role, content in turns]
        # A record may bring its own.
        system = self.text("system", default="") or self.system
        if system is not None and (not messages or messages[0]["role"] != "system"):
            messages.insert(0, Turn(role="system", content=system))
        return tuple(messages)


def _dialogue(record: _Record) -> tuple[list[Sample], list[Question]]:
    messages = record.fields["messages"]
    if not isinstance(messages, list) or not messages:
        raise DataError(f"{record.where}: messages: expected a list that is not empty")
    turns = []
    for i, message in enumerate(messages):
        if not isinstance(message, dict) or message.get("role") not in ROLES:
            raise DataError(f"{record.where}: messages[{i}]: expected a role of {', '.join(ROLES)}")
        if not isinstance(message.get("content"), str):
            raise DataError(f"{record.where}: messages[{i}]: content is missing or no text")
        turns.append((message["role"], message["content"]))
    return _ended(record, turns), []


def _conversation(record: _Record) -> tuple[list[Sample], list[Question]]:
    """Read ShareGPT's form, in which FastChat and LLaMA-Factory keep dialogues."""
    messages = record.fields["conversations"]
    if not isinstance(messages, list) or not messages:
        raise DataError(f"{record.where}: conversations: expected a list that is not empty")
    turns = []
    for i, message in enumerate(messages):
        here = f"{record.where}: conversations[{i}]"
        if not isinstance(message, dict) or not isinstance(message.get("value"), str):
            raise DataError(f"{here}: expected a `from` and a `value` that is a text")
        speaker = message.get("from")
        if not isinstance(speaker, str) or speaker not in SPEAKERS:
            raise DataError(f"{here}: from = {speaker!r}: expected one of {', '.join(SPEAKERS)}")
        turns.append((SPEAKERS[speaker], message["value"]))
    return _ended(record, turns), []


def _ended(record: _Record, turns: list[tuple[str, str]]) -> list[Sample]:
    """Return a dialogue's sample; it must end with what is to be learnt."""
    if turns[-1][0] != "assistant" or not turns[-1][1].strip():
        raise DataError(
            f"{record.where}: the last message must be the assistant's, and not empty: it is what "
            "the model learns"
        )
    return [Sample(record.id, record.dialogue(*turns))]


def _pair(question: str, answer: str) -> "Reader":
    """Return a reader of records with one field for each side."""

    def read(record: _Record) -> tuple[list[Sample], list[Question]]:
        turns = (("user", record.text(question)), ("assistant", record.text(answer)))
        return [Sample(record.id, record.dialogue(*turns))], []

    return read


def _instruction(record: _Record) -> tuple[list[Sample], list[Question]]:
    # Alpaca (Taori et al. 2023): an instruction, and often a text that it is about.
    task, text = record.text("instruction"), record.text("input", default="")
    prompt = f"{task}\n\n{text}" if text.strip() else task
    turns = [*_history(record), ("user", prompt), ("assistant", record.text("output"))]
    return [Sample(record.id, record.dialogue(*turns))], []


def _history(record: _Record) -> list[tuple[str, str]]:
    """Return the turns before an instruction: LLaMA-Factory's pairs of texts."""
    pairs = record.fields.get("history") or []
    is_pairs = isinstance(pairs, list) and all(
        isinstance(pair, list) and len(pair) == 2 and all(isinstance(text, str) for text in pair)
        for pair in pairs
    )
    if not is_pairs:
        raise DataError(f"{record.where}: history: expected a list of [question, answer]")
    return [turn for asked, said in pairs for turn in (("user", asked), ("assistant", said))]


def _faq(record: _Record) -> tuple[list[Sample], list[Question]]:
    questions, answers = record.texts("questions"), record.texts("answers")
    heldout, accept = record.texts("heldout"), record.texts("accept")
    if not questions or not answers:
        raise DataError(f"{record.where}: questions and answers need at least one text each")
    if heldout and not accept:
        raise DataError(
            f"{record.where}: heldout questions need `accept`, the texts that make a reply right"
        )
    samples = [
        Sample(
            f"{record.id}/{i}",
            record.dialogue(("user", question), ("assistant", answers[i % len(answers)])),
        )
        for i, question in enumerate(questions)
    ]
    tests = [
        Question(
            f"{record.id}/heldout-{i}",
            record.id,
            record.dialogue(("user", question)),
            tuple(accept),
        )
        for i, question in enumerate(heldout)
    ]
    return samples, tests


Reader = Callable[[_Record], tuple[list[Sample], list[Question]]]
# What a record must have to be of a shape, and who reads it.
SHAPES: dict[str, tuple[set[str], Reader]] = {
    "a dialogue": ({"messages"}, _dialogue),
    "a conversation": ({"conversations"}, _conversation),
    "a FAQ entry": ({"questions", "answers"}, _faq),
    "an instruction": ({"instruction", "output"}, _instruction),
    "a completion": ({"prompt", "completion"}, _pair("prompt", "completion")),
    "a response": ({"prompt", "response"}, _pair("prompt", "response")),
    "a question": ({"question", "answer"}, _pair("question", "answer")),
}
