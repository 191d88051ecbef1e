"""A language model of a few lines, for servers under test; run as a script it is served."""

import logging
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from lmwright.core.errors import RequestError
from lmwright.engine.request import (
    Chunk,
    Completion,
    Sampling,
    Score,
    ScoreRequest,
    TokenLogprob,
)
from lmwright.lm import ModelInfo
from lmwright.serving.app import serve
from lmwright.tokenizer.stream import StreamDecoder

ALPHABET = "abcdefghijklmnopqrstuvwxyz"


class ByteTokenizer:
    """A token is a byte."""

    vocab_size = 256

    def encode(self, text: str) -> list[int]:
        return list(text.encode())

    def decode(self, ids: Sequence[int]) -> str:
        return bytes(ids).decode(errors="replace")

    def token(self, id_: int) -> str:
        return self.decode([id_])

    def stream(self) -> StreamDecoder:
        return StreamDecoder(self.decode)

    def chat(self, messages: Sequence[Any]) -> list[int]:
        if messages[0]["role"] == "assistant":
            raise RequestError("the chat template refuses this dialogue: user first")
        return self.encode("".join(f"{m['role']}: {m['content']}\n" for m in messages))


class FakeModel:
    """Recites the alphabet from the letter that the seed gives; greedy starts at "a".

    A prompt with "explode" raises, one with "refuse" is refused; "slow" waits at each token.
    """

    name = "fake"
    tokenizer = ByteTokenizer()
    encode = tokenizer.encode
    info = ModelInfo("Fake", 0, 0, 0.0, context_length=2000, dtype="fp32", device="cpu")

    def __init__(self) -> None:
        self.n_streamed = self.n_scored = 0
        self.samplings: list[Sampling] = []

    def stream(self, prompt: Sequence[int], sampling: Sampling) -> Iterator[Chunk]:
        text = self.tokenizer.decode(prompt)
        self.samplings.append(sampling)
        if "refuse" in text:
            raise RequestError("this prompt cannot be continued")
        tokens: list[TokenLogprob] = []
        start = sampling.seed if sampling.temperature else 0
        reason = "length"
        for i in range(start, start + sampling.max_tokens):
            if "slow" in text:
                time.sleep(0.02)
            if "explode" in text and tokens:
                raise RuntimeError(f"cannot go on after {text}")
            letter = ALPHABET[i % 26]
            if letter in sampling.stop:
                reason = "stop"
                break
            self.n_streamed += 1
            top = ((65, "A", -2.0), (66, "B", -np.inf))[: sampling.logprobs or 0]
            tokens.append(TokenLogprob(ord(letter), letter, -0.5, top))
            shown = (tokens[-1],) if sampling.logprobs is not None else ()
            yield Chunk(letter, shown)
        done = Completion(
            "".join(token.text for token in tokens),
            tuple(token.token_id for token in tokens),
            "stop" if reason == "stop" else "length",
            n_prompt_tokens=len(prompt),
            logprobs=tuple(tokens) if sampling.logprobs is not None else (),
        )
        yield Chunk("", completion=done)

    def generate(self, prompts: Sequence[Any], sampling: Sampling) -> list[Completion]:
        raise AssertionError("a server streams")

    def score(self, requests: Sequence[ScoreRequest]) -> list[Score]:
        """Each token is the likelier, the smaller it is; a zero always comes."""
        return [self._score(request) for request in requests]

    def _score(self, request: ScoreRequest) -> Score:
        ids = [int(id_) for id_ in request.continuation]
        self.n_scored += len(ids)
        top = tuple(((0, 0.0), (66, -6.6))[: request.n_top] for _ in ids)
        return Score(tuple(ids), np.array(ids) / -10, is_greedy=False, top=top)

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        if any("explode" in text for text in texts):
            raise RuntimeError("cannot embed this")
        return np.array([[len(text), 0.5] for text in texts], dtype=np.float32)


class SmallModel(FakeModel):
    """The same with a context of 40 tokens."""

    info = replace(FakeModel.info, context_length=40)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, stream=sys.stderr)
    serve(FakeModel(), port=0, api_key=sys.argv[1] if len(sys.argv) > 1 else None)
