"""A subject that computes wrongly would accuse the wrong one: ours is checked against itself."""

from pathlib import Path

import numpy as np
import pytest
import torch

from copies import subject
from lmwright.core.errors import RequestError
from lmwright.lm import load_local
from lmwright.verification.subject import LocalSubject

PROMPTS = ((5, 6, 7), tuple(range(3, 40)))


def test_it_continues_by_its_likeliest_tokens(original: LocalSubject) -> None:
    for prompt, trace in zip(PROMPTS, original.trace(PROMPTS, 5), strict=True):
        ids = list(prompt)
        for token, said in zip(trace.token_ids, trace.nexts, strict=True):
            logits = original.model(torch.tensor([ids]))[0, -1]
            assert said is not None
            assert said.logits is not None
            assert np.allclose(said.logits, logits.numpy(), atol=1e-5)
            assert token == int(logits.argmax())
            ids.append(token)
        assert trace.choices == trace.token_ids
        assert trace.drift is not None
        assert 0 < trace.drift.largest < 1e-4


def test_it_can_be_led_along_tokens_of_different_lengths(original: LocalSubject) -> None:
    along = ((9, 8, 7, 6), (5,))
    first, second = original.trace(PROMPTS, 4, forced=along)
    assert (first.token_ids, second.token_ids) == along
    assert len(second.nexts) == len(second.choices) == 1
    said = original.model(torch.tensor([[*PROMPTS[0], 9, 8]]))[0, -1]
    assert first.nexts[2] is not None
    assert np.allclose(first.nexts[2].logits, said.numpy(), atol=1e-5)


def test_it_stops_behind_the_end_of_a_reply(original: LocalSubject) -> None:
    free = original.trace(PROMPTS[:1], 5)[0].token_ids
    original.tokenizer.eos_ids = (free[2],)
    assert original.trace(PROMPTS[:1], 5)[0].token_ids == free[: free.index(free[2]) + 1]


def test_rounded_computation_is_refused(tiny_folder: Path) -> None:
    with pytest.raises(RequestError, match='open it with precision="fp32"'):
        LocalSubject(load_local(tiny_folder, precision="bf16"))


def test_a_cache_that_goes_wrong_is_seen(
    original: LocalSubject, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lmwright.model.cache import PagedCache

    write = PagedCache.write

    def halved(self: PagedCache, layer: int, k: torch.Tensor, *rest: object):
        return write(self, layer, k * 0.5, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(PagedCache, "write", halved)
    [trace] = original.trace(PROMPTS[1:], 3)
    assert trace.drift is not None
    assert trace.drift.largest > 0.01


def test_in_memory_weights_are_what_they_are(model, tiny_tokenizer) -> None:
    found = subject(model, tiny_tokenizer)
    assert (found.weights, found.engine, found.n_ids) == ("fp32", "lmwright", 300)
