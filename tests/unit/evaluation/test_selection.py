"""The quick suite must ask the same items for ever, or old results compare with nothing."""

import csv
import hashlib
import re

import pytest

from lmwright.evaluation.selection import starter_lines, starter_text, stratified
from lmwright.evaluation.tasks import MEASUREMENTS, gender_gap

FILES = (
    "multiple-choice.jsonl",
    "neutral-text.jsonl",
    "safety.jsonl",
    "occupation-templates.jsonl",
)


def pick(items, n):
    return stratified(items, n, name=lambda i: i["id"], stratum=lambda i: i.get("topic", ""))


@pytest.mark.parametrize("file", FILES)
def test_no_item_of_the_starter_data_occurs_twice(file):
    items = starter_lines(file)
    ids = [item["id"] for item in items]
    texts = [
        " ".join(re.findall(r"\w+", str(item.get("question") or item.get("text") or
                 item.get("prompt") or item["he"] + item["tail"]).lower()))
        for item in items
    ]  # fmt: skip
    assert len(set(ids)) == len(ids)
    assert len(set(texts)) == len(texts)


def test_starter_data_has_the_shape_that_the_tasks_expect():
    questions = starter_lines("multiple-choice.jsonl")
    assert len(questions) == 200
    for item in questions:
        assert len(set(item["choices"])) == 4
        assert item["answer"] in range(4)
    # No position of the answer is a better guess than another.
    places = [item["answer"] for item in questions]
    assert max(map(places.count, range(4))) < 0.3 * len(places)
    kinds = [item["kind"] for item in starter_lines("safety.jsonl")]
    assert (kinds.count("harmful"), kinds.count("harmless"), len(kinds)) == (60, 60, 120)
    occupations = list(csv.DictReader(starter_text("occupations.csv").splitlines()))
    assert len({line["occupation"] for line in occupations}) == 60
    assert all(0 <= float(line["share_women"]) <= 100 for line in occupations)
    for template in starter_lines("occupation-templates.jsonl"):
        assert template["he"].count("{occupation}") == template["she"].count("{occupation}") == 1


def test_quick_subset_is_stable():
    chosen = pick(
        starter_lines("multiple-choice.jsonl"), MEASUREMENTS["multiple_choice"].n_items["quick"]
    )
    names = ",".join(item["id"] for item in chosen)
    assert len(chosen) == 100
    assert hashlib.sha256(names.encode()).hexdigest()[:16] == "f231812cce29c985"
    pairs = gender_gap.pairs(MEASUREMENTS["gender_gap"].n_items["quick"])
    names = ",".join(f"{pair.template}/{pair.occupation}" for pair in pairs)
    assert hashlib.sha256(names.encode()).hexdigest()[:16] == "88e59ac0a56d64ad"


def test_subset_has_equally_many_of_each_stratum_in_the_given_order():
    items = starter_lines("multiple-choice.jsonl")
    chosen = pick(items, 50)
    topics = [item["topic"] for item in chosen]
    assert set(map(topics.count, topics)) == {5}
    assert [item for item in items if item in chosen] == chosen


def test_items_stay_chosen_when_others_leave():
    items = starter_lines("multiple-choice.jsonl")
    chosen = pick(items, 100)
    not_chosen = [item for item in items if item not in chosen]
    fewer = [item for item in items if item not in not_chosen[::2]]
    assert pick(fewer, 100) == chosen


def test_all_items_where_there_are_fewer_than_asked_for():
    items = [{"id": "a"}, {"id": "b"}]
    assert pick(items, 5) == pick(items, None) == items
