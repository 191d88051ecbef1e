"""A chat template by what it makes of an example."""

from dataclasses import dataclass
from typing import Literal

from lmwright.core.errors import RequestError
from lmwright.tokenizer.encode import Tokenizer

SYSTEM = "Answer in one sentence."
USER = "When does the ferry leave?"


@dataclass(frozen=True)
class Dialogue:
    """A system message and a question as the model reads them, ready for its answer."""

    # With special tokens as they are written; None if the template refuses even the question.
    text: str | None
    n_tokens: int | None
    # What becomes of a system message.
    system: Literal["accepted", "ignored", "refused"]
    # What the template puts in its place where there is none.
    default_system: str | None
    # What the template says where it refuses something.
    refusal: str | None


def dialogue(tokenizer: Tokenizer) -> Dialogue | None:
    """Return the example; None for a model without a chat template."""
    if tokenizer.chat_template is None:
        return None
    question = [{"role": "user", "content": USER}]
    whole = [{"role": "system", "content": SYSTEM}, *question]
    plain, plain_refusal = _render(tokenizer, question)
    full, refusal = _render(tokenizer, whole)
    if full is None:
        n_tokens = None if plain is None else len(tokenizer.chat(question))
        return Dialogue(plain, n_tokens, "refused", None, plain_refusal or refusal)
    return Dialogue(
        full,
        len(tokenizer.chat(whole)),
        "accepted" if SYSTEM in full else "ignored",
        None if plain is None else _default_system(plain, full),
        plain_refusal,
    )


def _render(tokenizer: Tokenizer, messages: list[dict[str, str]]) -> tuple[str | None, str | None]:
    """Return the text, or why there is none."""
    assert tokenizer.chat_template is not None
    try:
        text = tokenizer.chat_template.render(
            messages, add_generation_prompt=True, special_tokens=tokenizer.special_tokens
        )
    except RequestError as error:
        return None, str(error)
    return text, None


def _default_system(plain: str, full: str) -> str | None:
    """Return what stands where the system message would, if both texts are alike around it."""
    if SYSTEM not in full or USER not in plain:
        return None
    before, _, behind = full.partition(SYSTEM)
    behind = behind.partition(USER)[0]
    start = plain.partition(USER)[0]
    is_alike = start.startswith(before) and start.endswith(behind)
    if not is_alike or len(start) <= len(before) + len(behind):
        return None
    return start[len(before) : len(start) - len(behind)].strip() or None
