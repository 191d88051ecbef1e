"""What both subjects read: texts to be cut into tokens, and prompts to be continued.

Token ids are compared first, for all else takes them as given.
"""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

from lmwright.core.errors import RequestError
from lmwright.engine.request import Message, Prompt
from lmwright.verification.subject import PromptTokens, Subject

FILE = Path(__file__).with_name("prompts.jsonl")
# Where tokenizers differ: spaces, line breaks, digits, accents, other scripts, emoji, code,
# characters of several code points.
TEXTS = (
    "Hello, world!",
    " leading and trailing ",
    "two  spaces,   three, a tab\tand\n\n\nline breaks\r\n",
    "It's they'll WE'RE don't I'VE",
    "1 12 123 1234 12345 3.14159 -40 1,000,000 0x1F 2024-11-05",
    "na\u00efve caf\u00e9 Stra\u00dfe \u00c5ngstr\u00f6m \u0141\u00f3d\u017a cafe\u0301",
    "\u041f\u0440\u0438\u0432\u0435\u0442 \u4f60\u597d\uff0c\u4e16\u754c "
    "\u3053\u3093\u306b\u3061\u306f \uc548\ub155 "
    "\u0645\u0631\u062d\u0628\u0627 \u0928\u092e\u0938\u094d\u0924\u0947",
    "\U0001f600 \U0001f469\u200d\U0001f680 \U0001f1eb\U0001f1f7 \u2764\ufe0f "
    "\u00a0\u2009\u200b\ufeff|",
    'def f(x):\n\treturn {"a": [x**2, x // 3]}  # <b>&amp;</b>',
    "https://example.org/a_b-c?d=1&e=%20#f user@example.org C:\\temp\\new",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
)
# To us they are text when a user writes them. Servers mostly take them for what they name, and
# llama.cpp takes "</s>" for the end of a reply whatever the file says.
SPECIAL_NAMES = "<s></s><unk><pad><|endoftext|><|im_start|>user<|im_end|>[INST][/INST]<bos><eos>"
UNCOMPARED_NAMES = "texts that name special tokens: each program has rules of its own for them"
QUESTION: Message = {"role": "user", "content": "Which is larger, 9.9 or 9.11?"}
ANSWER: Message = {"role": "assistant", "content": "9.9 is larger."}
SYSTEM: Message = {"role": "system", "content": "You answer in one sentence."}
DIALOGUES: tuple[tuple[Message, ...], ...] = (
    (QUESTION,),
    (QUESTION, ANSWER, {"role": "user", "content": "  Why?\n"}),
    (SYSTEM, QUESTION),
    (QUESTION, ANSWER, QUESTION, ANSWER, QUESTION),
)


@dataclass(frozen=True)
class ChosenPrompts:
    """The prompts that both subjects can take, as token ids, and those that they cannot."""

    prompts: tuple[Prompt, ...]
    ids: tuple[tuple[int, ...], ...]
    left_out: tuple[str, ...]


def built_in() -> list[Prompt]:
    """Return the prompts that come with the package."""
    records = map(json.loads, FILE.read_text(encoding="utf-8").splitlines())
    return [record.get("prompt") or record["messages"] for record in records]


def choose(
    a: Subject,
    b: Subject,
    prompts: Sequence[Prompt] | None,
    *,
    n_tokens: int,
    n_prompts: int | None = None,
) -> ChosenPrompts:
    """Cut the prompts into token ids, by A if it shows its tokens, else by B.

    Of the built-in ones those are left out that do not fit; the user's own must fit. `n_prompts`
    takes no more than so many.
    """
    reader = next((s for s in (a, b) if s.tokenizer is not None), None)
    if reader is None:
        raise RequestError(
            f"{a.name} and {b.name}: neither shows its tokens, so that nothing can be asked of "
            "both; one of the two must be a model whose files are here"
        )
    limit = min((s.context_length for s in (a, b) if s.context_length is not None), default=None)
    kept: list[tuple[Prompt, tuple[int, ...]]] = []
    left_out: Counter[str] = Counter()
    for number, prompt in enumerate(built_in() if prompts is None else prompts, start=1):
        if len(kept) == n_prompts:
            break
        try:
            encoded = reader.encode(prompt)
        except RequestError as error:
            if prompts is not None:
                raise RequestError(f"prompt {number}: {error}") from None
            left_out[f"built-in dialogues: {reader.name} has no chat template"] += 1
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
            left_out[f"built-in prompts: longer than the context of {limit} tokens"] += 1
            continue
        kept.append((prompt, encoded.ids))
    if not kept:
        raise RequestError(
            f"no prompt fits a context of {limit} tokens with {n_tokens} more; take fewer tokens "
            "(--n-tokens), or shorter prompts (--prompts)"
        )
    taken, ids = zip(*kept, strict=True)
    return ChosenPrompts(taken, ids, tuple(f"{n} {what}" for what, n in left_out.items()))


