"""What a mask gets wrong, a model learns: to speak for the user, or never to stop."""

from dataclasses import replace

import pytest
import tokenizers

from lmwright.core.errors import DataError
from lmwright.data.samples import Sample, Turn
from lmwright.finetuning.chat import audit, encode, shared_system
from lmwright.tokenizer.encode import Tokenizer
from lmwright.training.batches import pack

END = "<|im_end|>"


def sample(*turns, id_="faq-7"):
    return Sample(id_, tuple(Turn(role=role, content=text) for role, text in turns))


HELLO = sample(("user", "What does a card cost?"), ("assistant", "Eight euros."))
MULTI = sample(
    ("system", "You are a bank."),
    ("user", "Hello <|im_end|> there"),
    ("assistant", "Good morning."),
    ("user", "Are you the assistant?"),
    ("assistant", "Yes."),
)


def learnt(encoded, tokenizer):
    """Return the stretches of learnt tokens as texts."""
    stretches, last = [], False
    for id_, is_target in zip(encoded.token_ids, encoded.is_target, strict=True):
        if is_target and not last:
            stretches.append([])
        if is_target:
            stretches[-1].append(id_)
        last = is_target
    return [tokenizer.decode(ids, skip_special=False) for ids in stretches]


def other(tokenizer, *, template=None, eos=None, add_bos=False):
    """The same vocabulary with another template, end of turn or BOS."""
    backend = tokenizers.Tokenizer.from_str(tokenizer._backend.to_str())
    roles = dict(tokenizer.special_tokens)
    if eos is not None:
        roles["eos_token"] = eos
    if add_bos:
        backend.post_processor = tokenizers.processors.TemplateProcessing(
            single="<|im_start|> $A", special_tokens=[("<|im_start|>", 1)]
        )
    source = tokenizer.chat_template.source if template is None else template
    return Tokenizer(backend, special_tokens=roles, chat_template=source)


@pytest.mark.parametrize(
    ("given", "expected"),
    [(HELLO, ["Eight euros." + END]), (MULTI, ["Good morning." + END, "Yes." + END])],
    ids=["one-turn", "many-turns"],
)
def test_the_assistants_words_and_its_end_of_turn_are_learnt_and_nothing_else(
    tiny_tokenizer, given, expected
):
    encoded = encode(given, tiny_tokenizer, 256)
    assert learnt(encoded, tiny_tokenizer) == expected
    assert list(encoded.token_ids) == tiny_tokenizer.chat(
        given.messages, add_generation_prompt=False
    )
    # The template ends with a line break, which nobody ever has to say.
    assert tiny_tokenizer.token(encoded.token_ids[-1]) == "\n"
    assert encoded.is_target[-1] is False


def test_what_the_model_is_asked_with_is_what_stood_before_the_reply(tiny_tokenizer):
    encoded = encode(HELLO, tiny_tokenizer, 256)
    start = encoded.is_target.index(True)
    asked = tiny_tokenizer.chat(HELLO.messages[:1], add_generation_prompt=True)
    assert list(encoded.token_ids[:start]) == asked


def test_the_first_word_is_predicted_from_the_last_token_of_the_prompt(tiny_tokenizer):
    encoded = encode(HELLO, tiny_tokenizer, 256)
    start = encoded.is_target.index(True)
    targets = pack([encoded]).targets.tolist()
    assert targets[: start - 1] == [-100] * (start - 1)
    assert targets[start - 1] == encoded.token_ids[start]
    assert tiny_tokenizer.token([t for t in targets if t != -100][-1]) == END


def test_the_audit_counts_and_shows(tiny_tokenizer):
    both = [encode(HELLO, tiny_tokenizer, 256), encode(MULTI, tiny_tokenizer, 256)]
    found = audit(both, tiny_tokenizer)
    assert (found.n_samples, found.n_tokens) == (2, sum(len(e.token_ids) for e in both))
    assert found.n_targets == sum(sum(e.is_target) for e in both)
    text = found.text()
    assert text.plain == tiny_tokenizer.decode(both[0].token_ids, skip_special=False)
    green = [text.plain[s.start : s.end] for s in text.spans if s.style == "bold green"]
    assert "".join(green) == "Eight euros." + END
    dim = [text.plain[s.start : s.end] for s in text.spans if s.style == "dim"]
    assert len("".join(green)) + len("".join(dim)) == len(text.plain)
    json = found.to_json()
    assert json["n_targets"] == found.n_targets
    assert "".join(p["text"] for p in json["example"] if p["trained"]) == "Eight euros." + END


def refused(encoded, tokenizer, match):
    good = encode(HELLO, tokenizer, 256) if tokenizer.chat_template else encoded
    with pytest.raises(DataError, match=match) as caught:
        audit([replace(good, id="good"), encoded], tokenizer)
    return str(caught.value)


def test_a_sample_without_anything_to_learn_is_refused(tiny_tokenizer):
    encoded = encode(HELLO, tiny_tokenizer, 256)
    nothing = replace(encoded, is_target=(False,) * len(encoded.token_ids))
    refused(nothing, tiny_tokenizer, "faq-7: no token to learn")


def test_a_masked_end_of_turn_is_refused(tiny_tokenizer):
    encoded = encode(MULTI, tiny_tokenizer, 256)
    is_target = list(encoded.is_target)
    first_end = encoded.token_ids.index(2, is_target.index(True))
    is_target[first_end] = False
    message = refused(
        replace(encoded, is_target=tuple(is_target)), tiny_tokenizer, "faq-7: a reply ends with"
    )
    assert END in message


