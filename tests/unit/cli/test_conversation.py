"""A chat that forgets or garbles what was said is worse than none."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lmwright.cli.conversation import COMMANDS, Conversation, as_messages, read_prompts
from lmwright.core.errors import DataError, RequestError
from lmwright.engine.request import Chunk, Message, Sampling


class Speaker:
    """Says the words that it was given, and remembers what it was asked."""

    def __init__(self, *words: str) -> None:
        self.words = words
        self.asked: list[list[Message]] = []

    def stream(self, messages: list[Message], sampling: Sampling) -> Iterator[Chunk]:
        self.asked.append(list(messages))
        for word in self.words:
            if word == "fail":
                raise RequestError("too long")
            yield Chunk(word)


def conversation(speaker: Any, system: str | None = None) -> Conversation:
    return Conversation(speaker, Sampling(), system=system)


def test_each_turn_is_given_all_that_was_said_before() -> None:
    speaker = Speaker("I am ", "fine.")
    talk = conversation(speaker, system="Be kind.")
    assert "".join(talk.reply("How are you?")) == "I am fine."
    list(talk.reply("Good."))
    assert speaker.asked[1] == [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "How are you?"},
        {"role": "assistant", "content": "I am fine."},
        {"role": "user", "content": "Good."},
    ]


def test_a_reply_that_is_cut_counts_as_far_as_it_went() -> None:
    talk = conversation(Speaker("one ", "two ", "three"))
    reply = talk.reply("count")
    assert next(reply) + next(reply) == "one two "
    reply.close()
    assert talk.turns[-1] == {"role": "assistant", "content": "one two "}


def test_a_question_without_an_answer_is_forgotten() -> None:
    talk = conversation(Speaker("fail"))
    with pytest.raises(RequestError, match="too long"):
        list(talk.reply("a book"))
    assert talk.turns == []


def test_commands(tmp_path: Path) -> None:
    talk = conversation(Speaker("yes"), system="Be kind.")
    list(talk.reply("Is it?"))
    path = tmp_path / "talk.jsonl"
    assert talk.command(f"/save {path}") == f"saved 3 messages to {path}"
    assert json.loads(path.read_text(encoding="utf-8")) == {"messages": talk.messages}
    talk.command("/reset")
    assert talk.messages == [{"role": "system", "content": "Be kind."}]
    talk.command("/system")
    assert talk.messages == []
    talk.command("/system Be brief.")
    assert talk.system == "Be brief."
    assert all(name in talk.command("/help") for name in COMMANDS)
    with pytest.raises(RequestError, match="/save needs a file name"):
        talk.command("/save")
    with pytest.raises(RequestError, match="did you mean '/reset'"):
        talk.command("/rset")


def test_prompts_are_lines_or_records(tmp_path: Path) -> None:
    text, records = tmp_path / "p.txt", tmp_path / "p.jsonl"
    text.write_text("one\n\n  two\n", encoding="utf-8")
    messages = [{"role": "user", "content": "hi"}]
    lines = [json.dumps({"prompt": "one"}), json.dumps({"messages": messages})]
    records.write_text("\n".join(lines), encoding="utf-8")
    assert read_prompts(text) == ["one", "  two"]
    assert read_prompts(records) == ["one", messages]
    assert as_messages(["hi", messages]) == [messages, messages]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("p.txt", b"\n\n", "no prompts"),
        ("p.txt", b"\xff", "not UTF-8"),
        ("p.jsonl", b'{"prompt": "a"}\n\n{"prompt"', "line 3: not JSON"),
        ("p.jsonl", b'{"text": "a"}', "line 1: expected"),
        ("p.jsonl", b'{"messages": []}', "line 1: expected"),
    ],
)
def test_a_bad_file_of_prompts_is_named_with_its_line(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_prompts(path)
