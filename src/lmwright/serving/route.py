"""What an endpoint is: its URL, its request, what that asks of the model, and its reply."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Generic, Literal, cast

from lmwright.core.errors import ContextLengthError
from lmwright.engine.request import Message, Prompt, Sampling
from lmwright.lm import LocalModel
from lmwright.serving import limits
from lmwright.serving.schema import R

# JSON that goes out.
Json = dict[str, Any]
# The number of an answer, and what the model gives of it: a Chunk, or what a call returned.
Piece = tuple[int, object]


@dataclass(frozen=True)
class Generation:
    """Answers that continue one prompt, which the engine reads once for all of them."""

    prompt_ids: Sequence[int]
    samplings: Sequence[Sampling]


@dataclass(frozen=True)
class Submission:
    """What a valid request asks of the model, and how the response is made of what comes."""

    # Returns the response that all pieces make, in the order in which they came.
    whole: Callable[[Sequence[Piece]], Json]
    # Run in the model's thread, one between two steps of the engine: each one delays all requests
    # that run, so it must be bounded. The i-th returns pieces of answer i.
    calls: Sequence[Callable[[], Iterable[object]]] = ()
    # Start when the calls are done; their answers are numbered in order.
    generations: Sequence[Generation] = ()
    # Returns what a stream carries for a piece; None: the response is not streamed.
    events: Callable[[int, object], list[Json]] | None = None


@dataclass(frozen=True)
class Document:
    """What goes out as it is: a page, a script, a picture."""

    content: bytes
    media_type: str
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Served:
    """The model that is served, and since when (seconds since 1970)."""

    model: LocalModel
    created: int

    def encode(self, prompt: Prompt) -> list[int]:
        """Return the token ids of what is only read: it may fill the whole context."""
        self.check_size(prompt)
        ids, context_length = self.model.encode(prompt), self.model.info.context_length
        if context_length is not None and len(ids) > context_length:
            raise ContextLengthError(
                f"a text has {len(ids)} tokens; this model reads {context_length}"
            )
        return ids

    def check_size(self, prompt: Prompt) -> None:
        """Refuse what cannot fit the context before it is encoded, which may take seconds."""
        context_length = self.model.context_length
        if isinstance(prompt, str):
            n = len(prompt)
        elif prompt and isinstance(prompt[0], Mapping):
            n = sum(len(cast(Message, message)["content"]) for message in prompt)
        else:
            if len(prompt) > context_length:
                raise ContextLengthError(
                    f"a prompt of {len(prompt):,} tokens; this model reads {context_length:,}."
                    " Shorten it"
                )
            return
        n_most = context_length * self.n_characters_of_longest
        if n > n_most:
            raise ContextLengthError(
                f"a prompt of {n:,} characters; this model reads {context_length:,} tokens, which"
                f" hold {n_most:,} characters at most. Shorten it"
            )

    @cached_property
    def n_characters_of_longest(self) -> int:
        """How many characters a token stands for at most."""
        tokenizer = self.model.tokenizer
        longest = max(len(tokenizer.token(id_)) for id_ in range(tokenizer.n_ids))
        return max(longest, limits.MIN_CHARACTERS_OF_LONGEST)


@dataclass(frozen=True)
class Route(Generic[R]):
    """One endpoint."""

    method: Literal["GET", "POST"]
    # As starlette writes it: what it captures are the fields of a GET's request.
    path: str
    # Validates the request, or answers it with a 400; a POST's fields come from its JSON body.
    request: type[R]
    # Returns the response itself, or what the model must do for it; a RequestError is a 400. A
    # POST is planned outside of the event loop, where texts may be encoded; a GET within it.
    plan: Callable[[R, Served], Submission | Json | Document]
    max_body_bytes: int = limits.MAX_BODY_BYTES
    # Whether the API key is asked for, if there is one.
    needs_key: bool = True
