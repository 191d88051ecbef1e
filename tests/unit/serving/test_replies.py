"""Clients parse these shapes blindly: a wrong key is a crash in somebody else's program."""

import json
import math

from lmwright.engine.request import Chunk, Completion, TokenLogprob
from lmwright.serving.replies import ChatReply, TextReply, usage

TOKENS = (
    TokenLogprob(1, "\u00e9", -0.5, ((1, "\u00e9", -0.5), (2, "b", -math.inf))),
    TokenLogprob(3, "\ufffd", -1.5, ((4, "c", -0.1),)),
)
DONE = Completion("\u00e9\ufffd", (1, 3), "stop", n_prompt_tokens=4, logprobs=TOKENS)


def test_chat_logprobs() -> None:
    reply = ChatReply("1", 0, "fake", has_usage=False)
    (choice,) = reply.whole([DONE], usage(4, 2))["choices"]
    assert choice["logprobs"]["content"] == [
        {
            "token": "\u00e9",
            "logprob": -0.5,
            "bytes": [0xC3, 0xA9],
            "top_logprobs": [
                {"token": "\u00e9", "logprob": -0.5, "bytes": [0xC3, 0xA9]},
                {"token": "b", "logprob": -9999.0, "bytes": [98]},
            ],
        },
        {
            "token": "\ufffd",
            "logprob": -1.5,
            # Half a character: its bytes are not known.
            "bytes": None,
            "top_logprobs": [{"token": "c", "logprob": -0.1, "bytes": [99]}],
        },
    ]


def test_text_logprobs() -> None:
    reply = TextReply("1", 0, "fake", has_usage=False)
    (choice,) = reply.whole([DONE], usage(4, 2))["choices"]
    assert choice["logprobs"] == {
        "tokens": ["\u00e9", "\ufffd"],
        "token_logprobs": [-0.5, -1.5],
        "top_logprobs": [{"\u00e9": -0.5, "b": -9999.0}, {"\ufffd": -1.5, "c": -0.1}],
        "text_offset": [0, 1],
    }


def test_streamed_text_offsets_go_on_in_each_answer() -> None:
    reply = TextReply("1", 0, "fake", has_usage=False)
    offsets = []
    for index, token in [(0, TOKENS[0]), (0, TOKENS[1]), (1, TOKENS[0])]:
        (event,) = reply.events(index, Chunk(token.text, (token,)))
        offsets.append(event["choices"][0]["logprobs"]["text_offset"])
    assert offsets == [[0], [1], [0]]


def test_an_empty_piece_makes_no_event() -> None:
    assert TextReply("1", 0, "fake", has_usage=False).events(0, Chunk("")) == []


def test_each_streamed_chat_answer_opens_with_its_role() -> None:
    reply = ChatReply("1", 0, "fake", has_usage=False)
    deltas = [
        event["choices"][0]["delta"]
        for index in (0, 1)
        for text in "ab"
        for event in reply.events(index, Chunk(text))
    ]
    opening = {"role": "assistant", "content": ""}
    assert deltas == [opening, {"content": "a"}, {"content": "b"}] * 2


def test_all_shapes_are_strict_json() -> None:
    for kind in (ChatReply, TextReply):
        reply = kind("1", 0, "fake", has_usage=True)
        shapes = [
            reply.whole([DONE], usage(4, 2)),
            *reply.events(0, Chunk("x", TOKENS)),
            *reply.events(0, Chunk("", completion=DONE)),
            reply.last_event(usage(4, 2)),
        ]
        for shape in shapes:
            assert json.loads(json.dumps(shape, allow_nan=False)) == shape
