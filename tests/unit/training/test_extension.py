"""A task or a loss that src/ has never heard of must train, resume and be measured as ours do."""

from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lmwright.core.errors import DataError
from lmwright.core.results import Row, read_rows, write_rows
from lmwright.finetuning.chat import CHAT
from lmwright.model.transformer import EncoderLM
from lmwright.training import log
from lmwright.training.batches import IGNORE, Encoded, PackedBatch, pack
from lmwright.training.config import TrainingConfig
from lmwright.training.fit import BEST, STATE, fit
from lmwright.training.state import trained_weights
from lmwright.training.task import Audit, Task, encode_all

# A task from outside: say which label a text has.


@dataclass(frozen=True)
class Labelled:
    id: str
    text: str
    label: str


@dataclass(frozen=True)
class LabelledBatch:
    tokens: Tensor  # (B, T)
    mask: Tensor  # (B, T), False at padding
    labels: Tensor  # (B,)

    @property
    def n_tokens(self):
        return int(self.mask.sum())

    @property
    def n_targets(self):
        return len(self.labels)

    def to(self, device):
        return LabelledBatch(*(t.to(device) for t in (self.tokens, self.mask, self.labels)))


LABELS = ("card", "loan")


def encode(example, tokenizer, max_length):
    ids = tokenizer.encode_input(example.text).ids
    if len(ids) > max_length:
        raise DataError(f"{example.id}: {len(ids)} tokens, more than {max_length}")
    return ids, LABELS.index(example.label)


def audit(examples, tokenizer):
    shown = tuple((tokenizer.token(id_), False) for id_ in examples[0][0])
    return Audit(len(examples), sum(len(ids) for ids, _ in examples), len(examples), shown)


def collate(examples, generator):
    rows = nn.utils.rnn.pad_sequence([torch.tensor(ids) for ids, _ in examples], True, -1)
    noise = torch.rand(rows.shape, generator=generator) < 0.1  # some words are hidden
    tokens = rows.masked_fill(noise | (rows < 0), 1)
    return LabelledBatch(tokens, rows >= 0, torch.tensor([label for _, label in examples]))


def loss(model, batch):
    logits = model(batch.tokens, mask=batch.mask)
    return F.cross_entropy(logits, batch.labels, reduction="sum"), len(batch.labels)


def with_head(model, examples):
    labels = tuple(sorted({example.label for example in examples}))
    classifier = EncoderLM(replace(model.config, head="sequence", labels=labels))
    classifier.load_state_dict(model.state_dict(), strict=False)
    classifier.head = nn.Sequential(nn.Dropout(0.2), classifier.head)
    return classifier.requires_grad_(True)


CLASSIFY = Task("classify", encode, audit, lambda example: len(example[0]), collate, loss,
                head=with_head, metrics=("accuracy",))  # fmt: skip


# It is trained, resumed and measured through the records alone.

CONFIG = TrainingConfig(epochs=6, batch_size=8, micro_batch_tokens=80, checkpoint_every=3, seed=1)
LR = 1e-2
TEXTS = {"card": "My card number {} was stolen", "loan": "I want a loan of {} euros"}
EXAMPLES = [Labelled(f"{k}-{n}", t.format(n), k) for n in range(16) for k, t in TEXTS.items()]
TRAIN, HELDOUT = EXAMPLES[:24], EXAMPLES[24:]


def accuracy(model, examples, tokenizer) -> list[Row]:
    encoded, _ = encode_all(CLASSIFY, examples, tokenizer, 64)
    rows = []
    for example, (ids, label) in zip(examples, encoded, strict=True):
        guess = int(model(torch.tensor([ids])).argmax())
        rows.append(Row(example.id, (float(guess == label), 1.0), detail=LABELS[guess]))
    return rows


METRICS = {"accuracy": accuracy}


@pytest.fixture
def classifier(tiny_encoder):
    def fresh():
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return CLASSIFY.head(tiny_encoder(), TRAIN)

    return fresh


@pytest.fixture
def parts(framing_tokenizer):
    return [encode_all(CLASSIFY, part, framing_tokenizer, 64)[0] for part in (TRAIN, HELDOUT)]


def kill_after(monkeypatch, step):
    original = log.append

    def append(path, line):
        original(path, line)
        if line["step"] == step:
            raise KeyboardInterrupt

    monkeypatch.setattr(log, "append", append)


def weights(model, out: Path):
    kept = {name: tensor.numpy().tobytes() for name, tensor in trained_weights(model).items()}
    return kept, (out / STATE / BEST).read_bytes()


