"""The task of answering in a dialogue: which tokens are learnt, and an audit of broken samples."""

from collections.abc import Sequence
from itertools import groupby
from operator import itemgetter

from lmwright.core.errors import DataError, RequestError
from lmwright.data.samples import Sample
from lmwright.model.transformer import DecoderLM
from lmwright.tokenizer.encode import Tokenizer
from lmwright.training.batches import Encoded, PackedBatch, pack
from lmwright.training.losses import next_token
from lmwright.training.task import Audit, Task


def encode(sample: Sample, tokenizer: Tokenizer, max_length: int) -> Encoded:
    """Return a dialogue's tokens; the assistant's words and its end-of-turn are to be learnt."""
    ids = _beginning(sample, len(sample.messages), tokenizer)
    if len(ids) > max_length:
        raise DataError(
            f"sample {sample.id}: {len(ids)} tokens, more than max_length = {max_length}; raise "
            "it (the model's context allowing) or shorten the sample"
        )
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
        before = _beginning(sample, i, tokenizer, asks=True)
        after = _beginning(sample, i + 1, tokenizer)
        for n, beginning in ((i, before), (i + 1, after)):
            if ids[: len(beginning)] != beginning:
                raise DataError(
                    f"sample {sample.id}: with this model's chat template the beginning of a "
                    f"dialogue depends on what follows (message {n}), so that its tokens cannot be "
                    "told apart. Use dialogues of one question and one answer with this model"
                )
        start, end = len(before), len(after)
        # Templates put a line break behind the end-of-turn token; the model never gets to say it.
        ends = [j + 1 for j in range(start, end) if ids[j] in tokenizer.eos_ids]
        end = ends[-1] if ends else end
        is_target[start:end] = [True] * (end - start)
    return Encoded(sample.id, tuple(ids), tuple(is_target))


def _beginning(
    sample: Sample, n_messages: int, tokenizer: Tokenizer, *, asks: bool = False
) -> list[int]:
    """Return the tokens of the first messages, and those that ask for a reply to them."""
    try:
        return tokenizer.chat(sample.messages[:n_messages], add_generation_prompt=asks)
    except RequestError as error:  # the template may forbid a role or an order
        raise DataError(f"sample {sample.id}: {error}") from None


def audit(samples: Sequence[Encoded], tokenizer: Tokenizer) -> Audit:
    """Check every sample; the first that would teach nothing or something wrong is an error."""
    for sample in samples:
        _check(sample, tokenizer)
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


def _check(sample: Encoded, tokenizer: Tokenizer) -> None:
    ids, is_target = sample.token_ids, sample.is_target
    if not any(is_target):
        raise DataError(f"sample {sample.id}: no token to learn; is the assistant's reply empty?")
    bos = tokenizer.bos_id
    if bos is not None and ids[:2] == (bos, bos):
        raise DataError(f"sample {sample.id}: begins with two BOS tokens; mend the chat template")
    # Each stretch of learnt tokens must end with an end-of-turn, or the model never stops.
    for is_learnt, stretch in groupby(zip(ids, is_target, strict=True), key=itemgetter(1)):
        reply = [id_ for id_, _ in stretch]
        if is_learnt and reply[0] in tokenizer.eos_ids:
            raise DataError(
                f"sample {sample.id}: a reply of the assistant is empty, which would teach the "
                "model to say nothing; fill it in or remove it"
            )
        if is_learnt and reply[-1] not in tokenizer.eos_ids:
            raise DataError(
                f"sample {sample.id}: a reply ends with {tokenizer.token(reply[-1])!r} and not "
                "with an end-of-turn token that is learnt, so that the model would never stop. "
                f"Known ends: {[tokenizer.token(e) for e in tokenizer.eos_ids]}; see eos_token_id "
                "in generation_config.json"
            )


CHAT: Task[DecoderLM, Sample, Encoded, PackedBatch] = Task(
    name="chat",
    encode=encode,
    audit=audit,
    size=lambda sample: len(sample.token_ids),
    collate=lambda samples, _: pack(samples),
    loss=next_token,
    metrics=("qa_accuracy",),
)


def shared_system(samples: Sequence[Sample]) -> str | None:
    """Return the system message that all samples begin with, if it is one and the same.

    The tuned model should meet it again in use: without it, it answers worse.
    """
    first = {
        m[0]["content"] if (m := sample.messages)[0]["role"] == "system" else None
        for sample in samples
    }
    return first.pop() if len(first) == 1 else None
