"""Clients parse these shapes blindly: a wrong key is a crash in somebody else's program."""

import json
import math
from typing import Any

from lmwright.engine.request import Chunk, Completion, TokenLogprob
from lmwright.serving.chat import ChatChoices, ChatRequest
from lmwright.serving.completions import CompletionRequest, TextChoices
from lmwright.serving.generation import GenerationReply
from lmwright.serving.schema import read_request

TOKENS = (
    TokenLogprob(1, "\u00e9", -0.5, ((1, "\u00e9", -0.5), (2, "b", -math.inf))),
    TokenLogprob(3, "\ufffd", -1.5, ((4, "c", -0.1),)),
)
DONE = Completion("\u00e9\ufffd", (1, 3), "stop", n_prompt_tokens=4, logprobs=TOKENS)
LAST = Chunk("", completion=DONE)


def chat_reply(**fields: Any) -> GenerationReply:
    body = {"model": "fake", "messages": [{"role": "user", "content": "Hi"}], **fields}
    request = read_request(ChatRequest, body)
    return GenerationReply(ChatChoices(), request, [[1, 2, 3, 4]])


def text_reply(**fields: Any) -> GenerationReply:
    request = read_request(CompletionRequest, {"model": "fake", "prompt": "Hi", **fields})
    return GenerationReply(TextChoices(), request, [[1, 2, 3, 4]])


def test_chat_logprobs() -> None:
    reply = chat_reply()
    (choice,) = reply.whole([(0, LAST)])["choices"]
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
    reply = text_reply()
    (choice,) = reply.whole([(0, LAST)])["choices"]
    assert choice["logprobs"] == {
        "tokens": ["\u00e9", "\ufffd"],
        "token_logprobs": [-0.5, -1.5],
        "top_logprobs": [{"\u00e9": -0.5, "b": -9999.0}, {"\ufffd": -1.5, "c": -0.1}],
        "text_offset": [0, 1],
    }


def test_streamed_text_offsets_go_on_in_each_answer() -> None:
    reply = text_reply()
    offsets = []
    for index, token in [(0, TOKENS[0]), (0, TOKENS[1]), (1, TOKENS[0])]:
        (event,) = reply.events(index, Chunk(token.text, (token,)))
        offsets.append(event["choices"][0]["logprobs"]["text_offset"])
    assert offsets == [[0], [1], [0]]


def test_an_empty_piece_makes_no_event() -> None:
    assert text_reply().events(0, Chunk("")) == []


def test_each_streamed_chat_answer_opens_with_its_role() -> None:
    reply = chat_reply()
    deltas = [
        event["choices"][0]["delta"]
        for index in (0, 1)
        for text in "ab"
        for event in reply.events(index, Chunk(text))
    ]
    opening = {"role": "assistant", "content": ""}
    assert deltas == [opening, {"content": "a"}, {"content": "b"}] * 2


def test_a_stream_ends_with_the_usage_when_all_answers_have_ended() -> None:
    reply = text_reply(stream=True, stream_options={"include_usage": True})
    assert reply.events(0, Chunk("x"))[0]["usage"] is None
    *_, last = reply.events(0, LAST)
    assert last["choices"] == []
    assert last["usage"] == {"prompt_tokens": 4, "completion_tokens": 2, "total_tokens": 6}


def test_all_shapes_are_strict_json() -> None:
    for reply_to in (chat_reply, text_reply):
        reply = reply_to(stream=True, stream_options={"include_usage": True})
        shapes = [
            *reply.events(0, Chunk("x", TOKENS)),
            *reply.events(0, LAST),
            reply.whole([(0, LAST)]),
        ]
        assert len(shapes) >= 4
        for shape in shapes:
            assert json.loads(json.dumps(shape, allow_nan=False)) == shape