def compare_texts(
    a: Subject, b: Subject, prompts: Sequence[Prompt]
) -> tuple[int, list[str], list[str]]:
    """Let both encode the built-in texts and dialogues, and the prompts to be continued.

    Returns how many are the same tokens, what differs in the others, and what is not known.
    """
    n_same, differences, counted, untold, simplified = 0, [], 0, 0, 0
    are_ours = a.engine == b.engine == "lmwright"
    for prompt in (*TEXTS, *((SPECIAL_NAMES,) if are_ours else ()), *DIALOGUES, *prompts):
        read_a, read_b = _read(a, prompt), _read(b, prompt)
        if read_a is None or read_b is None:
            untold += 1
            continue
        found = _difference(a, b, read_a, read_b)
        if found and (read_a.is_simplified or read_b.is_simplified):
            simplified += 1
        elif found:
            differences.append(f"{_shown(prompt)}: {found}")
        else:
            n_same += 1
        counted += None in (read_a.ids, read_b.ids)
    not_compared = [] if are_ours else [UNCOMPARED_NAMES]
    if untold:
        not_compared.append(
            f"how {untold} of {n_same + len(differences) + untold} texts and dialogues are cut "
            "into tokens: one of the two does not say"
        )
    if simplified:
        not_compared.append(
            f"{simplified} texts with accents of their own or capitals beyond A to Z, which "
            "llama.cpp is known to cut into other tokens than this kind of tokenizer"
        )
    if counted:
        not_compared.append(f"the token ids of {counted} texts: only their number is known")
    return n_same, differences, not_compared


def _read(subject: Subject, prompt: Prompt) -> PromptTokens | None:
    """Encode a prompt; a dialogue that a chat template refuses becomes its refusal."""
    is_dialogue = not isinstance(prompt, str) and len(prompt) and isinstance(prompt[0], dict)
    try:
        return subject.encode(prompt)
    except RequestError as error:
        if not is_dialogue:
            raise
        return PromptTokens(0, (), refusal=str(error))


def _difference(a: Subject, b: Subject, read_a: PromptTokens, read_b: PromptTokens) -> str | None:
    if read_a.refusal and read_b.refusal:
        return None
    for subject, read in ((a, read_a), (b, read_b)):
        if read.refusal:
            return f"refused by {subject.name} ({read.refusal})"
    if read_a.ids is None or read_b.ids is None:
        if read_a.n_tokens == read_b.n_tokens:
            return None
        return f"{read_a.n_tokens} tokens, against {read_b.n_tokens}"
    if read_a.ids == read_b.ids:
        return None
    pairs = zip_longest(read_a.ids, read_b.ids)
    place = next(i for i, (x, y) in enumerate(pairs) if x != y)
    return f"token {place} is {_at(a, read_a.ids, place)}, against {_at(b, read_b.ids, place)}"


def _at(subject: Subject, ids: Sequence[int], place: int) -> str:
    if place >= len(ids):
        return "the end"
    text = "" if subject.tokenizer is None else f" {subject.tokenizer.token(ids[place])!r}"
    return f"{ids[place]}{text}"


def _shown(prompt: Prompt) -> str:
    if isinstance(prompt, str):
        text = prompt
    else:
        text = " / ".join(m["content"] if isinstance(m, dict) else str(m) for m in prompt)
        text = f"dialogue {text}"
    return repr(text if len(text) <= 40 else f"{text[:37]}...")
