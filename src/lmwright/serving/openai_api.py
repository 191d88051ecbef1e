"""OpenAI's requests, validated strictly: what is not honoured is refused.

Absent fields mean what they mean at OpenAI (temperature 1, top_p 1, n 1); an absent max_tokens is
the rest of the context, at most DEFAULT_MAX_TOKENS. Extensions: top_k, min_p, repetition_penalty.
"""

from collections.abc import Iterable
from typing import Annotated, Any, ClassVar, Literal, Self, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    FailFast,
    Field,
    ValidationError,
    model_validator,
)

from lmwright.core.errors import suggestion
from lmwright.engine.request import Message as Turn
from lmwright.engine.request import Sampling
from lmwright.serving import limits
from lmwright.serving.errors import ApiError, echo

# Accepted and ignored: they say who asks and how to account for it, not what to answer.
IGNORED = frozenset(
    {
        "metadata",
        "parallel_tool_calls",
        "prompt_cache_key",
        "prompt_cache_retention",
        "safety_identifier",
        "service_tier",
        "store",
        "user",
    }
)

# Fields of OpenAI's API that would change the answer and are not honoured here: only null and the
# values that switch them off are accepted.
Off = dict[str, tuple[Any, ...]]
COMMON_OFF: Off = {"frequency_penalty": (0,), "presence_penalty": (0,), "logit_bias": ({},)}
CHAT_OFF: Off = {
    **COMMON_OFF,
    "audio": (),
    "function_call": ("none",),
    "functions": ([],),
    "modalities": (["text"],),
    "prediction": (),
    "reasoning_effort": ("none",),
    "response_format": ({"type": "text"},),
    "tool_choice": ("none", "auto"),
    "tools": ([],),
    "verbosity": ("medium",),
    "web_search_options": (),
}
COMPLETION_OFF: Off = {**COMMON_OFF, "best_of": (1,), "suffix": ("",)}
EMBEDDING_OFF: Off = {"dimensions": ()}
# An assistant's message that a client sends back brings these along.
MESSAGE_OFF: Off = {
    "annotations": ([],),
    "audio": (),
    "function_call": (),
    "name": (),
    "refusal": (),
    "tool_calls": ([],),
}


def _texts(value: Any) -> str:
    # Parts are joined by line breaks, as vLLM and llama.cpp do.
    if isinstance(value, str):
        return value
    if not isinstance(value, list):
        raise ValueError("expected a string or a list of text parts")
    if not 1 <= len(value) <= limits.MAX_PARTS:
        raise ValueError(f"{len(value):,} parts; expected 1 to {limits.MAX_PARTS}")
    for i, part in enumerate(value):
        kind = part.get("type") if isinstance(part, dict) else None
        if isinstance(kind, str) and kind != "text":
            raise ValueError(f"part {i} has type {echo(kind)!r}; this server reads text only")
        if kind is None or set(part) != {"type", "text"} or not isinstance(part["text"], str):
            raise ValueError(f'part {i}: expected {{"type": "text", "text": "..."}}')
    return "\n".join(part["text"] for part in value)


def _stops(value: Any) -> Any:
    stops = [value] if isinstance(value, str) else value
    if isinstance(stops, list) and not all(
        isinstance(stop, str) and 1 <= len(stop) <= limits.MAX_STOP_CHARACTERS for stop in stops
    ):
        raise ValueError(f"expected strings of 1 to {limits.MAX_STOP_CHARACTERS} characters")
    return stops


def _prompts(value: Any) -> list[Any]:
    # One string, one list of token ids, or a list of either (not both).
    if not isinstance(value, str | list):
        raise ValueError("expected a string, token ids, or a list of one of them")
    is_one = isinstance(value, str) or (value and _is_ids(value))
    prompts = [value] if is_one else list(value)
    if not 1 <= len(prompts) <= limits.MAX_PROMPTS:
        raise ValueError(f"{len(prompts):,} prompts; expected 1 to {limits.MAX_PROMPTS}")
    if not all(isinstance(prompt, str) for prompt in prompts) and not all(map(_is_ids, prompts)):
        raise ValueError("expected strings, or lists of token ids (integers), not a mixture")
    if not all(prompts):
        raise ValueError("a prompt is empty; expected at least one token")
    return prompts


