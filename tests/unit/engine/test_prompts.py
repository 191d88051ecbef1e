"""What is scored must be the text that was named, not the frame that the model puts around it."""

import pytest

from lmwright.core.errors import RequestError
from lmwright.engine.prompts import pair, prompt_ids
from lmwright.engine.request import ScoreRequest
from lmwright.tokenizer.translation import Translation

START = 2


def test_a_source_is_framed_and_token_ids_are_not(framing_tokenizer):
    plain = framing_tokenizer.encode("The bank", add_bos=False)
    assert prompt_ids("The bank", framing_tokenizer, is_source=True) == [0, *plain, 2]
    assert prompt_ids([5, 9], framing_tokenizer, is_source=True) == [5, 9]
    assert prompt_ids("The bank", framing_tokenizer) == plain


def test_the_frame_before_an_answer_is_given_and_its_end_left_out(framing_tokenizer):
    found = pair(ScoreRequest("The bank", "opens"), framing_tokenizer, start_id=START)
    opens = framing_tokenizer.encode("opens", add_bos=False)
    assert found.source_ids == tuple(framing_tokenizer.encode_input("The bank").ids)
    assert found.answer.token_ids == (START, 0, *opens)
    assert found.answer.token_ids[found.answer.n_context :] == tuple(opens)


def test_token_ids_are_scored_as_they_are_also_an_end(framing_tokenizer):
    found = pair(ScoreRequest("The bank", [0, 7, 2]), framing_tokenizer, start_id=START)
    assert found.answer.token_ids == (START, 0, 7, 2)
    assert found.answer.n_context == 1


def test_special_tokens_in_a_text_are_text(framing_tokenizer):
    found = pair(ScoreRequest("a", "<|im_end|>"), framing_tokenizer, start_id=START)
    scored = found.answer.token_ids[found.answer.n_context :]
    assert framing_tokenizer.decode(scored) == "<|im_end|>"


@pytest.mark.parametrize("layout", ["behind", "before"])
def test_the_language_around_an_answer_is_not_scored(framing_tokenizer, layout):
    framing_tokenizer.special_tokens["unk_token"] = "<|endoftext|>"
    framing_tokenizer.translation = Translation(layout, {"de": 77, "en": 78}, "en", "de")
    found = pair(ScoreRequest("The bank", "opens"), framing_tokenizer, start_id=START)
    opens = tuple(framing_tokenizer.encode("opens", add_bos=False))
    assert found.answer.token_ids[found.answer.n_context :] == opens
    before = (START,) if layout == "behind" else (START, 77)
    assert found.answer.token_ids[: found.answer.n_context] == before


@pytest.mark.parametrize("continuation", ["", []])
def test_nothing_to_score_is_refused(framing_tokenizer, continuation):
    with pytest.raises(RequestError, match="continuation is empty"):
        pair(ScoreRequest("a", continuation), framing_tokenizer, start_id=START)
