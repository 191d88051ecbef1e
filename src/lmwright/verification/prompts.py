"""What is continued: twenty prompts of several languages, kinds and lengths, or the user's own."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lmwright.core.errors import RequestError
from lmwright.engine.request import Prompt
from lmwright.verification.witness import Witness

FILE = Path(__file__).with_name("prompts.jsonl")


@dataclass(frozen=True)
class Selection:
    """The prompts that both witnesses can take, as token ids, and those that they cannot."""

    prompts: tuple[Prompt, ...]
    ids: tuple[tuple[int, ...], ...]
    left_out: tuple[str, ...]


def built_in() -> list[Prompt]:
    """Return the prompts that come with the package."""
    lines = FILE.read_text(encoding="utf-8").splitlines()
    records = [json.loads(line) for line in lines]
    return [record.get("prompt") or record["messages"] for record in records]


def select(
    a: Witness,
    b: Witness,
    prompts: Sequence[Prompt] | None,
    *,
    n_tokens: int,
    n_prompts: int | None = None,
) -> Selection:
    """Cut the prompts into token ids, by A if it shows its tokens, else by B.

    Of the built-in ones those are left out that do not fit; the user's own must fit. `n_prompts`
    takes no more than so many.
    """
    reader = next((w for w in (a, b) if w.tokenizer is not None), None)
    if reader is None:
        raise RequestError(
            f"{a.name} and {b.name}: neither shows its tokens, so that nothing can be asked of "
            "both; one of the two must be a model whose files are here"
        )
    limit = min((w.context_length for w in (a, b) if w.context_length is not None), default=None)
    kept: list[tuple[Prompt, tuple[int, ...]]] = []
    n_long = n_refused = 0
    for number, prompt in enumerate(built_in() if prompts is None else prompts, start=1):
        if len(kept) == n_prompts:
            break
        try:
            encoded = reader.encode(prompt)
        except RequestError as error:
            if prompts is not None:
                raise RequestError(f"prompt {number}: {error}") from None
            n_refused += 1
            continue
        assert encoded is not None  # it shows its tokens
        assert encoded.ids is not None
        if not encoded.n_tokens:
            raise RequestError(f"prompt {number} has no tokens")
        if limit is not None and encoded.n_tokens + n_tokens > limit:
            if prompts is not None:
                raise RequestError(
                    f"prompt {number}: {encoded.n_tokens} tokens and {n_tokens} more; the context "
                    f"has {limit}. Shorten it, or take fewer tokens (--n-tokens)"
                )
            n_long += 1
            continue
        kept.append((prompt, encoded.ids))
    if not kept:
        raise RequestError(
            f"no prompt fits a context of {limit} tokens with {n_tokens} more; take fewer tokens "
            "(--n-tokens), or shorter prompts (--prompts)"
        )
    left_out = []
    if n_long:
        left_out.append(f"{n_long} built-in prompts: longer than the context of {limit} tokens")
    if n_refused:
        left_out.append(f"{n_refused} built-in dialogues: {reader.name} has no chat template")
    return Selection(tuple(p for p, _ in kept), tuple(ids for _, ids in kept), tuple(left_out))
