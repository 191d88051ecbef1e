"""Sharing beginnings must save time and change nothing."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmwright.engine.prefix_tree import Scored, prefix_trees

# A small alphabet, so that beginnings are shared.
IDS = st.lists(st.integers(0, 3), min_size=2, max_size=9)


@st.composite
def scored(draw) -> Scored:
    ids = draw(IDS)
    return Scored(tuple(ids), draw(st.integers(1, len(ids) - 1)))


def walk(tree, node: int) -> list[int]:
    """The tokens that a node sees, itself last."""
    seen = np.flatnonzero(tree.mask[node])
    return tree.tokens[seen[np.argsort(tree.positions[seen])]].tolist()


@given(sequences=st.lists(scored(), max_size=12), max_nodes=st.integers(1, 30))
def test_each_scored_token_is_predicted_from_all_that_stands_before_it(sequences, max_nodes):
    trees = prefix_trees(sequences, max_nodes)
    placed = [number for tree in trees for number, _ in tree.sequences]
    assert sorted(placed) == list(range(len(sequences)))
    for tree in trees:
        for number, edges in tree.sequences:
            ids, n_context = sequences[number].token_ids, sequences[number].n_context
            assert tree.edge_targets[edges].tolist() == list(ids[n_context:])
            for i, edge in enumerate(edges, start=n_context):
                node = tree.edge_nodes[edge]
                assert walk(tree, node) == list(ids[:i])
                assert tree.positions[node] == i - 1
        # Each beginning stands there once.
        beginnings = [tuple(walk(tree, node)) for node in range(len(tree.tokens))]
        assert len(set(beginnings)) == len(beginnings)
        # A single longer sequence (with others that add nothing to it) stands alone.
        placed = {sequences[number].token_ids[:-1] for number, _ in tree.sequences}
        longest = max(placed, key=len)
        is_alone = all(longest[: len(ids)] == ids for ids in placed)
        assert len(tree.tokens) <= max_nodes or is_alone


def test_a_shared_question_is_computed_once():
    question = tuple(range(100, 150))
    choices = [Scored((*question, choice, 7), 50) for choice in range(4)]
    (tree,) = prefix_trees(choices, 768)
    # The question, and the first token of each choice: the last one is only predicted.
    assert len(tree.tokens) == 50 + 4
    assert len(tree.edge_nodes) == 8


def test_the_same_sequence_twice_costs_nothing():
    (tree,) = prefix_trees([Scored((1, 2, 3), 1), Scored((1, 2, 3), 2)], 768)
    assert len(tree.tokens) == 2
    assert len(tree.edge_nodes) == 2


@pytest.mark.parametrize("n_context", [0, 3, -1])
def test_something_must_be_given_and_something_scored(n_context):
    with pytest.raises(ValueError, match=f"n_context = {n_context} of 3 tokens"):
        Scored((1, 2, 3), n_context)
