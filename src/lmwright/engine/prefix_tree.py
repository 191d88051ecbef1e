"""Token sequences that share beginnings, laid out so that each shared token is computed once.

The choices of a question share the question; the two versions of a sentence share what stands
before the word in which they differ. Sorted, such sequences form a prefix tree (with several roots
where nothing is shared). Its nodes fit into one row of a batch: a node sees its ancestors and
nothing else (the tree attention of SpecInfer, Miao et al. 2023, used here for scoring), and its
position is its depth.
"""

from collections.abc import Sequence
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
    order = sorted(range(len(sequences)), key=lambda i: sequences[i].token_ids)
    trees, growing = [], _GrowingTree()
    for i in order:
        if growing.tokens and len(growing.tokens) + growing.n_new(sequences[i]) > max_nodes:
            trees.append(growing.finish())
            growing = _GrowingTree()
        growing.add(i, sequences[i])
    return [*trees, growing.finish()] if growing.tokens else trees


class _GrowingTree:
    """A tree while it grows."""

    def __init__(self) -> None:
        self.tokens: list[int] = []
        self.parents: list[int] = []
        self.positions: list[int] = []
        self._children: dict[tuple[int, int], int] = {}
        self._edges: dict[tuple[int, int], int] = {}
        self._sequences: list[tuple[int, np.ndarray]] = []

    def n_new(self, sequence: Scored) -> int:
        """Count the nodes that this sequence would add."""
        node, n_known = -1, 0
        for token in sequence.token_ids[:-1]:
            node = self._children.get((node, token), -2)
            if node == -2:
                break
            n_known += 1
        return len(sequence.token_ids) - 1 - n_known

    def add(self, number: int, sequence: Scored) -> None:
        """Add a sequence; its last token is only predicted and needs no node."""
        node, edges = -1, []
        for i, token in enumerate(sequence.token_ids):
            if i >= sequence.n_context:
                edges.append(self._edges.setdefault((node, token), len(self._edges)))
            if i < len(sequence.token_ids) - 1:
                node = self._child(node, token)
        self._sequences.append((number, np.array(edges)))

    def _child(self, parent: int, token: int) -> int:
        known = self._children.get((parent, token))
        if known is not None:
            return known
        node = len(self.tokens)
        self._children[parent, token] = node
        self.tokens.append(token)
        self.parents.append(parent)
        self.positions.append(0 if parent < 0 else self.positions[parent] + 1)
        return node

    def finish(self) -> PrefixTree:
        mask = np.eye(len(self.tokens), dtype=bool)
        for node, parent in enumerate(self.parents):
            if parent >= 0:
                mask[node] |= mask[parent]  # parents come before their children
        edges = np.array(list(self._edges), dtype=np.int64).reshape(-1, 2)
        return PrefixTree(
            tokens=np.array(self.tokens, dtype=np.int64),
            positions=np.array(self.positions, dtype=np.int64),
            mask=mask,
            edge_nodes=edges[:, 0],
            edge_targets=edges[:, 1],
            sequences=tuple(self._sequences),
        )
