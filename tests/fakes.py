"""A tokenizer and a backend of plain arithmetic, for tests of what stands above a model.

A real `LocalModel` and a real `Engine` run on them, without torch:

    model = fake_model(reply=lambda prompt: "Here you are.")
    model.generate(["Hi"], Sampling())

The backend keeps what it reads in blocks, as others keep keys and values, and sees nothing but what
lies there: a table that is wrong, or a block that two sequences write to, changes an answer.
"""

import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lmwright.core.errors import RequestError
from lmwright.engine.backend import Capability, EdgeScores, LogitConstraints, NewTokens, Pair
from lmwright.engine.info import ModelInfo
from lmwright.engine.request import Classification
from lmwright.lm import LocalModel
from lmwright.tokenizer.encode import Encoding, check_messages
from lmwright.tokenizer.stream import StreamDecoder

# The token that ends an answer; all others are bytes.
END = 256
VOCAB_SIZE = 257
ALPHABET = "abcdefghijklmnopqrstuvwxyz"
# How the last line of a dialogue begins, behind which the answer comes.
TURN = "assistant: "
FREE = LogitConstraints()

Logits = Callable[[tuple[int, ...], tuple[int, ...]], np.ndarray]


class ByteTokenizer:
    """One token a byte; a dialogue is a line a message, `role: content`."""

    vocab_size = n_ids = VOCAB_SIZE
    bos_id = cls_id = sep_id = mask_id = pad_id = None
    eos_ids = (END,)
    chat_template = translation = None

    def __init__(self, *, can_chat: bool = True) -> None:
        self.chat_template = "role: content" if can_chat else None

    def encode(self, text: str, *, add_bos: bool = True) -> list[int]:
        return list(text.encode())

    def decode(self, ids: Sequence[int], *, skip_special: bool = True) -> str:
        return bytes(id_ for id_ in ids if id_ < END).decode(errors="replace")

    def token(self, id_: int) -> str:
        return "<end>" if id_ == END else self.decode([id_])

    def stream(self) -> StreamDecoder:
        return StreamDecoder(self.decode)

    def encode_input(self, text: str, pair: str | None = None, **_: Any) -> Encoding:
        ids, more = self.encode(text), self.encode(pair or "")
        spans = [(i, i + 1) for i in range(len(ids) + len(more))]
        return Encoding([*ids, *more], [0] * len(ids) + [1] * len(more), spans)

    def chat(self, messages: Sequence[Any], *, add_generation_prompt: bool = True) -> list[int]:
        check_messages(messages)
        if self.chat_template is None:
            raise RequestError("this model has no chat template; give it plain text instead")
        if messages[0]["role"] == "assistant":
            raise RequestError("the chat template refuses this dialogue: user first")
        lines = "".join(f"{m['role']}: {m['content']}\n" for m in messages)
        return self.encode(lines + TURN * add_generation_prompt)

    def save(self, folder: Path) -> None:
        (folder / "tokenizer.txt").write_text("bytes")


def recite(prompt: str) -> str:
    """Answer everything with the alphabet, over and over."""
    return ALPHABET * 400


def answer_to(replies: Mapping[str, str], other: str = "Here you are.") -> Callable[[str], str]:
    """Answer the last message of a dialogue, or a text, from a table."""

    def reply(prompt: str) -> str:
        question = prompt.removesuffix("\n" + TURN).rpartition("user: ")[2]
        return replies.get(question, other)

    return reply


