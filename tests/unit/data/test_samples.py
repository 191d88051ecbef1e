"""Each known shape of a record must become the dialogue that its author meant."""

import pytest

from lmwright.core.errors import DataError
from lmwright.data.samples import parse


def read(record, system=None):
    return parse(record, where="x.jsonl, line 7", id_="r", system=system)


def said(sample) -> list[tuple[str, str]]:
    return [(turn["role"], turn["content"]) for turn in sample.messages]


TURNS = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
FAQ = {"questions": ["q1", "q2", "q3"], "answers": ["a1", "a2"]}


@pytest.mark.parametrize(
    "record",
    [
        {"messages": TURNS},
        {"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]},
        {"prompt": "a", "completion": "b"},
        {"prompt": "a", "response": "b"},
        {"question": "a", "answer": "b", "topic": "c"},
        {"instruction": "a", "output": "b", "input": ""},
        {"questions": ["a"], "answers": ["b"]},
    ],
)
def test_all_shapes_become_dialogues(record):
    (sample,), questions = read(record)
    assert said(sample) == [("user", "a"), ("assistant", "b")]
    assert questions == []


def test_a_system_message_is_added_where_there_is_none():
    (sample,), _ = read({"messages": TURNS}, system="s")
    assert said(sample)[0] == ("system", "s")
    own = [{"role": "system", "content": "own"}, *TURNS]
    (sample,), _ = read({"messages": own}, system="s")
    assert [role for role, _ in said(sample)] == ["system", "user", "assistant"]
    assert said(sample)[0] == ("system", "own")


def test_a_record_may_bring_its_own_system_message():
    for record in (
        {"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]},
        {"prompt": "a", "completion": "b"},
    ):
        (sample,), _ = read({**record, "system": "own"}, system="s")
        assert said(sample) == [("system", "own"), ("user", "a"), ("assistant", "b")]


def test_the_turns_before_an_instruction_stand_before_it():
    (sample,), _ = read({"instruction": "c", "output": "d", "history": [["a", "b"]]})
    assert said(sample) == [("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d")]


def test_a_faq_teaches_every_question_and_tests_the_heldout_ones():
    samples, questions = read({**FAQ, "heldout": ["h1", "h2"], "accept": ["a"]}, system="s")
    assert [said(s)[1:] for s in samples] == [
        [("user", "q1"), ("assistant", "a1")],
        [("user", "q2"), ("assistant", "a2")],
        [("user", "q3"), ("assistant", "a1")],
    ]
    assert [said(q) for q in questions] == [[("system", "s"), ("user", h)] for h in ("h1", "h2")]
    assert {q.cluster for q in questions} == {"r"}
    assert len({s.id for s in samples} | {q.id for q in questions}) == 5


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        ({"messages": []}, "expected a list that is not empty"),
        ({"messages": "a"}, "expected a list"),
        ({"messages": ["a"]}, r"messages\[0\]: expected a role"),
        ({"messages": [{"role": "bot", "content": "a"}]}, r"messages\[0\]: expected a role"),
        ({"messages": [{"role": "user"}]}, r"messages\[0\]: content is missing"),
        ({"messages": TURNS[:1]}, "the last message must be the assistant's"),
        ({"messages": [{"role": "assistant", "content": " "}]}, "and not empty"),
        ({"questions": [], "answers": ["a"]}, "at least one text each"),
        ({**FAQ, "answers": ["a", ""]}, "answers: expected a list of texts"),
        ({**FAQ, "questions": "q"}, "questions: expected a list of texts"),
        ({**FAQ, "heldout": ["h"]}, "heldout questions need `accept`"),
        ({"instruction": "a", "output": "b", "input": 3}, "input = 3"),
        ({"conversations": []}, "conversations: expected a list that is not empty"),
        ({"conversations": [{"role": "user"}]}, r"conversations\[0\]: expected a `from` and a"),
        ({"conversations": [{"from": "bot", "value": "a"}]}, "from = 'bot': expected one of human"),
        ({"conversations": [{"from": "human", "value": "a"}]}, "the last message must be the"),
        ({"instruction": "a", "output": "b", "history": ["a"]}, "history: expected a list of"),
        ({"question": "a", "answer": ""}, "answer = '': expected a text that is not empty"),
        ({"text": "a"}, "none of the known shapes"),
    ],
)
def test_a_fault_says_where_and_what(record, expected):
    with pytest.raises(DataError, match=expected) as caught:
        read(record)
    assert str(caught.value).startswith("x.jsonl, line 7: ")
