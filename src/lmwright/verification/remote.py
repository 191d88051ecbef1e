"""Subjects that run elsewhere, a GGUF in llama.cpp and a server; and how any subject is opened.

Both only continue a prompt. To teacher-force one it is asked to continue, and where it takes
another token than the given one, it is asked again behind the given one.
"""

import itertools
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

from lmwright.core.errors import ModelError, RequestError, UnsupportedError
from lmwright.engine.prompts import prompt_ids
from lmwright.engine.request import UNKNOWN, Prompt, Sampling, TokenLogprob
from lmwright.formats.gguf import open_gguf
from lmwright.hosted.address import is_hosted
from lmwright.hub import resolve
from lmwright.tokenizer.encode import Tokenizer
from lmwright.tokenizer.gguf.reader import gguf_tokenizer
from lmwright.tokenizer.gguf.writer import is_simplified
from lmwright.verification.llama_cpp import LlamaCpp
from lmwright.verification.stored import weights_of
from lmwright.verification.subject import (
    END,
    N_TOP,
    IdRows,
    LocalSubject,
    NextToken,
    PromptTokens,
    Subject,
    Trace,
    open_path,
)
from lmwright.verification.tolerances import check_format

if TYPE_CHECKING:
    from lmwright.hosted.model import HostedModel

# How a GGUF that llama.cpp shall open is written.
LLAMA_CPP = "llama.cpp:"
# Room for the built-in prompts: llama.cpp takes memory for it when it opens the file.
FEWEST_POSITIONS = 1024
# What OpenAI's own /completions gives; others give N_TOP.
FEWEST_TOP = 5


@dataclass(frozen=True)
class ToldToken:
    """A token of a continuation (None: not to be told from others), and what was said before it."""

    token_id: int | None
    next: NextToken | None


# Continues token ids by at most so many; an END is the last of what ended by itself.
Continue = Callable[[Sequence[int], int], list[ToldToken]]


def trace(ask: Continue, prompts: IdRows, n_tokens: int, forced: IdRows | None) -> list[Trace]:
    """Continue each prompt, or teacher-forced: `Subject.trace` of all that runs elsewhere."""
    if forced is None:
        return [free_trace(ask, prompt, n_tokens) for prompt in prompts]
    return [forced_trace(ask, *pair) for pair in zip(prompts, forced, strict=True)]


def free_trace(ask: Continue, prompt: Sequence[int], n_tokens: int) -> Trace:
    """Let a model continue a prompt, as far as its tokens can be told."""
    told = itertools.takewhile(lambda t: t.token_id not in (None, END), ask(prompt, n_tokens))
    known = [(t.token_id, t.next) for t in told if t.token_id is not None]
    token_ids = tuple(token_id for token_id, _ in known)
    return Trace(token_ids, token_ids, tuple(said for _, said in known))


def forced_trace(ask: Continue, prompt: Sequence[int], forced: Sequence[int]) -> Trace:
    """Teacher-force a model along given tokens, asking as seldom as may be."""
    told: list[ToldToken] = []
    while len(told) < len(forced):
        made = ask([*prompt, *forced[: len(told)]], len(forced) - len(told))
        assert made
        for token in made:
            told.append(token)
            if token.token_id != forced[len(told) - 1]:
                break
    return Trace(tuple(forced), tuple(t.token_id for t in told), tuple(t.next for t in told))