def test_a_new_task_is_learnt_and_measured(classifier, parts, framing_tokenizer, tmp_path):
    model = classifier()
    outcome = fit(model, CLASSIFY, *parts, config=CONFIG, lr=LR, out=tmp_path)
    assert outcome["n_steps"] == 18
    assert outcome["best_validation_loss"] < 0.3
    for name in CLASSIFY.metrics:
        write_rows(tmp_path / "rows.parquet", METRICS[name](model, HELDOUT, framing_tokenizer))
        rows = read_rows(tmp_path / "rows.parquet")
        assert [row.item for row in rows] == [example.id for example in HELDOUT]
        assert [sum(column) for column in zip(*(row.sums for row in rows), strict=True)] == [8, 8]


@pytest.mark.parametrize("step", [1, 4, 11])
def test_dropout_and_noise_resume_in_the_same_bytes(classifier, parts, tmp_path, step):
    whole, out = tmp_path / "whole", tmp_path / "out"
    expected = classifier()
    fit(expected, CLASSIFY, *parts, config=CONFIG, lr=LR, out=whole)
    with pytest.MonkeyPatch.context() as patch:
        kill_after(patch, step)
        with pytest.raises(KeyboardInterrupt):
            fit(classifier(), CLASSIFY, *parts, config=CONFIG, lr=LR, out=out)
    torch.rand(step)  # another process, whose own random numbers are others
    model = classifier()
    fit(model, CLASSIFY, *parts, config=CONFIG, lr=LR, out=out)
    assert weights(model, out) == weights(expected, whole)


@pytest.mark.parametrize("without", ["dropout", "noise"])
def test_both_kinds_of_randomness_have_an_effect(classifier, parts, tmp_path, without):
    """Else the test above would prove nothing."""
    found = []
    for name in ("with", "without"):
        model, task = classifier(), CLASSIFY
        if name == "without" and without == "dropout":
            model.head[0].p = 0.0
        if name == "without" and without == "noise":
            task = replace(CLASSIFY, collate=lambda batch, _: collate(batch, torch.Generator()))
        out = tmp_path / name
        fit(model, task, *parts, config=CONFIG, lr=LR, out=out)
        found.append(weights(model, out))
    assert found[0] != found[1]


# Losses from outside: another loss for the same examples, and one that compares two answers.


def smoothed(model, batch):
    hidden = model.packed_hidden(batch.tokens, batch.positions, batch.segments)
    is_target = batch.targets != IGNORE
    logits, targets = model.head(hidden[is_target]), batch.targets[is_target]
    return F.cross_entropy(logits, targets, label_smoothing=0.1, reduction="sum"), len(targets)


@dataclass(frozen=True)
class PairBatch:
    better: PackedBatch
    worse: PackedBatch
    n_targets: int

    @property
    def n_tokens(self):
        return self.better.n_tokens + self.worse.n_tokens

    def to(self, device):
        return PairBatch(self.better.to(device), self.worse.to(device), self.n_targets)


def log_probabilities(model, batch):
    logits = model.head(model.packed_hidden(batch.tokens, batch.positions, batch.segments))
    losses = F.cross_entropy(logits, batch.targets, ignore_index=IGNORE, reduction="none")
    return -torch.zeros(int(batch.segments[-1]) + 1).index_add(0, batch.segments, losses)


def preference(model, batch):
    """Sigmoid loss of the difference between two answers (as DPO, without a reference model)."""
    margin = log_probabilities(model, batch.better) - log_probabilities(model, batch.worse)
    return -F.logsigmoid(0.1 * margin).sum(), len(margin)


SMOOTHED = replace(CHAT, name="smoothed chat", loss=smoothed)
PREFERENCE = Task(
    "preference",
    encode=CHAT.encode,
    audit=CHAT.audit,
    size=lambda pair: sum(len(each.token_ids) for each in pair),
    collate=lambda pairs, _: PairBatch(
        *(pack(side) for side in zip(*pairs, strict=True)), len(pairs)
    ),
    loss=preference,
)


def answers(n, seed):
    ids = torch.randint(3, 300, (n, 12), generator=torch.Generator().manual_seed(seed)).tolist()
    return [Encoded(str(i), tuple(row), (False,) * 6 + (True,) * 6) for i, row in enumerate(ids)]


@pytest.mark.parametrize("task", [SMOOTHED, PREFERENCE], ids=lambda task: task.name)
def test_a_new_loss_is_one_record(tiny_model, tmp_path, task):
    examples = answers(12, 0)
    if task is PREFERENCE:
        examples = list(zip(examples, answers(12, 1), strict=True))
    model = tiny_model.requires_grad_(True)
    config = TrainingConfig(epochs=5, batch_size=4, micro_batch_tokens=40, keep="last")
    before = float(task.loss(model, task.collate(examples, torch.Generator()))[0].detach())
    outcome = fit(model, task, examples, examples[:2], config=config, lr=LR, out=tmp_path)
    after = float(task.loss(model, task.collate(examples, torch.Generator()))[0].detach())
    assert outcome["n_steps"] == 15
    assert after < 0.9 * before
