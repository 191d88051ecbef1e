"""Decoders on torch: any device, any family of the model core."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from lmwright.engine.backend import Capability, EdgeScores, LogitConstraints, Pair
from lmwright.engine.prefix_tree import PrefixTree, prefix_trees
from lmwright.engine.torch.outputs import edge_scores, embedded, model_info, save_modules
from lmwright.engine.torch.session import TorchSession
from lmwright.formats.sentence_transformers import Pooling
from lmwright.model.transformer import DecoderLM

# Tokens scored together in one row: enough to keep the matrix products busy on a CPU.
SCORE_NODES = 768


class TorchDecoder:
    """A `DecoderLM` behind the engine's interface."""

    capabilities: frozenset[Capability] = frozenset({"generate", "score", "embed"})

    def __init__(self, model: DecoderLM, pooling: Pooling | None = None) -> None:
        """`pooling` is of a decoder that was trained to embed; without one, vectors are means."""
        self.model = model.eval()
        self.pooling = pooling
        self.info = model_info(model, model.config.max_positions)
        self.constraints = LogitConstraints(suppressed_ids=model.config.suppressed_ids)
        self._device = model.decoder.embedding.weight.device

    def decoder_prefix(self, prompt: Sequence[int]) -> Sequence[int]:
        """Return the prompt: an answer stands behind it, in the same row."""
        return prompt

    def open_session(self) -> TorchSession:
        """Return room for keys and values, empty, that nobody else uses."""
        return TorchSession(self.model)

    def score(self, pairs: Sequence[Pair], n_top: int = 0) -> list[EdgeScores]:
        """Score sequences; what they share at their beginnings is computed once."""
        found: dict[int, EdgeScores] = {}
        for tree in prefix_trees([pair.answer for pair in pairs], SCORE_NODES):
            scores = self.score_tree(tree, n_top)
            found |= {number: scores.at(edges) for number, edges in tree.sequences}
        return [found[i] for i in range(len(pairs))]

    @torch.inference_mode()
    def score_tree(self, tree: PrefixTree, n_top: int = 0) -> EdgeScores:
        """Score the edges of a prefix tree; report the `n_top` likeliest tokens at each of them."""
        mask = torch.from_numpy(tree.mask).to(self._device)[None, None]  # (1, 1, N, N)
        positions = torch.from_numpy(tree.positions).to(self._device)[None]
        context = self.model.masked_context(positions, mask)
        tokens = torch.from_numpy(tree.tokens).to(self._device)[None]
        hidden = self.model.hidden(tokens, context)[0]  # (N, C)
        nodes, targets = tree.edge_nodes, tree.edge_targets
        return edge_scores(self.model, hidden, nodes=nodes, targets=targets, n_top=n_top)

    @torch.inference_mode()
    def embed(self, prompts: Sequence[Sequence[int]]) -> np.ndarray:
        """Return the pooled last hidden states of each prompt, (N, C) fp32."""
        return embedded(
            prompts,
            self.model,
            self.pooling,
            read=lambda tokens, _: TorchSession(self.model).hidden(tokens[0].tolist())[None],
            max_tokens=1,  # each alone: it may be as long as the context
        )

    def save(self, folder: Path) -> None:
        """Write weights and configuration as a Hugging Face folder, without the tokenizer."""
        save_modules(self.model, self.pooling, folder)
