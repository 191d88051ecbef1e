"""What is measured on data that was also trained on is memory, not skill."""

import json
from dataclasses import asdict

import pytest

from lmwright.core.errors import DataError
from lmwright.data.config import Data
from lmwright.data.run import normalised, prepare_data, split
from lmwright.data.samples import Sample
from lmwright.data.sources import read


def sample(number: int, text: str | None = None) -> Sample:
    user = {"role": "user", "content": text or f"question {number}"}
    return Sample(f"s-{number}", (user, {"role": "assistant", "content": "answer"}))


def write(path, samples) -> str:
    path.write_text("".join(json.dumps(asdict(s)) + "\n" for s in samples), encoding="utf-8")
    return str(path)


def test_new_data_moves_no_old_sample():
    old = [sample(i) for i in range(300)]
    new = [sample(i) for i in range(1000, 1400)]
    train, validation = split(old, 0.1, 0)
    more_train, more_validation = split([*new[:200], *old, *new[200:]], 0.1, 0)
    assert {s.id for s in train} < {s.id for s in more_train}
    assert {s.id for s in validation} < {s.id for s in more_validation}
    assert len(train) + len(validation) == 300
    assert 15 <= len(validation) <= 45
    assert split(list(reversed(old)), 0.1, 0)[1] == validation[::-1]
    assert split(old, 0.1, 1)[1] != validation


@pytest.mark.parametrize("share", [1e-9, 0.5, 1 - 1e-9])
@pytest.mark.parametrize("n", [2, 3, 10])
def test_neither_side_is_ever_empty(n, share):
    samples = [sample(i) for i in range(n)]
    train, validation = split(samples, share, 0)
    assert train
    assert validation
    assert sorted(s.id for s in [*train, *validation]) == sorted(s.id for s in samples)


def test_one_sample_cannot_be_split():
    with pytest.raises(DataError, match="at least 2 are needed"):
        split([sample(0)], 0.5, 0)


def test_a_limit_draws_at_random_and_leaves_the_split_as_it_is(tmp_path):
    samples = [*(sample(i) for i in range(1000)), sample(1000, "question 3")]
    source = write(tmp_path / "x.jsonl", samples)
    some = prepare_data(Data(source=source, validation=0.1, limit=200))
    assert len(some.train) + len(some.validation) == 200
    assert some.n_duplicates_dropped == 1
    # About a tenth, as without the limit: the two choices are independent.
    assert 5 <= len(some.validation) <= 40
    whole = prepare_data(Data(source=source, validation=0.1))
    assert {s.id for s in some.validation} < {s.id for s in whole.validation}


def test_a_heldout_question_that_is_also_trained_on_is_refused(tmp_path):
    record = {
        "id": "fee",
        "questions": ["What is the fee?"],
        "answers": ["8 euros"],
        "heldout": ["what is  the FEE"],
        "accept": ["8"],
    }
    path = tmp_path / "x.jsonl"
    path.write_text(json.dumps(record))
    with pytest.raises(DataError, match=r"fee/heldout-0 \('what is  the FEE'\).*sample fee/0"):
        prepare_data(Data(source=str(path)))


def test_the_starter_data_is_as_promised():
    samples, questions = read(["starter:bank-support"])
    facts: dict[str, list[int]] = {}
    for each in samples:
        fact, _, number = each.id.rpartition("/")
        if number.isdigit() and not fact.startswith("decline"):
            facts.setdefault(fact, [0, 0])[0] += 1
    for question in questions:
        if question.cluster in facts:
            facts[question.cluster][1] += 1
    assert len(facts) >= 60
    assert all(trained >= 6 and heldout >= 2 for trained, heldout in facts.values())
    asked = [normalised(s.messages[-2]["content"]) for s in samples if len(s.messages) == 2]
    heldout = [normalised(q.messages[-1]["content"]) for q in questions]
    assert len(set(asked)) == len(asked)
    assert len(set(heldout)) == len(heldout)
    assert not set(asked) & set(heldout)
    assert any(len(s.messages) >= 4 for s in samples)
    declined = [s for s in samples if s.id.startswith("decline")]
    assert len(declined) >= 20
    # A reply that is right must be marked right: each answer has one of the accepted texts.
    accept = {q.cluster: q.accept for q in questions}
    for each in samples:
        fact = each.id.rpartition("/")[0]
        if fact in accept:
            reply = each.messages[-1]["content"].lower()
            assert any(a.lower() in reply for a in accept[fact]), each
