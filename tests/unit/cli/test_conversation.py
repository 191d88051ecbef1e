"""A chat that forgets or garbles what was said is worse than none."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lmwright.cli.conversation import COMMANDS, Conversation, as_messages, read_prompts
from lmwright.core.errors import DataError, LmwrightError, RequestError
from lmwright.data.sources import records
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
    list(talk.reply("Sure?"))
    assert talk.command("/undo") == "forgotten: Sure?"
    assert len(talk.turns) == 2
    talk.command("/reset")
    assert talk.messages == [{"role": "system", "content": "Be kind."}]
    talk.command("/system")
    assert talk.messages == []
    talk.command("/system Be brief.")
    assert talk.system == "Be brief."
    assert all(name in talk.command("/help") for name in COMMANDS)
    for line in ("/save", "/save notes.txt"):
        with pytest.raises(RequestError, match=r"/save needs a name that ends in \.jsonl"):
            talk.command(line)
    for line in ("/save talk.jsonl", "/undo"):
        with pytest.raises(RequestError, match="nothing was said yet"):
            talk.command(line)
    with pytest.raises(RequestError, match="did you mean '/reset'"):
        talk.command("/rset")


def test_saving_again_adds_a_line_and_loses_none(tmp_path: Path) -> None:
    path = tmp_path / "talk.jsonl"
    # The last line as some editors leave it.
    path.write_text('{"messages": []}', encoding="utf-8")
    talk = conversation(Speaker("yes \u00e9\u2028"))
    for question in ("one", "two"):
        list(talk.reply(question))
        assert talk.command(f"/save {path}").startswith("added ")
    saved = [record for _, _, record in records(path)]
    assert [len(each["messages"]) for each in saved] == [0, 2, 4]


@pytest.mark.parametrize("name", ["no-such-file/x.jsonl/y.jsonl", "~nosuchuser/x.jsonl"])
def test_a_file_that_cannot_be_written_leaves_the_dialogue(name: str, tmp_path: Path) -> None:
    (tmp_path / "no-such-file").mkdir()
    (tmp_path / "no-such-file" / "x.jsonl").touch()
    talk = conversation(Speaker("yes"))
    list(talk.reply("Is it?"))
    place = name if name.startswith("~") else str(tmp_path / name)
    with pytest.raises(LmwrightError, match=r"cannot write .*; the dialogue goes on"):
        talk.command(f"/save {place}")
    assert len(talk.turns) == 2


def test_set_changes_how_answers_are_drawn() -> None:
    talk = conversation(Speaker("yes"))
    assert "temperature=0.7" in talk.command("/set temperature=0.7")
    assert talk.command("/set max_tokens = 9").startswith("temperature=0.7  max_tokens=9  ")
    assert (talk.sampling.temperature, talk.sampling.max_tokens) == (0.7, 9)
    for change, told in {
        "temperature=-1": "/set temperature = -1.0: expected 0 to 100",
        "temperature=hot": "/set temperature: expected a number, not 'hot'",
        "max_tokens=1.5": "/set max_tokens: expected a number, not '1.5'",
        "temprature=1": "did you mean 'temperature'",
        "temperature": "expected NAME=VALUE",
    }.items():
        with pytest.raises(RequestError, match=told):
            talk.command(f"/set {change}")
    assert talk.sampling.temperature == 0.7


def test_a_retry_replaces_the_last_answer_and_draws_anew() -> None:
    speaker = Speaker("first")
    talk = conversation(speaker)
    list(talk.reply("hi"))
    speaker.words = ("second",)
    assert list(talk.retry()) == ["second"]
    assert [turn["content"] for turn in talk.turns] == ["hi", "second"]
    assert (len(speaker.asked[1]), talk.sampling.seed) == (1, 1)
    speaker.words = ("fail",)
    with pytest.raises(RequestError, match="too long"):
        list(talk.retry())
    assert [turn["content"] for turn in talk.turns] == ["hi", "second"]
    with pytest.raises(RequestError, match="/retry: nothing was said yet"):
        list(conversation(speaker).retry())


def test_prompts_are_lines_or_records(tmp_path: Path) -> None:
    text, lines_path = tmp_path / "p.txt", tmp_path / "p.jsonl"
    text.write_text("\ufeffone\n\n  two\u2028three\n", encoding="utf-8")
    messages = [{"role": "user", "content": "hi"}]
    lines = [json.dumps({"prompt": "one"}), json.dumps({"messages": messages})]
    lines_path.write_text("\n".join(lines), encoding="utf-8")
    assert read_prompts(text) == ["one", "  two\u2028three"]
    assert read_prompts(lines_path) == ["one", messages]
    assert as_messages(["hi", messages]) == [messages, messages]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("p.txt", b"\n\n", "no prompts"),
        ("p.txt", b"\xff", "not UTF-8"),
        ("p.jsonl", b'{"prompt": "a"}\n\n{"prompt"', "line 3: not JSON"),
        ("p.jsonl", b'{"text": "a"}', "line 1: expected"),
        ("p.jsonl", b'{"messages": []}', "line 1: messages is empty"),
        ("p.jsonl", b'{"messages": [5]}', r"line 1: messages\[0\] = 5: expected a role"),
        ("p.jsonl", b'{"messages": [{"role": "me", "content": ""}]}', r"messages\[0\].role = 'me'"),
        ("p.jsonl", b'{"messages": [{"role": "user"}]}', r"messages\[0\].content is NoneType"),
    ],
)
def test_a_bad_file_of_prompts_is_named_with_its_line(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_prompts(path)
