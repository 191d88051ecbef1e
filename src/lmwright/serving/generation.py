"""What chats and completions share: how to sample, the answers of a prompt, and the reply."""

import math
import secrets
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any, ClassVar, Literal, Protocol, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from lmwright.engine.request import Chunk, Completion, Prompt, Sampling
from lmwright.serving import limits
from lmwright.serving.errors import invalid
from lmwright.serving.route import Generation, Json, Piece, Served
from lmwright.serving.schema import ApiRequest, Body, Off

# JSON has no minus infinity; OpenAI writes this for a token that cannot come.
IMPOSSIBLE = -9999.0


def _stops(value: Any) -> Any:
    stops = [value] if isinstance(value, str) else value
    if isinstance(stops, list) and not all(
        isinstance(stop, str) and 1 <= len(stop) <= limits.MAX_STOP_CHARACTERS for stop in stops
    ):
        raise ValueError(f"expected strings of 1 to {limits.MAX_STOP_CHARACTERS} characters")
    return stops


def _temperature(value: float) -> float:
    if 0 < value < limits.MIN_TEMPERATURE:
        raise ValueError(f"expected 0 (greedy) or at least {limits.MIN_TEMPERATURE}")
    return value


class StreamOptions(Body):
    """What a stream carries besides the text."""

    include_usage: bool = False
    include_obfuscation: Literal[False] | None = None


class GenerationRequest(ApiRequest):
    """Absent fields are OpenAI's defaults (temperature 1); top_k and the next two are extensions.

    An absent max_tokens is the rest of the context, at most the engine's default.
    """

    OFF: ClassVar[Off] = {"frequency_penalty": (0,), "presence_penalty": (0,), "logit_bias": ({},)}

    max_tokens: int | None = Field(None, ge=1)
    temperature: Annotated[
        float, Field(ge=0, le=limits.MAX_TEMPERATURE), AfterValidator(_temperature)
    ] = 1.0
    top_p: float = Field(1.0, gt=0, le=1)
    n: int = Field(1, ge=1, le=limits.MAX_N)
    stop: Annotated[
        list[str] | None, Field(max_length=limits.MAX_STOPS), BeforeValidator(_stops)
    ] = None
    seed: int | None = Field(None, ge=0, lt=2**64)
    stream: bool = False
    stream_options: StreamOptions | None = None
    top_k: int = Field(0, ge=0, le=limits.MAX_TOP_K)
    min_p: float = Field(0.0, ge=0, le=1)
    repetition_penalty: float = Field(1.0, ge=0.1, le=10)

    def sampling(self, max_tokens: int | None, *, n_logprobs: int | None) -> Sampling:
        """Return how to sample the first answer."""
        return Sampling(
            max_tokens=max_tokens,
            temperature=self.temperature,
            top_k=self.top_k,
            top_p=self.top_p,
            min_p=self.min_p,
            repetition_penalty=self.repetition_penalty,
            stop=tuple(self.stop or ()),
            seed=secrets.randbits(63) if self.seed is None else self.seed,
            logprobs=n_logprobs,
        )

    @model_validator(mode="after")
    def _options_need_a_stream(self) -> Self:
        if self.stream_options is not None and not self.stream:
            raise invalid("stream_options", "only allowed with stream = true")
        return self


def answers(served: Served, prompt: Prompt, sampling: Sampling, *, n: int) -> Generation:
    """Return n answers to a prompt, the first of which is what n = 1 would give."""
    served.check_size(prompt)
    admitted = served.model.admit(prompt, sampling)
    seeds = [(sampling.seed + i) % 2**64 for i in range(n)]
    return Generation(
        admitted.prompt_ids, [replace(admitted.sampling, seed=seed) for seed in seeds]
    )


class Choices(Protocol):
    """How one endpoint writes its answers; remembers what was streamed of each."""

    # What its ids begin with, and its objects' names: of a whole response, and of an event.
    ID: ClassVar[str]
    OBJECTS: ClassVar[tuple[str, str]]

    def whole(self, number: int, done: Completion) -> Json:
        """Return a finished answer."""
        ...

    def streamed(self, number: int, piece: object) -> list[Json]:
        """Return what a stream carries of a piece."""
        ...


class GenerationReply:
    """The response around its choices: id, time, model and usage."""

    def __init__(
        self, choices: Choices, request: GenerationRequest, prompts: Sequence[Sequence[int]]
    ) -> None:
        self._choices, options = choices, request.stream_options
        self._wants_usage = options is not None and options.include_usage
        # A prompt's tokens count once, however many answers it gets.
        self._n_prompt_tokens, self._n_answers = sum(map(len, prompts)), len(prompts) * request.n
        self._head = {
            "id": f"{choices.ID}-{secrets.token_hex(12)}",
            "created": int(time.time()),
            "model": request.model,
        }
        self._done: dict[int, Completion] = {}

    def events(self, number: int, piece: object) -> list[Json]:
        """Return what a stream carries for a piece of an answer."""
        head = {**self._head, "object": self._choices.OBJECTS[1]}
        # A stream that ends with the usage carries null for it until then.
        usage = {"usage": None} if self._wants_usage else {}
        streamed = self._choices.streamed(number, piece)
        events = [{**head, "choices": [choice], **usage} for choice in streamed]
        if isinstance(piece, Chunk) and piece.completion is not None:
            self._done[number] = piece.completion
            if self._wants_usage and len(self._done) == self._n_answers:
                events.append({**head, "choices": [], "usage": self._usage()})
        return events

    def whole(self, pieces: Sequence[Piece]) -> Json:
        """Return the response that all pieces make."""
        for piece in pieces:
            self.events(*piece)
        choices = [self._choices.whole(number, done) for number, done in sorted(self._done.items())]
        head = {**self._head, "object": self._choices.OBJECTS[0]}
        return {**head, "choices": choices, "usage": self._usage()}

    def _usage(self) -> dict[str, int]:
        n_tokens = sum(len(done.token_ids) for done in self._done.values())
        return {
            "prompt_tokens": self._n_prompt_tokens,
            "completion_tokens": n_tokens,
            "total_tokens": self._n_prompt_tokens + n_tokens,
        }


def finite(logprob: float) -> float | None:
    """Return a log-probability as JSON holds it; the first token of a prompt has none (NaN)."""
    if math.isnan(logprob):
        return None
    return logprob if math.isfinite(logprob) else IMPOSSIBLE
