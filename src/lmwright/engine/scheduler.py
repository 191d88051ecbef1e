"""Which answers are written together: requests join at any step and leave when they are done.

Continuous batching over blocks of keys and values (Orca, Yu et al. 2022; vLLM, Kwon et al. 2023).
First come, first served; an answer starts when there are a row and all the blocks that it can
need, so that none is ever interrupted.
"""

from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from lmwright.core.errors import ContextLengthError, RequestError
from lmwright.engine.answer import RunningAnswer
from lmwright.engine.backend import NewTokens, WritingBackend
from lmwright.engine.blocks import BlockManager
from lmwright.engine.prefix_tree import n_common
from lmwright.engine.request import Chunk, Sampling
from lmwright.tokenizer.encode import Tokenizer


@dataclass(frozen=True)
class EngineLimits:
    """How much an engine does at a time."""

    # Answers that are written together. More give more tokens a second and need more memory.
    n_rows: int = 32
    # Tokens of a prompt that are read at once: it bounds memory, and how long answers that are
    # being written wait for their next token.
    chunk: int = 512
    # Such chunks a step while no answer is being written.
    n_chunks: int = 4
    # Tokens that two prompts must have in common for the second not to read them: a rest that is
    # read alone is rounded otherwise (in bf16), which a few tokens are not worth.
    min_shared: int = 64
    # Whether an answer has the same bits as if it were alone, also in bf16: prompts are read one at
    # a time and share nothing.
    is_isolated: bool = False
    # Tokens whose keys and values are kept at most; room for one whole context there is always.
    n_kv_tokens: int = 65_536

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not isinstance(value, bool) and value < 1:
                raise ValueError(f"{name} = {value}: expected 1 or more")


DEFAULT_LIMITS = EngineLimits()


@dataclass(eq=False)
class _Row:
    """A sequence in the batch: a prompt that is read for its answers, then one answer."""

    # What stands before the answers: see `Backend.decoder_prefix`.
    prefix: tuple[int, ...]
    prompt_ids: Sequence[int]
    answers: list[RunningAnswer]
    # Tokens that are not read yet, and how many are.
    pending: Sequence[int] = ()
    length: int = 0
    blocks: list[int] = field(default_factory=list)
    # Blocks of each answer of its own, where a prompt has several.
    own_blocks: dict[int, list[int]] = field(default_factory=dict)
    source: int | None = None
    is_writing: bool = False


