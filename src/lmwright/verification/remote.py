"""Models that run elsewhere as witnesses: a GGUF in llama.cpp, and a server.

Both only continue a prompt. To lead one along given tokens it is asked to continue, and where it
takes another token than the given one, it is asked again behind the given one.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

from lmwright.core.errors import RequestError, UnsupportedError
from lmwright.engine.request import UNKNOWN, Prompt, Sampling, TokenLogprob
from lmwright.lm import prompt_ids
from lmwright.tokenizer.encode import Tokenizer
from lmwright.tokenizer.gguf.reader import gguf_tokenizer
from lmwright.verification.witness import END, N_TOP, Encoded, Next, Trace

if TYPE_CHECKING:
    from lmwright.hosted.model import HostedModel
    from lmwright.verification.llama_cpp import LlamaCpp

# How a GGUF that llama.cpp shall open is written.
LLAMA_CPP = "llama.cpp:"
# Room for the built-in prompts: llama.cpp takes memory for it when it opens the file.
FEWEST_POSITIONS = 1024
# What OpenAI's own /completions gives; others give N_TOP.
FEWEST_TOP = 5


@dataclass(frozen=True)
class Step:
    """A token of a continuation (None: not to be told from others), and what was said before it."""

    token_id: int | None
    next: Next | None


# Continues token ids by at most so many; an END is the last step of what ended by itself.
Continue = Callable[[Sequence[int], int], list[Step]]


def lead(ask: Continue, prompt: Sequence[int], along: Sequence[int]) -> Trace:
    """Lead a model along given tokens, asking as seldom as may be."""
    steps: list[Step] = []
    while len(steps) < len(along):
        made = ask([*prompt, *along[: len(steps)]], len(along) - len(steps))
        assert made
        for step in made:
            steps.append(step)
            if step.token_id != along[len(steps) - 1]:
                break
    return Trace(
        token_ids=tuple(along),
        choices=tuple(step.token_id for step in steps),
        nexts=tuple(step.next for step in steps),
    )


def go_on(ask: Continue, prompt: Sequence[int], n_tokens: int) -> Trace:
    """Let a model continue a prompt, as far as its tokens can be told."""
    steps = ask(prompt, n_tokens)
    known: list[Step] = []
    for step in steps:
        if step.token_id is None or step.token_id == END:
            break
        known.append(step)
    token_ids = tuple(step.token_id for step in known if step.token_id is not None)
    return Trace(token_ids, token_ids, tuple(step.next for step in known))


def trace(
    ask: Continue,
    prompts: Sequence[Sequence[int]],
    n_tokens: int,
    along: Sequence[Sequence[int]] | None,
) -> list[Trace]:
    """Continue each prompt, or lead along: `Witness.trace` of all that runs elsewhere."""
    if along is None:
        return [go_on(ask, prompt, n_tokens) for prompt in prompts]
    return [lead(ask, prompt, tokens) for prompt, tokens in zip(prompts, along, strict=True)]


class LlamaWitness:
    """A GGUF file in llama.cpp, which computes its own way and tells the likeliest tokens."""

    engine = "llama.cpp"

    def __init__(
        self, path: Path, *, name: str | None = None, n_threads: int | None = None
    ) -> None:
        """Nothing is loaded before it is asked; `n_threads` None leaves it to llama.cpp."""
        from lmwright.formats.gguf import open_gguf
        from lmwright.verification.local import weights_of

        self.name = name or f"{LLAMA_CPP}{path}"
        self.weights = weights_of(path)
        self._path, self._n_threads = path, n_threads
        metadata = open_gguf(path).metadata
        self.context_length = metadata.get(f"{metadata['general.architecture']}.context_length")
        self.n_ids = len(metadata["tokenizer.ggml.tokens"])
        # As we read it from the file: it names the tokens.
        self.tokenizer = gguf_tokenizer(metadata)
        self._llama: LlamaCpp | None = None

    def encode(self, prompt: Prompt) -> Encoded:
        """Let llama.cpp cut a text, or render and cut a dialogue."""
        llama = self._opened(FEWEST_POSITIONS)
        if isinstance(prompt, str):
            ids = llama.tokenize(prompt, add_special=True)
        elif len(prompt) and isinstance(prompt[0], dict):
            if self.tokenizer.chat_template is None:
                # llama.cpp would take one of its own.
                raise RequestError(f"{self.name} has no chat template; give it plain text instead")
            text = llama.render(cast(Sequence[Mapping[str, str]], prompt))
            ids = llama.tokenize(text, parse_special=True)
            begin = llama.tokenize("", add_special=True)
            if ids[: len(begin)] != begin:
                ids = [*begin, *ids]
        else:
            ids = prompt_ids(prompt, self.tokenizer)
        return Encoded(len(ids), tuple(ids))

    def trace(
        self,
        prompts: Sequence[Sequence[int]],
        n_tokens: int,
        *,
        along: Sequence[Sequence[int]] | None = None,
    ) -> list[Trace]:
        """Continue each prompt by its likeliest tokens, or be led along given ones."""
        self._opened(max(map(len, prompts)) + n_tokens)
        return trace(self._continue, prompts, n_tokens, along)

    def close(self) -> None:
        """End llama.cpp."""
        if self._llama is not None:
            self._llama.close()

    def _continue(self, ids: Sequence[int], n_tokens: int) -> list[Step]:
        made = self._opened(len(ids) + n_tokens).greedy(ids, n_tokens, n_top=N_TOP)
        return [
            Step(token_id, Next.likeliest(top))
            for token_id, top in zip(made.token_ids, made.top, strict=True)
        ]

    def _opened(self, n_positions: int) -> "LlamaCpp":
        """Return llama.cpp with room for so many tokens; the room is taken when it is opened."""
        from lmwright.verification.llama_cpp import LlamaCpp

        if self._llama is None or self._llama.n_context < n_positions:
            self.close()
            n_context = -(-max(n_positions, FEWEST_POSITIONS) // 256) * 256
            self._llama = LlamaCpp(self._path, n_context=n_context, n_threads=self._n_threads)
        return self._llama


class ServerWitness:
    """A model behind an OpenAI-compatible API, which takes token ids but tells texts."""

    engine = "server"
    weights: str | None = None
    context_length: int | None = None
    n_ids: int | None = None
    tokenizer: Tokenizer | None = None

    def __init__(self, model: "HostedModel", tokenizer: Tokenizer) -> None:
        """`tokenizer` is that of the model to be compared with: it names the ids of tokens."""
        self.name = model.name
        self._model = model
        self._n_top = N_TOP
        texts = [tokenizer.token(i) for i in range(tokenizer.vocab_size)]
        counts = Counter(texts)
        # Parts of characters, for example, are all shown as one and the same sign.
        self._ids = {text: i for i, text in enumerate(texts) if counts[text] == 1}

    def encode(self, prompt: Prompt) -> Encoded | None:
        """Ask how many tokens a text or a dialogue has."""
        try:
            [done] = self._model.generate([prompt], Sampling(max_tokens=1))
        except UnsupportedError:
            return None
        return None if done.n_prompt_tokens == UNKNOWN else Encoded(done.n_prompt_tokens)

    def trace(
        self,
        prompts: Sequence[Sequence[int]],
        n_tokens: int,
        *,
        along: Sequence[Sequence[int]] | None = None,
    ) -> list[Trace]:
        """Continue each prompt by its likeliest tokens, or be led along given ones."""
        return trace(self._continue, prompts, n_tokens, along)

    def _continue(self, ids: Sequence[int], n_tokens: int) -> list[Step]:
        sampling = Sampling(max_tokens=n_tokens, logprobs=self._n_top)
        try:
            [done] = self._model.generate([ids], sampling)
        except RequestError as error:
            if self._n_top == FEWEST_TOP or "logprobs" not in str(error):
                raise
            self._n_top = FEWEST_TOP
            return self._continue(ids, n_tokens)
        if len(done.logprobs) < len(done.token_ids):
            raise RequestError(
                f"{self.name}: tells no log-probabilities of what it writes (/completions with "
                "logprobs), so that there is nothing to compare"
            )
        steps = [Step(self._id(each), self._next(each)) for each in done.logprobs]
        if done.finish_reason == "stop" and len(steps) < n_tokens:
            steps.append(Step(END, None))
        return steps

    def _next(self, token: TokenLogprob) -> Next | None:
        told = {text: (id_, logprob) for id_, text, logprob in token.top}
        # Some servers do not repeat the chosen token among the likeliest.
        told.setdefault(token.text, (token.token_id, token.logprob))
        known = [
            (self._ids[text] if id_ == UNKNOWN else id_, logprob)
            for text, (id_, logprob) in told.items()
            if id_ != UNKNOWN or text in self._ids
        ]
        if not known:
            return None
        return Next.likeliest(known, is_gapless=len(known) == len(told))

    def _id(self, token: TokenLogprob) -> int | None:
        return self._ids.get(token.text) if token.token_id == UNKNOWN else token.token_id
