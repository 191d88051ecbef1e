"""Which tokens a dialogue teaches, and an audit that refuses to train on broken ones."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich.text import Text

from lmwright.core.errors import DataError, RequestError
from lmwright.data.samples import Sample
from lmwright.tokenizer.encode import Tokenizer
from lmwright.training.batches import Encoded


def encode(sample: Sample, tokenizer: Tokenizer) -> Encoded:
    """Return a dialogue's tokens; the assistant's words and its end-of-turn are to be learnt."""
    ids = _tokens(sample, len(sample.messages), tokenizer, add_generation_prompt=False)
    is_target = [False] * len(ids)
    for i, message in enumerate(sample.messages):
        if message["role"] != "assistant":
            continue
        if i == 0:
            raise DataError(
                f"sample {sample.id}: begins with the assistant, whom nobody has asked yet; put a "
                "user's message before it"
            )
        # What stands before the reply ends with the template's invitation to reply.
        start = _n_prefix(sample, i, tokenizer, ids, add_generation_prompt=True)
        end = _n_prefix(sample, i + 1, tokenizer, ids, add_generation_prompt=False)
        # Templates put a line break behind the end-of-turn token; the model never gets to say it.
        ends = [j + 1 for j in range(start, end) if ids[j] in tokenizer.eos_ids]
        end = ends[-1] if ends else end
        is_target[start:end] = [True] * (end - start)
    return Encoded(sample.id, tuple(ids), tuple(is_target))


def _n_prefix(
    sample: Sample,
    n_messages: int,
    tokenizer: Tokenizer,
    ids: Sequence[int],
    *,
    add_generation_prompt: bool,
) -> int:
    """Count the tokens of the first messages, which must be how the whole dialogue begins."""
    prefix = _tokens(sample, n_messages, tokenizer, add_generation_prompt=add_generation_prompt)
    if list(ids[: len(prefix)]) != prefix:
        raise DataError(
            f"sample {sample.id}: with this model's chat template the beginning of a dialogue "
            f"depends on what follows (message {n_messages}), so that its tokens cannot be told "
            "apart. Use dialogues of one question and one answer with this model"
        )
    return len(prefix)


def _tokens(
    sample: Sample, n_messages: int, tokenizer: Tokenizer, *, add_generation_prompt: bool
) -> list[int]:
    try:
        return tokenizer.chat(
            sample.messages[:n_messages], add_generation_prompt=add_generation_prompt
        )
    except RequestError as error:  # the template may forbid a role or an order
        raise DataError(f"sample {sample.id}: {error}") from None


def shared_system(samples: Sequence[Sample]) -> str | None:
    """Return the system message that all samples begin with, if it is one and the same.

    The tuned model should meet it again in use: without it, it answers worse.
    """
    first = {
        m[0]["content"] if (m := sample.messages)[0]["role"] == "system" else None
        for sample in samples
    }
    return first.pop() if len(first) == 1 else None


@dataclass(frozen=True)
class Audit:
    """What training will see, and one sample to look at."""

    n_samples: int
    n_tokens: int
    n_targets: int
    example: tuple[tuple[str, bool], ...]

    def to_json(self) -> dict[str, Any]:
        """Return plain data for audit.json."""
        return {
            "n_samples": self.n_samples,
            "n_tokens": self.n_tokens,
            "n_targets": self.n_targets,
            "example": [{"text": text, "trained": is_on} for text, is_on in self.example],
        }

    def text(self) -> Text:
        """Return the example with its mask in colour: what is learnt is green."""
        text = Text()
        for token, is_target in self.example:
            text.append(token, style="bold green" if is_target else "dim")
        return text


def audit(samples: Sequence[Encoded], tokenizer: Tokenizer, max_length: int) -> Audit:
    """Check every sample; the first that would teach nothing or something wrong is an error."""
    for sample in samples:
        _check(sample, tokenizer, max_length)
    first = samples[0]
    return Audit(
        n_samples=len(samples),
        n_tokens=sum(len(sample.token_ids) for sample in samples),
        n_targets=sum(sum(sample.is_target) for sample in samples),
        example=tuple(
            (tokenizer.token(id_), is_on)
            for id_, is_on in zip(first.token_ids, first.is_target, strict=True)
        ),
    )


def _check(sample: Encoded, tokenizer: Tokenizer, max_length: int) -> None:
    ids, is_target = sample.token_ids, sample.is_target
    if len(ids) > max_length:
        raise DataError(
            f"sample {sample.id}: {len(ids)} tokens, more than max_length = "
            f"{max_length}; raise it (the model's context allowing) or shorten the sample"
        )
    if not any(is_target):
        raise DataError(f"sample {sample.id}: no token to learn; is the assistant's reply empty?")
    bos = tokenizer.bos_id
    if bos is not None and ids[:2] == (bos, bos):
        raise DataError(f"sample {sample.id}: begins with two BOS tokens; mend the chat template")
    # Each stretch of learnt tokens must end with an end-of-turn, or the model never stops.
    for i in range(len(ids)):
        is_first = is_target[i] and (i == 0 or not is_target[i - 1])
        if is_first and ids[i] in tokenizer.eos_ids:
            raise DataError(
                f"sample {sample.id}: a reply of the assistant is empty, which would teach the "
                "model to say nothing; fill it in or remove it"
            )
        is_last = is_target[i] and (i + 1 == len(ids) or not is_target[i + 1])
        if is_last and ids[i] not in tokenizer.eos_ids:
            raise DataError(
                f"sample {sample.id}: a reply ends with {tokenizer.token(ids[i])!r} and not with "
                "an end-of-turn token that is learnt, so that the model would never stop. Known "
                f"ends: {[tokenizer.token(e) for e in tokenizer.eos_ids]}; see eos_token_id in "
                "generation_config.json"
            )
