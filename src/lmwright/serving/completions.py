"""POST /v1/completions: texts or token ids continued, and how likely a prompt's own tokens are."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, ClassVar, Self

from pydantic import BeforeValidator, Field, model_validator

from lmwright.engine.request import Chunk, Completion, ScoreRequest, TokenLogprob
from lmwright.lm import LocalModel
from lmwright.serving import limits
from lmwright.serving.errors import invalid
from lmwright.serving.generation import GenerationReply, GenerationRequest, answers, finite
from lmwright.serving.route import Json, Route, Served, Submission
from lmwright.serving.schema import Off, read_prompts


class CompletionRequest(GenerationRequest):
    """The body of the request."""

    OFF: ClassVar[Off] = {**GenerationRequest.OFF, "best_of": (1,), "suffix": ("",)}
    PROMPT: ClassVar[str | None] = "prompt"

    # Token ids are checked against the vocabulary where the tokenizer is at hand.
    prompt: Annotated[list[str | list[int]], BeforeValidator(read_prompts)]
    # Begin the answer with the prompt, and its log-probabilities if those are asked for.
    echo: bool = False
    max_tokens: int | None = Field(None, ge=0)
    logprobs: int | None = Field(None, ge=0, le=limits.MAX_LOGPROBS)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.max_tokens == 0 and not self.echo:
            reason = "0 only with echo = true, or there is nothing to answer"
            raise invalid("max_tokens", reason)
        if self.echo and self.n > 1:
            reason = "only with n = 1, as the echo is the same each time"
            raise invalid("echo", reason, "unsupported_parameter")
        if len(self.prompt) * self.n > limits.MAX_ANSWERS:
            reason = (
                f"{self.n} for {len(self.prompt)} prompts; at most {limits.MAX_ANSWERS} answers"
            )
            raise invalid("n", reason)
        return self


@dataclass(frozen=True)
class Echo:
    """A prompt that is given back before its continuation."""

    text: str
    # Empty unless asked for. The first token has nothing before it: its log-probability is NaN.
    logprobs: tuple[TokenLogprob, ...] = ()
    # At which character each of those tokens begins.
    offsets: tuple[int, ...] = ()


def echo(model: LocalModel, ids: Sequence[int], *, n_logprobs: int | None) -> Echo:
    """Return a prompt's text, and how likely each of its tokens was if `n_logprobs` is given."""
    offsets, pieces, n_characters = [], [], 0
    decoder = model.tokenizer.stream()
    for id_ in ids:
        # The parts of a split character all begin where it begins.
        offsets.append(n_characters)
        pieces.append(decoder.push(id_))
        n_characters += len(pieces[-1])
    text = "".join([*pieces, decoder.finish()])
    if n_logprobs is None:
        return Echo(text)
    token = model.tokenizer.token
    first = TokenLogprob(ids[0], token(ids[0]), math.nan)
    if len(ids) == 1:
        return Echo(text, (first,), (0,))
    (score,) = model.score([ScoreRequest(ids[:1], ids[1:], n_top=n_logprobs)])
    tops = score.top or [()] * len(score.token_ids)
    rest = [
        TokenLogprob(id_, token(id_), float(value), tuple((i, token(i), p) for i, p in top))
        for id_, value, top in zip(score.token_ids, score.token_logprobs, tops, strict=True)
    ]
    return Echo(text, (first, *rest), tuple(offsets))


