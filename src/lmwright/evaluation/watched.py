"""A model that tells how far it is with what it was asked, so that a bar moves within a metric."""

from collections.abc import Iterator, Sequence

import numpy as np

from lmwright.core.progress import Bar
from lmwright.engine.info import ModelInfo
from lmwright.engine.request import (
    Chunk,
    Classification,
    Completion,
    Prompt,
    Sampling,
    Score,
    ScoreRequest,
)
from lmwright.lm import LanguageModel
from lmwright.tokenizer.encode import Tokenizer

# Texts of so many characters are scored together: some seconds on a CPU, and enough to fill
# several of the rows that a model makes of them.
SCORE_CHARACTERS = 16_000


class Watched:
    """The methods of a `LanguageModel`; answers are those of the model itself."""

    def __init__(self, model: LanguageModel, progress: Bar) -> None:
        """`progress` counts in metrics; its note names the one that is measured."""
        self.name, self._model, self._progress = model.name, model, progress
        self._note = progress.note

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer that the model was trained with."""
        return self._model.tokenizer

    @property
    def can_chat(self) -> bool:
        """Whether a prompt may be a dialogue."""
        return self._model.can_chat

    @property
    def info(self) -> ModelInfo:
        """Size, number format and context length."""
        return self._model.info

    def encode(self, prompt: Prompt) -> list[int]:
        """Return a prompt as the token ids that the model reads."""
        return self._model.encode(prompt)

    def score(self, requests: Sequence[ScoreRequest]) -> list[Score]:
        """Score each continuation given its context; order is kept."""
        scores: list[Score] = []
        for group in _groups(requests):
            scores += self._model.score(group)
            self._tell(len(scores), len(requests))
        return scores

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[Completion]:
        """Continue each prompt; order is kept."""
        found = dict(self.completions(prompts, sampling))
        return [found[i] for i in range(len(prompts))]

    def completions(
        self, prompts: Sequence[Prompt], sampling: Sampling
    ) -> Iterator[tuple[int, Completion]]:
        """Continue each prompt; yield (its number, from 0, and the answer) as soon as one ends."""
        found = self._model.completions(prompts, sampling)
        for n_done, (number, completion) in enumerate(found, start=1):
            self._tell(n_done, len(prompts))
            yield number, completion

    def stream(self, prompt: Prompt, sampling: Sampling) -> Iterator[Chunk]:
        """Continue one prompt piece by piece."""
        return self._model.stream(prompt, sampling)

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """Return one vector a text."""
        return self._model.embed(texts)

    def classify(
        self, texts: Sequence[str], pairs: Sequence[str] | None = None
    ) -> list[Classification]:
        """Say of each text what the model was taught to."""
        return self._model.classify(texts, pairs)

    def _tell(self, n_done: int, n: int) -> None:
        # One prompt at a time is a timing: there is nothing between its beginning and its end.
        if n > 1:
            self._progress.within(n_done, n, self._note)


def _groups(requests: Sequence[ScoreRequest]) -> Iterator[Sequence[ScoreRequest]]:
    """Yield requests in groups; those of one context stay together, as they share its scores."""
    start = size = 0
    for i, request in enumerate(requests):
        if size >= SCORE_CHARACTERS and request.context != requests[i - 1].context:
            yield requests[start:i]
            start, size = i, 0
        size += len(request.context) + len(request.continuation)
    if start < len(requests):
        yield requests[start:]