class Engine:
    """Writes answers with one backend, those of several requests together; not thread-safe."""

    def __init__(
        self, backend: WritingBackend, tokenizer: Tokenizer, limits: EngineLimits = DEFAULT_LIMITS
    ) -> None:
        self._backend, self._tokenizer, self._limits = backend, tokenizer, limits
        self._session = backend.open_session()
        self._context_length = backend.info.context_length or limits.n_kv_tokens
        n_tokens = max(limits.n_kv_tokens, self._context_length)
        size = self._session.block_size
        self._blocks = BlockManager(-(-n_tokens // size), size)
        self._waiting: deque[_Row] = deque()
        self._rows: list[_Row] = []
        self._n_added = 0
        self._n_readers: Counter[int] = Counter()  # rows of each source

    @property
    def n_running(self) -> int:
        """How many answers have a row, or wait in one for their prompt to be read."""
        return sum(len(row.answers) for row in self._rows)

    @property
    def is_idle(self) -> bool:
        """Whether there is nothing to do."""
        return not self._rows and not self._waiting

    def add(self, prompt_ids: Sequence[int], samplings: Sequence[Sampling]) -> list[int]:
        """Queue answers to one prompt, which is read once for all; return their numbers.

        What `LocalModel.admit` returns fits; else this is a `RequestError`.
        """
        if not 1 <= len(samplings) <= self._limits.n_rows:
            raise RequestError(
                f"{len(samplings)} answers to one prompt: expected 1 to {self._limits.n_rows}"
            )
        prefix = tuple(self._backend.decoder_prefix(prompt_ids))
        if not len(prompt_ids):
            raise RequestError("the prompt is empty")
        answers = []
        for sampling in samplings:
            if sampling.n_beams > 1 or sampling.max_tokens is None:
                raise RequestError("an engine draws tokens, up to a limit; `admit` the request")
            if len(prefix) + sampling.max_tokens > self._context_length:
                raise ContextLengthError(
                    f"{len(prefix)} prompt tokens + max_tokens: {sampling.max_tokens} more do not "
                    f"fit into the context of {self._context_length}"
                )
            answers.append(
                RunningAnswer(
                    self._n_added + len(answers),
                    len(prompt_ids),
                    prefix=prefix,
                    tokenizer=self._tokenizer,
                    sampling=sampling,
                    constraints=self._backend.constraints,
                )
            )
        row = _Row(prefix, prompt_ids, answers, pending=prefix)
        n_kept, n_own = self._n_blocks(row)
        if n_kept + sum(n_own) > self._blocks.n_blocks:
            raise RequestError(
                f"{len(samplings)} answers to {len(prefix)} tokens: together they need more than "
                f"the {self._blocks.n_blocks * self._blocks.block_size} tokens that are kept"
            )
        self._n_added += len(answers)
        self._waiting.append(row)
        return [answer.number for answer in answers]

    def step(self) -> list[tuple[int, Chunk]]:
        """Go on with all that runs; return (number, piece) of what became certain.

        The piece that carries a completion is an answer's last.
        """
        self._start_waiting()
        work = list(self._next_work())
        if not work:
            return []
        logits = self._forward([tokens for _, tokens in work])
        pieces: list[tuple[int, Chunk]] = []
        for (row, tokens), scores in zip(work, logits, strict=True):
            row.length += len(tokens.token_ids)
            row.pending = row.pending[len(tokens.token_ids) :]
            if row.pending:
                continue
            row.is_writing = True
            for answer in row.answers:
                chunk = answer.advance(scores)
                if chunk.text or chunk.logprobs or chunk.completion:
                    pieces.append((answer.number, chunk))
        self._rows = [each for row in self._rows for each in self._continued(row)]
        return pieces

    def _forward(self, work: Sequence[NewTokens]) -> list[np.ndarray]:
        """Return the logits (V,) behind each; if isolated, only single tokens are read together."""
        if not self._limits.is_isolated:
            return list(self._session.forward(work))
        singles = [i for i, tokens in enumerate(work) if len(tokens.token_ids) == 1]
        batches = [singles, *([i] for i in range(len(work)) if i not in singles)]
        logits: dict[int, np.ndarray] = {}
        for batch in filter(None, batches):
            logits.update(zip(batch, self._session.forward([work[i] for i in batch]), strict=True))
        return [logits[i] for i in range(len(work))]

    def cancel(self, answer_id: int) -> None:
        """Stop an answer; its row and its blocks are free at once. One that is done is left."""
        for rows in (self._rows, self._waiting):
            for row in rows:
                for answer in row.answers:
                    if answer.number == answer_id:
                        row.answers.remove(answer)
                        self._blocks.release(row.own_blocks.pop(answer_id, ()))
                        if not row.answers:
                            self._drop(row)
                            rows.remove(row)
                        return

    def _start_waiting(self) -> None:
        """Give rows and blocks to those who wait, in their order, as far as there are any."""
        started: list[_Row] = []
        while self._waiting and self._start(self._waiting[0]):
            started.append(self._waiting.popleft())
            self._rows.append(started[-1])
        if started and self._backend.info.kind == "encoder-decoder":
            sources = self._session.read_sources([row.prompt_ids for row in started])
            for row, source in zip(started, sources, strict=True):
                row.source = source
                self._n_readers[source] += 1

    def _start(self, row: _Row) -> bool:
        if self.n_running + len(row.answers) > self._limits.n_rows:
            return False
        shared = self._shared_blocks(row)
        n_kept, n_own = self._n_blocks(row)
        if shared is None or n_kept + sum(n_own) - len(shared) > self._blocks.n_free:
            return False
        row.blocks = self._blocks.share(shared) + self._blocks.allocate(n_kept - len(shared))
        row.length = len(shared) * self._blocks.block_size
        row.pending = row.prefix[row.length :]
        # One of several answers has blocks of its own.
        for answer, n in zip(row.answers, n_own, strict=False):
            row.own_blocks[answer.number] = self._blocks.allocate(n)
        return True

    def _n_blocks(self, row: _Row) -> tuple[int, list[int]]:
        """Count the blocks that a row can need, and of several answers those of each besides."""
        n_prompt = len(row.prefix)
        ends = [n_prompt + (answer.sampling.max_tokens or 0) for answer in row.answers]
        n_all = [self._blocks.n_needed(end) for end in ends]
        if len(n_all) == 1:
            return n_all[0], []
        # They begin with the prompt's last, partial one.
        n_full = n_prompt // self._blocks.block_size
        return self._blocks.n_needed(n_prompt), [n - n_full for n in n_all]

    def _shared_blocks(self, row: _Row) -> list[int] | None:
        """Return full blocks that hold the prompt's beginning, of a row that runs; None: wait.

        It is worth waiting for a row that is still reading what this one begins with.
        """
        if self._limits.is_isolated:
            return []
        size = self._blocks.block_size
        best: list[int] = []
        n_coming = 0
        # One token at least is read anew: its logits are wanted.
        prefix = row.prefix[:-1]
        for other in self._rows:
            n_alike = n_common(prefix, other.prefix, size=size)
            if n_alike * size < self._limits.min_shared:
                continue
            n_there = min(n_alike, other.length // size)
            n_coming = max(n_coming, n_alike)
            if n_there > len(best):
                best = other.blocks[:n_there]
        return best if n_coming == len(best) else None

    def _next_work(self) -> Iterator[tuple[_Row, NewTokens]]:
        """Yield what is read now: a token of each answer, then prompts within the limits."""
        n_chunks = self._limits.n_chunks
        for row in self._rows:
            if row.is_writing:
                n_chunks = 1
                yield row, NewTokens(row.pending, row.length, row.blocks, row.source)
        budget = n_chunks * self._limits.chunk
        for row in self._rows:
            if row.is_writing or budget <= 0:
                continue
            # Cut at the same places whatever else runs, so that this changes no result.
            tokens = row.pending[: self._limits.chunk]
            budget -= len(tokens)
            yield row, NewTokens(tokens, row.length, row.blocks, row.source)

    def _continued(self, row: _Row) -> Iterator[_Row]:
        """Yield the rows that go on after a step: one an answer that has not ended."""
        if row.pending:
            yield row
            return
        going = [answer for answer in row.answers if not answer.is_finished]
        if going and not row.own_blocks:
            row.pending = going[0].token_ids[-1:]
            yield row
            return
        for answer in going:
            yield self._fork(row, answer)
        self._drop(row)

    def _fork(self, row: _Row, answer: RunningAnswer) -> _Row:
        """Give an answer a row of its own, which shares the full blocks of the prompt."""
        n_full = row.length // self._blocks.block_size
        own = row.own_blocks.pop(answer.number)
        if len(row.blocks) > n_full:
            self._session.copy_blocks([(row.blocks[n_full], own[0])])
        if row.source is not None:
            self._n_readers[row.source] += 1
        blocks = self._blocks.share(row.blocks[:n_full]) + own
        pending = answer.token_ids[-1:]
        return replace(row, answers=[answer], pending=pending, blocks=blocks, own_blocks={})

    def _drop(self, row: _Row) -> None:
        self._blocks.release(row.blocks)
        for blocks in row.own_blocks.values():
            self._blocks.release(blocks)
        if row.source is not None:
            self._n_readers[row.source] -= 1
            if not self._n_readers[row.source]:
                del self._n_readers[row.source]
                self._session.free_source(row.source)