class TextChoices:
    """Answers as texts, each behind its prompt if that is given back."""

    ID: ClassVar[str] = "cmpl"
    OBJECTS: ClassVar[tuple[str, str]] = ("text_completion", "text_completion")

    def __init__(self) -> None:
        self._echoes: dict[int, Echo] = {}
        # Characters of each answer that were already streamed.
        self._offsets: dict[int, int] = {}

    def whole(self, number: int, done: Completion) -> Json:
        """Return a finished answer."""
        before = self._echoes.get(number, Echo(""))
        logprobs = _logprobs(done.logprobs, before=before)
        return _choice(number, before.text + done.text, logprobs, done.finish_reason)

    def streamed(self, number: int, piece: object) -> list[Json]:
        """Return what a stream carries of a piece."""
        if isinstance(piece, Echo):
            self._echoes[number] = piece
            self._offsets[number] = len(piece.text)
            return [_choice(number, piece.text, _logprobs((), before=piece), None)]
        assert isinstance(piece, Chunk)
        if not (piece.text or piece.logprobs or piece.completion):
            return []
        offset = self._offsets.get(number, 0)
        self._offsets[number] = offset + sum(len(token.text) for token in piece.logprobs)
        reason = piece.completion.finish_reason if piece.completion else None
        return [_choice(number, piece.text, _logprobs(piece.logprobs, offset=offset), reason)]


def _plan(request: CompletionRequest, served: Served) -> Submission:
    model, n_logprobs = served.model, request.logprobs
    generations = []
    if is_written := request.max_tokens != 0:
        sampling = request.sampling(request.max_tokens, n_logprobs=n_logprobs)
        generations = [answers(served, prompt, sampling, n=request.n) for prompt in request.prompt]
        prompts = [generation.prompt_ids for generation in generations]
    else:
        prompts = [served.encode(prompt) for prompt in request.prompt]
    calls = []
    if request.echo:
        if n_logprobs is not None:
            _check_scored(model, n_tokens=sum(map(len, prompts)))
        options = {"n_logprobs": n_logprobs, "is_all": not is_written}
        calls = [partial(_echoed, model, ids, **options) for ids in prompts]
    reply = GenerationReply(TextChoices(), request, prompts)
    return Submission(reply.whole, calls, generations, reply.events if request.stream else None)


def _echoed(
    model: LocalModel, ids: Sequence[int], *, n_logprobs: int | None, is_all: bool
) -> list[Echo | Chunk]:
    """Return the prompt, and the end of the answer if nothing is written behind it."""
    end = Chunk("", completion=Completion("", (), "length", len(ids)))
    return [echo(model, ids, n_logprobs=n_logprobs), *([end] if is_all else [])]


def _check_scored(model: LocalModel, *, n_tokens: int) -> None:
    if model.info.kind == "encoder-decoder":
        reason = "this model reads its prompt with an encoder, which gives it no probabilities"
        raise invalid("echo", f"with logprobs: {reason}")
    if n_tokens > limits.MAX_SCORED_TOKENS:
        reason = f"{n_tokens:,} tokens; at most {limits.MAX_SCORED_TOKENS:,} with echo and logprobs"
        raise invalid("prompt", reason)


def _choice(number: int, text: str, logprobs: Json | None, reason: str | None) -> Json:
    return {"index": number, "text": text, "logprobs": logprobs, "finish_reason": reason}


def _logprobs(
    tokens: Sequence[TokenLogprob], *, before: Echo | None = None, offset: int = 0
) -> Json | None:
    """Write tokens, those of a prompt that is given back before them, as OpenAI's older format."""
    offsets = []
    if before is not None:
        offset, offsets = len(before.text), [*before.offsets]
        tokens = [*before.logprobs, *tokens]
    if not tokens:
        return None
    for token in tokens[len(offsets) :]:
        offsets.append(offset)
        offset += len(token.text)
    has_top = any(token.top for token in tokens)
    return {
        "tokens": [token.text for token in tokens],
        "token_logprobs": [finite(token.logprob) for token in tokens],
        "top_logprobs": [_top(token) for token in tokens] if has_top else None,
        "text_offset": offsets,
    }


def _top(token: TokenLogprob) -> dict[str, float | None] | None:
    """Write the likeliest tokens; the chosen one is always there, even if it was unlikely."""
    if math.isnan(token.logprob):
        return None
    table = {token.text: token.logprob}
    for _, text, logprob in token.top:
        # Tokens may look alike (parts of characters do): the likeliest one counts.
        table[text] = max(logprob, table.get(text, -math.inf))
    return {text: finite(logprob) for text, logprob in table.items()}


COMPLETIONS = Route("POST", "/v1/completions", CompletionRequest, _plan)
