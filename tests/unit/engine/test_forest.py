"""Sharing beginnings must save time and change nothing."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmwright.engine.forest import Scored, plant

# A small alphabet, so that beginnings are shared.
IDS = st.lists(st.integers(0, 3), min_size=2, max_size=9)


@st.composite
def scored(draw) -> Scored:
    ids = draw(IDS)
    return Scored(tuple(ids), draw(st.integers(1, len(ids) - 1)))


def walk(forest, node: int) -> list[int]:
    """The tokens that a node sees, itself last."""
    seen = np.flatnonzero(forest.mask[node])
    return forest.tokens[seen[np.argsort(forest.positions[seen])]].tolist()


@given(sequences=st.lists(scored(), max_size=12), max_nodes=st.integers(1, 30))
def test_each_scored_token_is_predicted_from_all_that_stands_before_it(sequences, max_nodes):
    forests = plant(sequences, max_nodes)
    planted = [number for forest in forests for number, _ in forest.sequences]
    assert sorted(planted) == list(range(len(sequences)))
    for forest in forests:
        for number, edges in forest.sequences:
            ids, n_context = sequences[number].token_ids, sequences[number].n_context
            assert forest.edge_targets[edges].tolist() == list(ids[n_context:])
            for i, edge in enumerate(edges, start=n_context):
                node = forest.edge_nodes[edge]
                assert walk(forest, node) == list(ids[:i])
                assert forest.positions[node] == i - 1
        # Each beginning stands there once.
        beginnings = [tuple(walk(forest, node)) for node in range(len(forest.tokens))]
        assert len(set(beginnings)) == len(beginnings)
        # A single longer sequence (with others that add nothing to it) stands alone.
        planted = {sequences[number].token_ids[:-1] for number, _ in forest.sequences}
        longest = max(planted, key=len)
        is_alone = all(longest[: len(ids)] == ids for ids in planted)
        assert len(forest.tokens) <= max_nodes or is_alone


def test_a_shared_question_is_computed_once():
    question = tuple(range(100, 150))
    choices = [Scored((*question, choice, 7), 50) for choice in range(4)]
    (forest,) = plant(choices, 768)
    # The question, and the first token of each choice: the last one is only predicted.
    assert len(forest.tokens) == 50 + 4
    assert len(forest.edge_nodes) == 8


def test_the_same_sequence_twice_costs_nothing():
    (forest,) = plant([Scored((1, 2, 3), 1), Scored((1, 2, 3), 2)], 768)
    assert len(forest.tokens) == 2
    assert len(forest.edge_nodes) == 2


@pytest.mark.parametrize("n_context", [0, 3, -1])
def test_something_must_be_given_and_something_scored(n_context):
    with pytest.raises(ValueError, match=f"n_context = {n_context} of 3 tokens"):
        Scored((1, 2, 3), n_context)