class LlamaSubject:
    """A GGUF file in llama.cpp, which computes its own way and tells the likeliest tokens."""

    engine: str = "llama.cpp"
    is_gguf: bool = True

    def __init__(
        self,
        path: Path,
        *,
        name: str | None = None,
        n_threads: int | None = None,
        here: LocalSubject | None = None,
    ) -> None:
        """Nothing is loaded before it is asked; `n_threads` None leaves it to llama.cpp.

        `here` is the same file where it is open already.
        """
        self.name = name or f"{LLAMA_CPP}{path}"
        self.weights: str | None = weights_of(path)
        self._path, self._n_threads = path, n_threads
        metadata = open_gguf(path).metadata
        architecture = metadata["general.architecture"]
        self.context_length: int | None = metadata.get(f"{architecture}.context_length")
        self.n_ids: int | None = len(metadata["tokenizer.ggml.tokens"])
        # As we read it from the file: it names the tokens.
        self.tokenizer = gguf_tokenizer(metadata)
        self._rules: str | None = metadata.get("tokenizer.ggml.pre")
        self._llama: LlamaCpp | None = None
        self._here = here

    @property
    def here(self) -> LocalSubject:
        """The same file opened in lmwright."""
        self._here = self._here or open_path(self._path, name=self.name)
        return self._here

    def encode(self, prompt: Prompt) -> PromptTokens:
        """Let llama.cpp cut a text, or render and cut a dialogue."""
        llama = self._opened(FEWEST_POSITIONS)
        text = ""
        if isinstance(prompt, str):
            text = prompt
            ids = llama.tokenize(text, add_special=True)
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
        return PromptTokens(len(ids), tuple(ids), is_simplified=is_simplified(text, self._rules))

    def trace(self, prompts: IdRows, n_tokens: int, forced: IdRows | None = None) -> list[Trace]:
        """Continue each prompt by its likeliest tokens, or teacher-forced by given ones."""
        self._opened(max(map(len, prompts)) + n_tokens)
        return trace(self._continue, prompts, n_tokens, forced)

    def close(self) -> None:
        """End llama.cpp."""
        if self._llama is not None:
            self._llama.close()

    def _continue(self, ids: Sequence[int], n_tokens: int) -> list[ToldToken]:
        made = self._opened(len(ids) + n_tokens).greedy(ids, n_tokens, n_top=N_TOP)
        steps = zip(made.token_ids, made.top, made.is_asked_again, strict=True)
        return [
            ToldToken(token_id, NextToken.likeliest(top, is_asked_again=again))
            for token_id, top, again in steps
        ]

    def _opened(self, n_positions: int) -> LlamaCpp:
        """Return llama.cpp with room for so many tokens; the room is taken when it is opened."""
        if self._llama is None or self._llama.n_context < n_positions:
            self.close()
            n_context = -(-max(n_positions, FEWEST_POSITIONS) // 256) * 256
            self._llama = LlamaCpp(self._path, n_context=n_context, n_threads=self._n_threads)
        return self._llama


class ServerSubject:
    """A model behind an OpenAI-compatible API, which takes token ids but tells texts."""

    engine: str = "server"
    is_gguf: bool = False
    context_length: int | None = None
    n_ids: int | None = None
    tokenizer: Tokenizer | None = None
    here: LocalSubject | None = None

    def __init__(
        self, model: "HostedModel", tokenizer: Tokenizer, *, weights: str | None = None
    ) -> None:
        """`tokenizer` is that of the model to be compared with: it names the ids of tokens.

        `weights` is how the server stores its weights, if that is known: no API tells it.
        """
        self.name = model.name
        self.weights = weights
        self._model = model
        self._n_top = N_TOP
        texts = [tokenizer.token(i) for i in range(tokenizer.n_ids)]
        counts = Counter(texts)
        # Parts of characters, for example, are all shown as one and the same sign.
        self._ids = {text: i for i, text in enumerate(texts) if counts[text] == 1}

    def encode(self, prompt: Prompt) -> PromptTokens | None:
        """Ask how many tokens a text or a dialogue has."""
        try:
            [done] = self._model.generate([prompt], Sampling(max_tokens=1))
        except UnsupportedError:
            return None
        return None if done.n_prompt_tokens == UNKNOWN else PromptTokens(done.n_prompt_tokens)

    def trace(self, prompts: IdRows, n_tokens: int, forced: IdRows | None = None) -> list[Trace]:
        """Continue each prompt by its likeliest tokens, or teacher-forced by given ones."""
        return trace(self._continue, prompts, n_tokens, forced)

    def _continue(self, ids: Sequence[int], n_tokens: int) -> list[ToldToken]:
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
        steps = [ToldToken(self._id(each), self._next(each)) for each in done.logprobs]
        if done.finish_reason == "stop" and len(steps) < n_tokens:
            steps.append(ToldToken(END, None))
        return steps

    def _next(self, token: TokenLogprob) -> NextToken | None:
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
        return NextToken.likeliest(known, is_gapless=len(known) == len(told))

    def _id(self, token: TokenLogprob) -> int | None:
        return self._ids.get(token.text) if token.token_id == UNKNOWN else token.token_id


def open_pair(
    first: str, second: str, *, server_weights: str | None = None
) -> tuple[Subject, Subject]:
    """Open two models: as everywhere, or llama.cpp:FILE.gguf, or openai:MODEL@URL.

    `server_weights` is the number format that a server holds its weights in, such as "fp16".
    """
    weights = None if server_weights is None else check_format(server_weights)
    if weights is not None and not (is_hosted(first) or is_hosted(second)):
        raise RequestError(
            f"--server-weights {weights}: neither {first} nor {second} is a server; files tell "
            "their formats themselves"
        )
    here = {name: open_subject(name) for name in (first, second) if not is_hosted(name)}
    if not here:
        raise RequestError(
            f"{first} and {second}: two servers, neither of which shows its tokens; one of the "
            "two must be a model whose files are here"
        )
    [tokenizer, *_] = [subject.tokenizer for subject in here.values()]
    a, b = (here.get(name) or _server(name, tokenizer, weights) for name in (first, second))
    return a, b


def close(*subjects: Subject) -> None:
    """End the programs that were started for them."""
    for subject in subjects:
        if isinstance(subject, LlamaSubject):
            subject.close()


def open_subject(name: str) -> LocalSubject | LlamaSubject:
    """Open a model whose files are here, in lmwright or in llama.cpp."""
    if name.startswith(LLAMA_CPP):
        path = resolve(name.removeprefix(LLAMA_CPP))
        if path.suffix != ".gguf":
            raise ModelError(f"{name}: llama.cpp opens .gguf files; lmwright convert makes one")
        return LlamaSubject(path, name=name)
    return open_path(resolve(name), name=name)


def _server(name: str, tokenizer: Tokenizer, weights: str | None) -> ServerSubject:
    from lmwright.hosted.config import Hosted
    from lmwright.hosted.model import HostedModel

    # An answer that was kept says nothing of the server that runs now.
    return ServerSubject(HostedModel(name, Hosted(cache=False)), tokenizer, weights=weights)
