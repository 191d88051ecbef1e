"""A hosted model as a `LanguageModel`: what goes into a request, and what it cannot do."""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, cast

import numpy as np

from lmwright.core.errors import RequestError, UnsupportedError
from lmwright.engine.info import ModelInfo
from lmwright.engine.request import (
    Chunk,
    Classification,
    Completion,
    Message,
    Prompt,
    Sampling,
    Score,
    ScoreRequest,
)
from lmwright.hosted import replies
from lmwright.hosted.address import parse
from lmwright.hosted.client import Client, Inquiry
from lmwright.hosted.config import Hosted
from lmwright.hosted.errors import NoLogprobsError
from lmwright.hosted.usage import Usage
from lmwright.tokenizer.encode import Tokenizer

CHAT, TEXT, EMBEDDINGS = "/chat/completions", "/completions", "/embeddings"
# What OpenAI's API does not know: sent where it is asked for, as vLLM and others understand it.
EXTENSIONS = ("top_k", "min_p", "repetition_penalty", "ignore_eos")


class HostedModel:
    """A model behind an OpenAI-compatible endpoint; mostly the ids of its tokens are UNKNOWN."""

    def __init__(self, model: str, config: Hosted, *, name: str | None = None) -> None:
        """`model` is openai:MODEL[@URL]; prices are looked up by `name` (by default the same)."""
        self.name = name or model
        self.address = parse(model)
        self._client = Client(self.name, self.address, config=config)
        # Why nothing can be scored, once the endpoint has shown it.
        self._no_logprobs: str | None = None

    @property
    def usage(self) -> Usage:
        """What was asked of the endpoint so far, and what that costs."""
        return self._client.usage

    @property
    def tokenizer(self) -> Tokenizer:
        """Raise: an endpoint does not show its tokenizer."""
        raise UnsupportedError(
            f"{self.name}: a hosted model does not show its tokenizer, and this needs it",
            reason="the endpoint does not show its tokenizer",
        )

    def encode(self, prompt: Prompt) -> list[int]:  # noqa: ARG002
        """Raise: only the endpoint knows its tokens."""
        return self.tokenizer.encode("")

    @property
    def can_chat(self) -> bool:
        """Whether a prompt may be a dialogue: an endpoint has a chat template or says so."""
        return True

    @property
    def info(self) -> ModelInfo:
        """Nothing: an endpoint can change what is behind a name, so nothing is guessed from it."""
        return ModelInfo(None, None, None, None, None, None, None)

    def score(self, requests: Sequence[ScoreRequest]) -> list[Score]:
        """Score each continuation given its context, both of them text; order is kept.

        A token that reaches over the border between them counts as continuation. An endpoint that
        gives no log-probabilities of a given text raises `NoLogprobsError`.
        """
        if self._no_logprobs is None:
            try:
                return self._client.ask_all(TEXT, [self._scoring(each) for each in requests])
            except NoLogprobsError as error:
                self._no_logprobs = error.why
            except UnsupportedError as error:
                self._no_logprobs = error.reason
            except RequestError as error:
                # "echo" or "logprobs" refused, by OpenAI's last text model and by some servers.
                if not any(word in str(error) for word in ("echo", "logprobs")):
                    raise
                self._no_logprobs = f"the endpoint said: {error}"
        raise NoLogprobsError(self.name, self._no_logprobs)

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[Completion]:
        """Continue each prompt; order is kept."""
        completions = dict(self.completions(prompts, sampling))
        return [completions[i] for i in range(len(prompts))]

    def completions(
        self, prompts: Sequence[Prompt], sampling: Sampling
    ) -> Iterator[tuple[int, Completion]]:
        """Continue each prompt; yield (its number, from 0, and the answer) as soon as one ends."""
        for path in (CHAT, TEXT):
            numbers = [i for i, prompt in enumerate(prompts) if _path(prompt) == path]
            read = partial(replies.completion, name=self.name)
            inquiries = [(self._body(prompts[i], sampling), read) for i in numbers]
            yield from zip(numbers, self._client.ask_each(path, inquiries), strict=True)

    def stream(self, prompt: Prompt, sampling: Sampling) -> Iterator[Chunk]:
        """Continue one prompt piece by piece, as the endpoint cuts it."""
        events = self._client.stream(_path(prompt), self._body(prompt, sampling))
        return replies.chunks(events, name=self.name)

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """Return one vector a text, (N, d_model) float32, as the endpoint makes it."""
        # Not base64, the library's default, which fewer endpoints know.
        read = partial(replies.vector, name=self.name)
        inquiries = [({"input": text, "encoding_format": "float"}, read) for text in texts]
        vectors = self._client.ask_all(EMBEDDINGS, inquiries)
        if len({len(vector) for vector in vectors}) > 1:
            raise replies.broken(self.name, "vectors of different lengths")
        return np.stack(vectors) if vectors else np.zeros((0, 0), dtype=np.float32)

    def classify(
        self,
        texts: Sequence[str],  # noqa: ARG002
        pairs: Sequence[str] | None = None,  # noqa: ARG002
    ) -> list[Classification]:
        """Raise: an endpoint writes and embeds, and has no classes."""
        raise UnsupportedError(
            f"{self.name}: a hosted model has no head that classifies; ask it in words, with "
            "generate",
            reason="the endpoint has no head that classifies",
        )

    def _scoring(self, request: ScoreRequest) -> Inquiry[Score]:
        context, continuation = request.context, request.continuation
        if not isinstance(context, str) or not isinstance(continuation, str):
            raise UnsupportedError(
                f"{self.name}: a hosted model scores text after text; dialogues and token ids "
                "would need its tokenizer",
                reason="the endpoint does not show its tokenizer",
            )
        if not continuation:
            raise RequestError("score: the continuation is empty; nothing to score")
        # Not max_tokens 0, which some endpoints take for "as many as you like".
        settings = {"echo": True, "max_tokens": 1, "temperature": 0}
        body = {"prompt": context + continuation, "logprobs": max(1, request.n_top), **settings}
        texts = context, continuation
        return body, partial(replies.score, name=self.name, texts=texts, n_top=request.n_top)

    def _body(self, prompt: Prompt, sampling: Sampling) -> dict[str, Any]:
        """Return a request without the model's name: what is not the default, and no more."""
        if not len(prompt):
            raise RequestError("the prompt is empty")
        if sampling.n_beams > 1:
            raise UnsupportedError(
                f"{self.name}: n_beams = {sampling.n_beams}: an endpoint does not search with "
                "beams; leave it at 1",
                reason="the endpoint does not search with beams",
            )
        is_chat = _path(prompt) == CHAT
        # OpenAI's newer models refuse the older name, other endpoints know only that one.
        body: dict[str, Any] = {"temperature": sampling.temperature}
        limit = "max_completion_tokens" if is_chat and self.address.is_openai else "max_tokens"
        if sampling.max_tokens is not None:
            body[limit] = sampling.max_tokens
        if is_chat:
            body["messages"] = [dict(message) for message in cast(Sequence[Message], prompt)]
        else:
            body["prompt"] = prompt if isinstance(prompt, str) else [int(id_) for id_ in prompt]  # pyright: ignore[reportArgumentType]
        if sampling.logprobs is not None:
            wanted = {"logprobs": True, "top_logprobs": sampling.logprobs}
            body |= wanted if is_chat else {"logprobs": sampling.logprobs}
        if sampling.stop:
            body["stop"] = list(sampling.stop)
        default = Sampling()
        for key in ("top_p", "seed", *EXTENSIONS):
            if (value := getattr(sampling, key)) != getattr(default, key):
                body[key] = value
        return body


def _path(prompt: Prompt) -> str:
    is_chat = not isinstance(prompt, str) and len(prompt) and isinstance(prompt[0], dict)
    return CHAT if is_chat else TEXT
