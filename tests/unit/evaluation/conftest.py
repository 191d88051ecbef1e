"""A language model of plain arithmetic: bytes are tokens, replies come from a table."""

import time
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pytest

from lmwright.engine.request import Chunk, Completion, Prompt, Sampling, Score, ScoreRequest
from lmwright.lm import ModelInfo


class ByteTokenizer:
    """One token a byte."""

    def encode(self, text: str, *, add_bos: bool = True) -> list[int]:
        return list(text.encode())

    def decode(self, ids: Sequence[int], *, skip_special: bool = True) -> str:
        return bytes(ids).decode(errors="replace")


class FakeModel:
    """Answers to the protocol of `LanguageModel` without weights."""

    def __init__(
        self,
        name: str = "fake",
        *,
        # Nats for each byte of a continuation that holds the word.
        likes: Mapping[str, float] | None = None,
        replies: Mapping[str, str] | None = None,
        # Added to each log-probability of a request in a batch, which must not happen.
        batch_error: float = 0.0,
        dtype: str = "float32",
        seconds_per_token: float = 2e-5,
        context_length: int = 2048,
    ) -> None:
        self.name = name
        self.tokenizer = ByteTokenizer()
        self.info = ModelInfo("fake", 1000, 4000, 32.0, context_length, dtype, "cpu")
        self.likes = likes or {}
        self.replies = replies or {}
        self.batch_error = batch_error
        self.seconds_per_token = seconds_per_token
        self.n_calls = 0

    def score(self, requests: Sequence[ScoreRequest]) -> list[Score]:
        self.n_calls += 1
        error = self.batch_error if len(requests) > 1 else 0.0
        return [self._score(request, error) for request in requests]

    def _score(self, request: ScoreRequest, error: float) -> Score:
        ids = self.tokenizer.encode(request.continuation)
        liked = sum(nats for word, nats in self.likes.items() if word in request.continuation)
        logprobs = np.array([-1.0 - (id_ % 7) / 10 for id_ in ids]) + liked
        logprobs[0] += error
        return Score(tuple(ids), logprobs, is_greedy=False)

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[Completion]:
        self.n_calls += 1
        return [self._complete(prompt, sampling) for prompt in prompts]

    def completions(
        self, prompts: Sequence[Prompt], sampling: Sampling
    ) -> Iterator[tuple[int, Completion]]:
        yield from enumerate(self.generate(prompts, sampling))

    def _complete(self, prompt: Prompt, sampling: Sampling) -> Completion:
        if sampling.ignore_eos:
            time.sleep((len(prompt) + 4 * sampling.max_tokens) * self.seconds_per_token)
            ids = [97] * sampling.max_tokens
        else:
            question = prompt[-1]["content"]
            ids = self.tokenizer.encode(self.replies.get(question, "Here you are."))
        return Completion(self.tokenizer.decode(ids), tuple(ids), "stop", len(prompt))

    def stream(self, prompt: Prompt, sampling: Sampling) -> Iterator[Chunk]:
        [completion] = self.generate([prompt], sampling)
        yield Chunk(completion.text, completion=completion)

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        return np.array([[len(text)] for text in texts], dtype=np.float32)


@pytest.fixture
def make_model():
    """Return the class of the fake model, to be called with its habits."""
    return FakeModel
