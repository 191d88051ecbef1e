"""What is continued decides what is found: it must be varied, and nothing may be cut silently."""

from lmwright.verification.local import LocalWitness
from lmwright.verification.prompts import built_in, select


def test_the_built_in_prompts_are_varied() -> None:
    prompts = built_in()
    assert len(prompts) == 20
    texts = [prompt for prompt in prompts if isinstance(prompt, str)]
    assert len(prompts) - len(texts) == 4
    assert max(map(len, texts)) > 1000
    assert sum(not text.isascii() for text in texts) >= 5
    # The light check of an export takes the first ones.
    assert max(map(len, texts[:3])) < 100


def test_prompts_are_cut_by_the_one_that_shows_its_tokens(original: LocalWitness) -> None:
    chosen = select(original, original, None, n_tokens=4)
    assert len(chosen.ids) == len(chosen.prompts) == 19
    for prompt, ids in zip(chosen.prompts, chosen.ids, strict=True):
        assert list(ids) == list(original.encode(prompt).ids or ())
        assert len(ids) + 4 <= 512


def test_only_the_first_that_fit_are_taken(original: LocalWitness) -> None:
    chosen = select(original, original, None, n_tokens=4, n_prompts=3)
    assert len(chosen.ids) == 3
    assert chosen.left_out == ()


def test_dialogues_are_left_out_without_a_template(original: LocalWitness) -> None:
    original.tokenizer.chat_template = None
    chosen = select(original, original, None, n_tokens=4)
    assert len(chosen.ids) == 15
    assert chosen.left_out[1] == "4 built-in dialogues: original has no chat template"