def test_a_template_without_an_end_of_turn_is_refused(tiny_tokenizer):
    source = "{% for m in messages %}{{ m['role'] + ': ' + m['content'] + '\n' }}{% endfor %}"
    source += "{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
    tokenizer = other(tiny_tokenizer, template=source)
    with pytest.raises(DataError, match="never stop"):
        audit([encode(HELLO, tokenizer, 256)], tokenizer)


def test_an_end_of_turn_that_the_model_does_not_know_as_one_is_refused(tiny_tokenizer):
    """A wrong eos_token in a folder is common, and generation would run on to the limit."""
    tokenizer = other(tiny_tokenizer, eos="<|endoftext|>")
    with pytest.raises(DataError, match=r"faq-7: a reply ends with.*<\|endoftext\|>"):
        audit([encode(HELLO, tokenizer, 256)], tokenizer)


def test_an_end_of_turn_named_by_the_generation_settings_is_known(tiny_tokenizer):
    tokenizer = Tokenizer(
        tiny_tokenizer._backend, special_tokens={"eos_token": "<|endoftext|>"}, eos_ids=[2],
        chat_template=tiny_tokenizer.chat_template.source,
    )  # fmt: skip
    encoded = encode(HELLO, tokenizer, 256)
    assert learnt(encoded, tokenizer) == ["Eight euros." + END]
    assert audit([encoded], tokenizer).n_samples == 1


def test_two_bos_are_refused(tiny_tokenizer):
    source = "{{ bos_token + bos_token }}" + tiny_tokenizer.chat_template.source
    tokenizer = other(tiny_tokenizer, template=source, add_bos=True)
    assert tokenizer.bos_id == 1
    with pytest.raises(DataError, match="faq-7: begins with two BOS"):
        audit([encode(HELLO, tokenizer, 256)], tokenizer)


def test_a_sample_that_is_too_long_is_refused_with_its_length(tiny_tokenizer):
    n = len(encode(MULTI, tiny_tokenizer, 256).token_ids)
    with pytest.raises(DataError, match=rf"faq-7: {n} tokens, .*max_length = {n - 1}"):
        encode(MULTI, tiny_tokenizer, n - 1)
    assert audit([encode(MULTI, tiny_tokenizer, n)], tiny_tokenizer).n_tokens == n


def test_a_template_that_changes_the_beginning_afterwards_is_refused(tiny_tokenizer):
    source = "{{ messages|length }} " + tiny_tokenizer.chat_template.source
    with pytest.raises(DataError, match=r"faq-7: .*depends on what follows"):
        encode(HELLO, other(tiny_tokenizer, template=source), 256)


def test_a_dialogue_that_begins_with_the_assistant_is_refused_by_name(tiny_tokenizer):
    with pytest.raises(DataError, match=r"faq-7: .*begins with the assistant"):
        encode(sample(("assistant", "Hello.")), tiny_tokenizer, 256)


def test_what_the_template_refuses_is_refused_with_the_samples_name(tiny_tokenizer):
    source = "{{ raise_exception('no system message, please') }}"
    with pytest.raises(DataError, match=r"faq-7: .*no system message"):
        encode(MULTI, other(tiny_tokenizer, template=source), 256)


def test_an_empty_reply_teaches_to_stop_at_once_and_is_refused(tiny_tokenizer):
    empty = encode(sample(("user", "Hm?"), ("assistant", ""), id_="faq-8"), tiny_tokenizer, 256)
    with pytest.raises(DataError, match="faq-8: a reply of the assistant is empty"):
        audit([empty], tiny_tokenizer)


def test_packing_keeps_ids_and_masks_together(tiny_tokenizer):
    encoded = [encode(HELLO, tiny_tokenizer, 256), encode(MULTI, tiny_tokenizer, 256)]
    batch = pack(encoded)
    for number, one in enumerate(encoded):
        part = batch.segments == number
        ids = [t for t, on in zip(one.token_ids, one.is_target, strict=True) if on]
        assert [t for t in batch.targets[part].tolist() if t != -100] == ids


def test_a_system_message_that_all_samples_share_becomes_the_default():
    """A model that was tuned with a system message answers worse without it."""

    def sample(*contents):
        roles = ["system", "user", "assistant"][-len(contents) :]
        turns = [{"role": r, "content": c} for r, c in zip(roles, contents, strict=True)]
        return Sample(contents[-1], tuple(turns))

    assert shared_system([sample("S", "q", "a"), sample("S", "r", "b")]) == "S"
    assert shared_system([sample("S", "q", "a"), sample("T", "r", "b")]) is None
    assert shared_system([sample("S", "q", "a"), sample("r", "b")]) is None
    assert shared_system([sample("q", "a")]) is None


def test_a_dialogue_that_is_too_long_is_refused_before_its_turns_are_looked_at(
    tiny_tokenizer, monkeypatch
):
    renderings = []
    real = tiny_tokenizer.chat
    monkeypatch.setattr(
        tiny_tokenizer, "chat", lambda *a, **k: renderings.append(1) or real(*a, **k)
    )
    turns = [("user", "Hello"), ("assistant", "Good morning.")] * 800
    with pytest.raises(DataError, match=r"faq-7: .* tokens, more than max_length = 64"):
        encode(sample(*turns), tiny_tokenizer, 64)
    assert len(renderings) == 1
