"""What is asked, as token ids: prompts of all forms, and texts that are to be scored."""

from collections.abc import Sequence
from typing import cast

import numpy as np

from lmwright.core.errors import RequestError
from lmwright.engine.backend import Pair
from lmwright.engine.prefix_tree import Scored, n_common
from lmwright.engine.request import Message, Prompt, ScoreRequest
from lmwright.tokenizer.encode import Tokenizer


def prompt_ids(
    prompt: Prompt, tokenizer: Tokenizer, *, is_source: bool = False, n_ids: int | None = None
) -> list[int]:
    """Return a prompt as token ids, whichever of its three forms it has.

    A text that an encoder reads (`is_source`) stands between its special tokens. `n_ids` is how
    many ids the model reads, if that is known; there may be more than the tokenizer has.
    """
    if isinstance(prompt, str):
        return tokenizer.encode_input(prompt).ids if is_source else tokenizer.encode(prompt)
    if not len(prompt):
        raise RequestError("the prompt is empty")
    if isinstance(prompt[0], dict):
        return tokenizer.chat(cast(Sequence[Message], prompt))
    ids = cast(Sequence[int], prompt)
    n_ids = tokenizer.n_ids if n_ids is None else n_ids
    for i, id_ in enumerate(ids):
        if isinstance(id_, bool) or not isinstance(id_, int | np.integer):
            raise RequestError(f"prompt[{i}] = {id_!r}: expected a token id")
        if not 0 <= id_ < n_ids:
            raise RequestError(f"prompt[{i}] = {id_}: token ids go to {n_ids - 1}")
    return [int(id_) for id_ in ids]


def scored(request: ScoreRequest, tokenizer: Tokenizer, *, n_ids: int | None = None) -> Pair:
    """Return what a decoder has to score.

    Context and continuation are encoded together, as the model would meet them. A token that
    reaches over the border between them counts as continuation. Without any token before it (an
    empty context and a model without BOS) the first token is not scored.
    """
    _check_continuation(request)
    context = prompt_ids(request.context, tokenizer, n_ids=n_ids)
    if not isinstance(request.continuation, str):
        if isinstance(request.context, str):
            raise RequestError("score: token ids continue no text; give the context as ids")
        ids = [*context, *prompt_ids(request.continuation, tokenizer, n_ids=n_ids)]
    elif isinstance(request.context, str):
        ids = tokenizer.encode(request.context + request.continuation)
    else:
        ids = [*context, *tokenizer.encode(request.continuation, add_bos=False)]
    if len(ids) < 2:
        raise RequestError(
            f"score: {request.continuation!r} is a single token with nothing before it"
        )
    return Pair(Scored(tuple(ids), max(n_common(context, ids), 1)))


def pair(
    request: ScoreRequest, tokenizer: Tokenizer, *, start_id: int, n_ids: int | None = None
) -> Pair:
    """Return what an encoder-decoder has to score: the context is its source.

    Of the special tokens around a text, those before it are given to the decoder and those behind
    it, an EOS, are left out: only the text is scored. Token ids are all scored.
    """
    _check_continuation(request)
    source = prompt_ids(request.context, tokenizer, is_source=True, n_ids=n_ids)
    if not isinstance(request.continuation, str):
        ids = prompt_ids(request.continuation, tokenizer, n_ids=n_ids)
        answer = Scored((start_id, *ids), 1)
        return Pair(answer, tuple(source))
    ids, around = tokenizer.encode_target(request.continuation), _frame_ids(tokenizer)
    n_before = next((i for i, id_ in enumerate(ids) if id_ not in around), len(ids))
    while len(ids) > n_before and ids[-1] in around:
        ids.pop()
    if len(ids) == n_before:
        raise RequestError(f"score: {request.continuation!r} has no tokens; nothing to score")
    return Pair(Scored((start_id, *ids), 1 + n_before), tuple(source))


def _check_continuation(request: ScoreRequest) -> None:
    if not len(request.continuation):
        raise RequestError("score: the continuation is empty; nothing to score")


def _frame_ids(tokenizer: Tokenizer) -> set[int | None]:
    """Return the tokens that may stand around a text; written in it, they are text."""
    languages = tokenizer.translation.codes.values() if tokenizer.translation else ()
    roles = (tokenizer.bos_id, tokenizer.role_id("cls"), tokenizer.role_id("sep"))
    return {*roles, *tokenizer.eos_ids, *languages}