def _inputs(value: Any) -> list[Any]:
    inputs = _prompts(value)
    if not all(isinstance(text, str) for text in inputs):
        raise ValueError("expected a string or a list of strings; token ids are not supported yet")
    return inputs


def _is_ids(value: Any) -> bool:
    # bool is a subclass of int.
    return isinstance(value, list) and all(type(item) is int for item in value)


def _temperature(value: float) -> float:
    if 0 < value < limits.MIN_TEMPERATURE:
        raise ValueError(f"expected 0 (greedy) or at least {limits.MIN_TEMPERATURE}")
    return value


Temperature = Annotated[float, Field(ge=0, le=limits.MAX_TEMPERATURE), AfterValidator(_temperature)]


class Body(BaseModel):
    """Strict JSON: no conversions, no unknown keys, no infinities."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class StreamOptions(Body):
    """What a stream carries besides the text."""

    include_usage: bool = False
    include_obfuscation: Literal[False] | None = None


class Message(Body):
    """One turn; a developer's message is a system message under its newer name."""

    role: Literal["system", "developer", "user", "assistant"]
    content: Annotated[str, BeforeValidator(_texts)]

    @property
    def turn(self) -> Turn:
        """The turn in our own words."""
        role = "system" if self.role == "developer" else self.role
        return {"role": role, "content": self.content}


class ApiRequest(Body):
    """What all kinds of request have in common."""

    OFF: ClassVar[Off] = {}
    # The field that holds the prompt, for errors about it.
    PROMPT: ClassVar[str] = "prompt"

    model: str


class GenerationRequest(ApiRequest):
    """What chats and completions have in common."""

    OFF: ClassVar[Off] = COMMON_OFF

    max_tokens: int | None = Field(None, ge=1)
    temperature: Temperature = 1.0
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

    @property
    def n_tokens(self) -> int | None:
        """How many tokens an answer may have, if the client said it."""
        return self.max_tokens

    @property
    def n_logprobs(self) -> int | None:
        """How many alternatives to report for each token; None: no log-probabilities."""
        return None

    @property
    def wants_usage(self) -> bool:
        """Whether a stream ends with the count of tokens."""
        return self.stream_options is not None and self.stream_options.include_usage

    def sampling(self, max_tokens: int, seed: int) -> Sampling:
        """Return how to sample one answer."""
        return Sampling(
            max_tokens=max_tokens,
            temperature=self.temperature,
            top_k=self.top_k,
            top_p=self.top_p,
            min_p=self.min_p,
            repetition_penalty=self.repetition_penalty,
            stop=tuple(self.stop or ()),
            seed=seed,
            logprobs=self.n_logprobs,
        )

    @model_validator(mode="after")
    def _options_need_a_stream(self) -> Self:
        if self.stream_options is not None and not self.stream:
            raise ApiError(
                "stream_options: only allowed with stream = true",
                param="stream_options",
                code="invalid_value",
            )
        return self


class ChatRequest(GenerationRequest):
    """POST /v1/chat/completions."""

    OFF: ClassVar[Off] = CHAT_OFF
    PROMPT: ClassVar[str] = "messages"

    messages: Annotated[
        list[Message], Field(min_length=1, max_length=limits.MAX_MESSAGES), FailFast()
    ]
    max_completion_tokens: int | None = Field(None, ge=1)
    logprobs: bool = False
    top_logprobs: int | None = Field(None, ge=0, le=limits.MAX_LOGPROBS)

    @property
    def n_tokens(self) -> int | None:
        """How many tokens an answer may have, if the client said it."""
        return self.max_completion_tokens or self.max_tokens

    @property
    def n_logprobs(self) -> int | None:
        """How many alternatives to report for each token; None: no log-probabilities."""
        return (self.top_logprobs or 0) if self.logprobs else None

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if self.top_logprobs is not None and not self.logprobs:
            raise ApiError(
                "top_logprobs: only allowed with logprobs = true",
                param="top_logprobs",
                code="invalid_value",
            )
        if None not in (self.max_tokens, self.max_completion_tokens):
            raise ApiError(
                "max_tokens: an older name of max_completion_tokens; give only one of them",
                param="max_tokens",
                code="invalid_value",
            )
        return self


