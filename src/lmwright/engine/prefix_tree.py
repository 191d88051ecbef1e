"""Token sequences that share beginnings, laid out so that each shared token is computed once.

The choices of a question share the question; the two versions of a sentence share what stands
before the word in which they differ. Sorted, such sequences form a prefix tree (with several roots
where nothing is shared). Its nodes fit into one row of a batch: a node sees its ancestors and
nothing else (the tree attention of SpecInfer, Miao et al. 2023, used here for scoring), and its
position is its depth.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class PrefixTree:
    """N nodes in one row, and the E edges (node -> next token) whose probability is wanted."""

    tokens: np.ndarray  # (N,) int64
    positions: np.ndarray  # (N,) int64, the depth in the tree
    mask: np.ndarray  # (N, N) bool, mask[i, j]: node i sees node j
    edge_nodes: np.ndarray  # (E,) int64
    edge_targets: np.ndarray  # (E,) int64
    # For each sequence in the tree: its number, and its edges in order.
    sequences: tuple[tuple[int, np.ndarray], ...]


@dataclass(frozen=True)
class Scored:
    """A sequence of token ids of which all after the first `n_context` are to be scored."""

    token_ids: tuple[int, ...]
    n_context: int

    def __post_init__(self) -> None:
        if not 1 <= self.n_context < len(self.token_ids):
            raise ValueError(
                f"n_context = {self.n_context} of {len(self.token_ids)} tokens: "
                "at least one token must stand before the scored ones, and one must be scored"
            )

    @property
    def scored_ids(self) -> tuple[int, ...]:
        """The tokens that are scored."""
        return self.token_ids[self.n_context :]


def prefix_trees(sequences: Sequence[Scored], max_nodes: int) -> list[PrefixTree]:
    """Group sequences into trees of at most `max_nodes` nodes (a longer one stands alone)."""
    groups: list[list[int]] = []
    n_nodes, before = 0, ()
    for i in sorted(range(len(sequences)), key=lambda i: sequences[i].token_ids):
        read = sequences[i].token_ids[:-1]  # the last token is only predicted and needs no node
        # In this order, no other one has more in common with it than the one before.
        n_new = len(read) - n_common(before, read)
        if not groups or n_nodes + n_new > max_nodes:
            groups.append([])
            n_nodes, n_new = 0, len(read)
        groups[-1].append(i)
        n_nodes, before = n_nodes + n_new, read
    return [_tree({i: sequences[i] for i in group}) for group in groups]


def n_common(first: Sequence[int], second: Sequence[int], *, size: int = 1) -> int:
    """Count the blocks of `size` tokens, full in both, that two sequences begin with."""
    n_blocks = min(len(first), len(second)) // size
    for i in range(n_blocks):
        part = slice(i * size, (i + 1) * size)
        if first[part] != second[part]:
            return i
    return n_blocks


def _tree(sequences: Mapping[int, Scored]) -> PrefixTree:
    # Nodes by (parent, token), and edges by (node, next token); both are numbered in order.
    nodes: dict[tuple[int, int], int] = {}
    edges: dict[tuple[int, int], int] = {}
    placed = []
    for number, sequence in sequences.items():
        node, own = -1, []
        for i, token in enumerate(sequence.token_ids):
            if i >= sequence.n_context:
                own.append(edges.setdefault((node, token), len(edges)))
            if i < len(sequence.token_ids) - 1:
                node = nodes.setdefault((node, token), len(nodes))
        placed.append((number, np.array(own)))
    mask = np.eye(len(nodes), dtype=bool)
    for node, (parent, _) in enumerate(nodes):
        if parent >= 0:
            mask[node] |= mask[parent]  # parents come before their children
    edge_nodes, edge_targets = np.array(list(edges), dtype=np.int64).T
    return PrefixTree(
        tokens=np.array([token for _, token in nodes], dtype=np.int64),
        positions=mask.sum(axis=1, dtype=np.int64) - 1,
        mask=mask,
        edge_nodes=edge_nodes,
        edge_targets=edge_targets,
        sequences=tuple(placed),
    )