class FakeBackend:
    """Writes what `reply` says of the prompt's text, and likes each word of `likes` by its nats.

    Knobs: `logits` (prompt ids, ids said so far) decides in place of `reply`. `sharpness` is the
    logit of the next letter, all others being 0: the smaller, the more a temperature changes.
    `wait_s` is slept for each new token; each step waits for `steps`, if given. A prompt that holds
    "refuse" is refused; with "explode" in it, reading fails.
    """

    pooling = None

    def __init__(
        self,
        *,
        reply: Callable[[str], str] = recite,
        logits: Logits | None = None,
        sharpness: float = 30.0,
        likes: Mapping[str, float] | None = None,
        # Added to the first log-probability of each answer that is scored with others.
        batch_error: float = 0.0,
        wait_s: float = 0.0,
        steps: threading.Semaphore | None = None,
        context_length: int = 2048,
        dtype: str = "float32",
        kind: str = "decoder",
        block_size: int = 4,
        labels: tuple[str, ...] = (),
        constraints: LogitConstraints = FREE,
    ) -> None:
        self.info = ModelInfo("fake", 1000, 4000, 32.0, context_length, dtype, "cpu", kind)
        can: set[Capability] = {"embed"} if kind == "encoder" else {"embed", "generate", "score"}
        self.capabilities = frozenset[Capability](can | ({"classify"} if labels else set()))
        self.constraints, self.labels, self.block_size = constraints, labels, block_size
        self._logits = logits or self._spell
        self._reply, self._sharpness = reply, sharpness
        self._likes, self._batch_error = likes or {}, batch_error
        self._wait_s, self._gate = wait_s, steps
        self.prompts: list[tuple[int, ...]] = []  # that an answer was asked to
        self.steps: list[list[NewTokens]] = []  # what was read in each of them
        self.n_scored = 0  # tokens

    def decoder_prefix(self, prompt: Sequence[int]) -> Sequence[int]:
        text = ByteTokenizer().decode(prompt)
        if "refuse" in text:
            raise RequestError("this prompt cannot be continued")
        if tuple(prompt) not in self.prompts:
            self.prompts.append(tuple(prompt))
        return prompt if self.info.kind == "decoder" else (END,)

    def open_session(self) -> "FakeSession":
        return FakeSession(self)

    def next_logits(self, ids: tuple[int, ...], source: tuple[int, ...] | None) -> np.ndarray:
        """Return the logits (V,) behind a whole row."""
        if source is not None:
            return self._logits(source, ids[1:])
        known = (prompt for prompt in self.prompts if ids[: len(prompt)] == prompt)
        prompt = max(known, key=len, default=ids)
        if "explode" in ByteTokenizer().decode(prompt) and len(ids) > len(prompt):
            raise RuntimeError(f"cannot go on after {ids}")
        return self._logits(prompt, ids[len(prompt) :])

    def work(self, rows: Sequence[NewTokens]) -> None:
        """Take the time that a step takes."""
        self.steps.append(list(rows))
        if self._gate is not None:
            assert self._gate.acquire(timeout=10)
        time.sleep(self._wait_s * sum(len(row.token_ids) for row in rows))

    def score(self, pairs: Sequence[Pair], n_top: int = 0) -> list[EdgeScores]:
        return [self._scored(pair, n_top, is_alone=len(pairs) == 1) for pair in pairs]

    def embed(self, prompts: Sequence[Sequence[int]]) -> np.ndarray:
        if any("explode" in ByteTokenizer().decode(prompt) for prompt in prompts):
            raise RuntimeError("cannot embed this")
        return np.array([[len(prompt), 0.5] for prompt in prompts], dtype=np.float32)

    def classify(self, texts: Sequence[Encoding]) -> list[Classification]:
        """A text belongs to the class that its length counts off."""
        ones = np.eye(len(self.labels))
        return [
            Classification(self.labels, tuple(ones[len(text.ids) % len(ones)]), "single_label")
            for text in texts
        ]

    def classify_tokens(self, texts: Sequence[Encoding]) -> list[list[Classification]]:
        raise AssertionError("not among the capabilities")

    def save(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "fake.txt").write_text("no weights")

    def _spell(self, prompt: tuple[int, ...], said: tuple[int, ...]) -> np.ndarray:
        reply = [*self._reply(ByteTokenizer().decode(prompt)).encode(), END]
        logits = np.zeros(VOCAB_SIZE, dtype=np.float32)
        logits[reply[min(len(said), len(reply) - 1)]] = self._sharpness
        return logits

    def _scored(self, pair: Pair, n_top: int, *, is_alone: bool) -> EdgeScores:
        """Say how likely an answer is: a byte by its value, more for each word that is liked."""
        ids = np.array(pair.answer.scored_ids)
        text = ByteTokenizer().decode(ids.tolist())
        liked = sum(nats for word, nats in self._likes.items() if word in text)
        logprobs = -1.0 - (ids % 7) / 10 + liked
        logprobs[0] += 0.0 if is_alone else self._batch_error
        self.n_scored += len(ids)
        top = np.arange(n_top)
        return EdgeScores(
            logprobs,
            np.zeros(len(ids), dtype=bool),
            np.tile(top + 65, (len(ids), 1)),
            np.tile(-6.5 - top, (len(ids), 1)),
        )


class FakeSession:
    """Token ids in numbered blocks; what nobody has written is NaN."""

    def __init__(self, backend: FakeBackend) -> None:
        self.block_size = backend.block_size
        self._backend = backend
        self._blocks: dict[int, list[float]] = {}
        self.sources: dict[int, tuple[int, ...]] = {}
        self._n_sources = 0

    def forward(self, rows: Sequence[NewTokens]) -> np.ndarray:
        self._backend.work(rows)
        for row in rows:
            for i, id_ in enumerate(row.token_ids, start=row.start):
                block = self._block(row.blocks[i // self.block_size])
                block[i % self.block_size] = id_
        found = []
        for row in rows:
            n_tokens = row.start + len(row.token_ids)
            slots = [slot for block in row.blocks for slot in self._block(block)][:n_tokens]
            assert not any(math.isnan(slot) for slot in slots), "read before it was written"
            source = None if row.source is None else self.sources[row.source]
            found.append(self._backend.next_logits(tuple(map(int, slots)), source))
        return np.stack(found)

    def copy_blocks(self, pairs: Sequence[tuple[int, int]]) -> None:
        for source, target in pairs:
            self._blocks[target] = list(self._block(source))

    def read_sources(self, prompts: Sequence[Sequence[int]]) -> list[int]:
        numbers = list(range(self._n_sources, self._n_sources + len(prompts)))
        self._n_sources += len(prompts)
        self.sources |= {n: tuple(prompt) for n, prompt in zip(numbers, prompts, strict=True)}
        return numbers

    def free_source(self, source: int) -> None:
        del self.sources[source]

    def _block(self, number: int) -> list[float]:
        return self._blocks.setdefault(number, [math.nan] * self.block_size)


def fake_model(name: str = "fake", **knobs: Any) -> LocalModel:
    """Return a model on a `FakeBackend` with these knobs."""
    tokenizer: Any = ByteTokenizer(can_chat=knobs.pop("can_chat", True))
    return LocalModel(FakeBackend(**knobs), tokenizer, name=name)