class CompletionRequest(GenerationRequest):
    """POST /v1/completions."""

    OFF: ClassVar[Off] = COMPLETION_OFF

    # Token ids are checked against the vocabulary where the tokenizer is at hand.
    prompt: Annotated[list[str | list[int]], BeforeValidator(_prompts)]
    # Begin the answer with the prompt, and its log-probabilities if those are asked for.
    echo: bool = False
    max_tokens: int | None = Field(None, ge=0)
    logprobs: int | None = Field(None, ge=0, le=limits.MAX_LOGPROBS)

    @property
    def n_logprobs(self) -> int | None:
        """How many alternatives to report for each token; None: no log-probabilities."""
        return self.logprobs

    @model_validator(mode="after")
    def _echo(self) -> Self:
        if self.max_tokens == 0 and not self.echo:
            raise ApiError(
                "max_tokens: 0 only with echo = true, or there is nothing to answer",
                param="max_tokens",
                code="invalid_value",
            )
        if self.echo and self.n > 1:
            raise ApiError(
                "echo: only with n = 1, as the echo is the same each time",
                param="echo",
                code="unsupported_parameter",
            )
        return self

    @model_validator(mode="after")
    def _few(self) -> Self:
        if len(self.prompt) * self.n > limits.MAX_ANSWERS:
            raise ApiError(
                f"n = {self.n} for {len(self.prompt)} prompts: more than {limits.MAX_ANSWERS}"
                " answers; send fewer at a time",
                param="n",
                code="invalid_value",
            )
        return self


class EmbeddingRequest(ApiRequest):
    """POST /v1/embeddings."""

    OFF: ClassVar[Off] = EMBEDDING_OFF
    PROMPT: ClassVar[str] = "input"

    input: Annotated[list[str], BeforeValidator(_inputs)]
    encoding_format: Literal["float", "base64"] = "float"


R = TypeVar("R", bound=ApiRequest)


def read_request(kind: type[R], table: dict[str, Any]) -> R:
    """Validate a request; the error names the field, what is wrong and what fits."""
    table = _settle(table, kind.OFF, kind.model_fields)
    messages = table.get("messages")
    if isinstance(messages, list) and len(messages) <= limits.MAX_MESSAGES:
        table["messages"] = [
            _settle(message, MESSAGE_OFF, Message.model_fields, where=f"messages[{i}].")
            if isinstance(message, dict)
            else message
            for i, message in enumerate(messages)
        ]
    try:
        return kind.model_validate(table)
    except ValidationError as error:
        raise _explain(error, kind) from None


def _settle(
    table: dict[str, Any], off: Off, fields: Iterable[str], *, where: str = ""
) -> dict[str, Any]:
    """Drop what is ignored, absent (null) or switched off; refuse what is switched on."""
    settled = {}
    for key, value in table.items():
        if key in off:
            if value is not None and not any(_is_same(value, neutral) for neutral in off[key]):
                allowed = " or ".join(["null", *map(repr, off[key])])
                raise ApiError(
                    f"{where}{key}: not supported yet; leave it out or give {allowed}",
                    param=f"{where}{key}",
                    code="unsupported_parameter",
                )
        elif (key not in IGNORED or where) and (value is not None or key not in fields):
            settled[key] = value
    return settled


def _is_same(value: Any, neutral: Any) -> bool:
    # False == 0 and True == 1 in Python, but not in JSON.
    return value == neutral and isinstance(value, bool) == isinstance(neutral, bool)


CODES = {"extra_forbidden": "unknown_parameter", "missing": "missing_required_parameter"}


def _explain(error: ValidationError, kind: type[ApiRequest]) -> ApiError:
    # The first fault is enough, and a hostile body may have a million.
    fault = error.errors(include_url=False, include_input=False)[0]
    param = ""
    for step in fault["loc"]:
        param += f"[{step}]" if isinstance(step, int) else f".{echo(step)}"
    param = param.removeprefix(".")
    if fault["type"] == "extra_forbidden":
        known = [*kind.model_fields, *kind.OFF, *IGNORED] if len(fault["loc"]) == 1 else []
        reason = f"unknown field{suggestion(param, known) if len(param) <= 64 else ''}"
    elif fault["type"] == "missing":
        reason = "missing"
    else:
        reason = fault["msg"].removeprefix("Value error, ")
        reason = reason[:1].lower() + reason[1:]
    if fault["type"] == "list_type":
        reason += " (a JSON array)"
    code = CODES.get(fault["type"])
    if code is None:
        code = "invalid_type" if fault["type"].endswith("_type") else "invalid_value"
    return ApiError(f"{param}: {reason}", param=param, code=code)
