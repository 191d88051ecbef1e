"""A wrong match here would report 18 euros as a right answer to 8 euros."""

from dataclasses import asdict

import pytest

from lmwright.core.errors import DataError, StateError
from lmwright.core.results import Asked
from lmwright.data.run import write_lines
from lmwright.data.samples import Question
from lmwright.evaluation.selection import Selection
from lmwright.evaluation.tasks.qa_accuracy import (
    QA_ACCURACY,
    asked,
    mentions,
    normalise,
    read_questions,
    rows,
)


@pytest.mark.parametrize(
    ("reply", "accept"),
    [
        ("A new card costs 8 euros.", "8 euros"),
        ("It is 8\u00a0Euros, I think", "8 euros"),
        ("8 EUROS", "8 euros"),
        ("Up to 3,200 euros a day", "3200 euros"),
        ("Up to 3200 euros a day", "3,200 euros"),
        ("The rate is 6.4%.", "6.4%"),
        ("The rate is 6.4.", "6.4"),
        ("(8 euros)", "8 euros"),
        ("It's due on the\n19th.", "the 19th"),
        ("We don\u2019t know", "don't know"),
        ("1,250,000 euros", "1250000 euros"),
        ("It takes 3, 8 euros is the fee", "8 euros"),
    ],
)
def test_right_replies(reply, accept):
    assert mentions(reply, ["something else", accept])


@pytest.mark.parametrize(
    ("reply", "accept"),
    [
        ("It costs 18 euros", "8 euros"),
        ("It costs 8.50 euros", "8 euros"),
        ("It costs 8.50 euros", "50 euros"),
        ("It costs 7,50 euros", "50 euros"),
        ("It costs 8 eurosomething", "8 euros"),
        ("It costs 8.50", "8"),
        ("The rate is 16.4 percent", "6.4"),
        ("The rate is 6.45 percent", "6.4"),
        ("It costs 13,200 euros", "3,200 euros"),
        ("", "8 euros"),
        ("On the 119th", "19th"),
    ],
)
def test_wrong_replies(reply, accept):
    assert not mentions(reply, [accept])


def test_normalising_keeps_decimals_and_lists():
    assert normalise("It costs 2,500 Euros.") == "it costs 2500 euros"
    assert normalise(" It costs 2,500.50 Euros, or 1,5. ") == "it costs 2500.50 euros, or 1,5"


def question(id_, text, *accept):
    return Question(id_, id_.split("/")[0], ({"role": "user", "content": text},), accept)


def test_rows_hold_the_reply_and_the_fact(make_model):
    questions = (
        question("fee/0", "What is the fee?", "8 euros"),
        question("fee/1", "How much?", "8 euros"),
        question("weather/0", "Will it rain?", "only help with"),
    )
    model = make_model(
        replies={"What is the fee?": "It is 8 euros.", "Will it rain?": "I can only help with X."}
    )
    found = rows(model, Selection(None, questions))
    assert [(r.item, r.sums[0], r.cluster, r.group, r.detail) for r in found] == [
        ("fee/0", 1.0, "fee", "in scope", "It is 8 euros."),
        ("fee/1", 0.0, "fee", "in scope", "Here you are."),
        ("weather/0", 1.0, "weather", "out of scope", "I can only help with X."),
    ]


def test_quick_asks_every_fact_before_any_fact_twice():
    questions = [question(f"fact{i}/{k}", f"{i} {k}?", "x") for i in range(70) for k in range(2)]
    found = asked(QA_ACCURACY.selection("quick", questions))
    assert len(found) == 100
    assert {name.split("/")[0] for name in found} == {f"fact{i}" for i in range(70)}
    assert len(asked(QA_ACCURACY.selection("full", questions))) == 140
    assert found["fact0/0"] == Asked("0 0?", "x")


def test_questions_of_the_data_step_are_read_back(tmp_path):
    questions = [question("fee/0", "What is the fee?", "8 euros", "eight euros")]
    write_lines(tmp_path / "questions.jsonl", [asdict(each) for each in questions])
    assert read_questions(tmp_path / "questions.jsonl") == tuple(questions)


@pytest.mark.parametrize("text", ['{"id": "a"}\n', "{", "[1]\n"])
def test_damaged_questions_name_the_file(tmp_path, text):
    path = tmp_path / "questions.jsonl"
    with pytest.raises(DataError, match=r"questions\.jsonl is missing"):
        read_questions(path)
    path.write_text(text)
    with pytest.raises(StateError, match=r"questions\.jsonl: is damaged .*; redo its step"):
        read_questions(path)
