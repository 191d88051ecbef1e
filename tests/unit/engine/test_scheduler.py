"""Who joins, leaves or is cancelled must change no other answer, and leave nothing behind."""

import random

import pytest

from fakes import ALPHABET, ByteTokenizer, FakeBackend, answer_to, recite
from lmwright.core.errors import ContextLengthError, RequestError
from lmwright.engine.request import Sampling
from lmwright.engine.scheduler import Engine, EngineLimits
from lmwright.engine.torch.decoder import TorchDecoder
from lmwright.engine.torch.seq2seq import TorchSeq2Seq

TOKENIZER = ByteTokenizer()


def engine_of(backend, tokenizer=TOKENIZER, **limits) -> Engine:
    return Engine(backend, tokenizer, EngineLimits(**limits))


def run(engine, found=None):
    """Step until nothing is left; return the completion of each answer."""
    found = {} if found is None else found
    while not engine.is_idle:
        found |= {id_: chunk.completion for id_, chunk in engine.step() if chunk.completion}
    return found


def add(engine, text, *samplings, **settings):
    return engine.add(TOKENIZER.encode(text), samplings or [Sampling(**settings)])


def is_clean(engine) -> bool:
    n_rows, n_free = engine.n_running + len(engine._waiting), engine._blocks.n_free
    return n_rows == 0 and n_free == engine._blocks.n_blocks and not engine._n_readers


def test_a_request_joins_what_runs_and_all_read_in_one_pass():
    backend = FakeBackend()
    engine = engine_of(backend)
    [first] = add(engine, "one", max_tokens=4)
    engine.step()
    [second] = add(engine, "two", max_tokens=2)
    engine.step()
    assert [len(row.token_ids) for row in backend.steps[-1]] == [1, 3]
    done = run(engine)
    assert {id_: c.text for id_, c in done.items()} == {first: "abcd", second: "ab"}
    assert len(backend.steps) == 4
    assert is_clean(engine)


def test_several_answers_read_their_prompt_once():
    backend = FakeBackend(sharpness=2.0)
    samplings = [Sampling(max_tokens=9, temperature=1.0, seed=seed) for seed in range(8)]
    engine = engine_of(backend)
    ids = add(engine, "a prompt of 22 letters", *samplings)
    together = run(engine)
    assert sum(len(row.token_ids) for row in backend.steps[0]) == 22
    assert all(len(row.token_ids) == 1 for step in backend.steps[1:] for row in step)
    assert len({together[id_].text for id_ in ids}) == 8
    for id_, sampling in zip(ids, samplings, strict=True):
        alone = engine_of(FakeBackend(sharpness=2.0))
        [only] = add(alone, "a prompt of 22 letters", sampling)
        assert run(alone)[only] == together[id_]
    assert is_clean(engine)


@pytest.mark.parametrize("length", range(1, 10))
def test_a_fork_shares_full_blocks_and_copies_the_last(length):
    engine = engine_of(FakeBackend(block_size=4))
    n_blocks = engine._blocks.n_free
    samplings = [Sampling(max_tokens=6, ignore_eos=True)] * 3
    engine.add([65] * length, samplings)
    engine.step()
    own = -(-(length + 6) // 4) - length // 4
    assert engine._blocks.n_free == n_blocks - length // 4 - 3 * own
    assert {c.text for c in run(engine).values()} == {"abcdef"}
    assert is_clean(engine)


def test_a_common_beginning_is_read_once_also_from_one_that_writes():
    backend = FakeBackend(block_size=4, reply=lambda prompt: prompt[-1] * 30)
    engine = engine_of(backend, min_shared=16)
    ids = [add(engine, "a system message " + end, max_tokens=5)[0] for end in "xyz"]
    engine.step()
    [late] = add(engine, "a system message w", max_tokens=5)
    done = run(engine)
    assert [done[id_].text for id_ in (*ids, late)] == ["xxxxx", "yyyyy", "zzzzz", "wwwww"]
    # 16 of its 18 tokens lie in full blocks.
    n_read = [len(row.token_ids) for step in backend.steps for row in step if row.start < 18]
    assert n_read == [18, 2, 2, 2]
    assert is_clean(engine)


def test_who_shares_goes_on_when_the_first_is_cancelled():
    engine = engine_of(FakeBackend(block_size=4), chunk=4, n_chunks=1, min_shared=1)
    [first] = add(engine, "a system message x", max_tokens=5)
    [second] = add(engine, "a system message y", max_tokens=5)
    for _ in range(3):
        engine.step()
    engine.cancel(first)
    assert run(engine)[second].text == "abcde"
    assert is_clean(engine)


def test_a_long_prompt_does_not_hold_up_an_answer():
    backend = FakeBackend()
    engine = engine_of(backend, chunk=10, n_chunks=4)
    [first] = add(engine, "one", max_tokens=20)
    engine.step()
    add(engine, "x" * 100, max_tokens=1)
    pieces = [[id_ for id_, _ in engine.step()] for _ in range(10)]
    assert all(first in step for step in pieces)
    assert [len(step[-1].token_ids) for step in backend.steps[1:]] == [10] * 10
    # Where nobody waits for a token, more is read at once.
    quick = engine_of(backend, chunk=10, n_chunks=4)
    for _ in range(5):
        add(quick, "y" * 10, max_tokens=1)
    quick.step()
    assert sum(len(row.token_ids) for row in backend.steps[-1]) <= 40


def test_who_has_no_room_waits_and_nobody_overtakes():
    engine = engine_of(FakeBackend(context_length=40), n_kv_tokens=48)
    ids = [add(engine, "12345678", max_tokens=n)[0] for n in (16, 30, 4)]
    engine.step()
    assert (engine.n_running, len(engine._waiting)) == (1, 2)
    done = run(engine)
    assert list(done) == ids
    assert [len(done[id_].token_ids) for id_ in ids] == [16, 30, 4]
    assert is_clean(engine)


def test_rows_are_limited():
    backend = FakeBackend()
    engine = engine_of(backend, n_rows=2)
    for _ in range(5):
        add(engine, "x", max_tokens=3)
    run(engine)
    assert max(len(step) for step in backend.steps) == 2
    with pytest.raises(RequestError, match="3 answers to one prompt: expected 1 to 2"):
        add(engine, "x", *[Sampling()] * 3)


@pytest.mark.parametrize(
    ("ids", "settings", "expected"),
    [
        ([], {}, "the prompt is empty"),
        ([5] * 30, {"max_tokens": 11}, "30 prompt tokens"),
        ([5], {"max_tokens": None}, "`admit` the request"),
        ([5], {"n_beams": 2}, "`admit` the request"),
        (list(b"refuse"), {}, "cannot be continued"),
    ],
)
def test_what_cannot_be_written_is_refused_and_leaves_nothing(ids, settings, expected):
    engine = engine_of(FakeBackend(context_length=40))
    with pytest.raises(RequestError, match=expected) as caught:
        engine.add(ids, [Sampling(**{"max_tokens": 5, **settings})])
    assert isinstance(caught.value, ContextLengthError) == ("prompt tokens" in expected)
    assert is_clean(engine)
    assert engine.is_idle
    assert engine.step() == []


def test_after_a_failed_step_everything_can_be_cancelled():
    engine = engine_of(FakeBackend())
    ids = add(engine, "explode", *[Sampling(temperature=1.0)] * 2) + add(engine, "fine")
    with pytest.raises(RuntimeError):
        run(engine)
    for id_ in ids:
        engine.cancel(id_)
    assert is_clean(engine)
    [again] = add(engine, "fine", max_tokens=3)
    assert run(engine)[again].text == "abc"


def test_answers_end_by_themselves_and_by_stop_strings():
    engine = engine_of(FakeBackend(reply=answer_to({"Hi": "Hello."}, other=ALPHABET)))
    ids = add(engine, "Hi"), add(engine, "x", stop=("fg",)), add(engine, "x", max_tokens=2)
    done = run(engine)
    found = [(done[id_].text, done[id_].finish_reason) for [id_] in ids]
    assert found == [("Hello.", "stop"), ("abcde", "stop"), ("ab", "length")]


def backends(tiny_model, tiny_seq2seq, framing_tokenizer):
    return {
        "fake": (FakeBackend(block_size=4, sharpness=3.0), TOKENIZER),
        "fake seq2seq": (FakeBackend(block_size=4, kind="encoder-decoder"), TOKENIZER),
        "decoder": (TorchDecoder(tiny_model), framing_tokenizer),
        "seq2seq": (TorchSeq2Seq(tiny_seq2seq(), framing_tokenizer), framing_tokenizer),
    }


@pytest.mark.parametrize("kind", ["fake", "fake seq2seq", "decoder", "seq2seq"])
def test_200_requests_with_random_cancels_leave_nothing_and_change_no_answer(
    kind, tiny_model, tiny_seq2seq, framing_tokenizer
):
    backend, tokenizer = backends(tiny_model, tiny_seq2seq, framing_tokenizer)[kind]
    draw = random.Random(7)
    engine = engine_of(backend, tokenizer, n_rows=8, chunk=8, n_chunks=2, min_shared=1)
    asked, live, done, n_cancelled = {}, set(), {}, 0
    for n in range(200):
        # Half of the prompts begin alike.
        prompt = [5, 9, 20, 31] * draw.randrange(6) + [draw.randrange(3, 250) for _ in range(n % 5)]
        samplings = [
            Sampling(max_tokens=draw.randint(1, 12), temperature=draw.choice((0, 1)), seed=seed)
            for seed in range(draw.choice((1, 1, 1, 3)))
        ]
        ids = engine.add(prompt or [7], samplings)
        asked |= {id_: (prompt or [7], each) for id_, each in zip(ids, samplings, strict=True)}
        live |= {*ids}
        for _ in range(draw.randrange(3)):
            done |= {id_: c.completion for id_, c in engine.step() if c.completion}
        for id_ in draw.sample(sorted(live), min(len(live), draw.randrange(3))):
            n_cancelled += id_ not in done
            engine.cancel(id_)
            live.discard(id_)
    run(engine, done)
    assert is_clean(engine)
    assert n_cancelled > 50
    assert len(done) > 100
    for id_ in draw.sample(sorted(done), 40):
        alone = engine_of(backend, tokenizer)
        [only] = alone.add(asked[id_][0], [asked[id_][1]])
        assert run(alone)[only] == done[id_]


def test_cancelling_what_is_unknown_or_done_does_nothing():
    engine = engine_of(FakeBackend())
    [first] = add(engine, "x", max_tokens=1)
    engine.cancel(first + 100)
    assert run(engine)[first].text == recite("")[:1]
    engine.cancel(first)
    assert is_clean(engine)


def test_a_cancel_frees_rows_and_blocks_at_once():
    engine = engine_of(FakeBackend(block_size=4))
    kept, *others = add(engine, "a prompt", *[Sampling(max_tokens=9)] * 4)
    engine.step()
    held = engine._blocks.n_free
    for n, id_ in enumerate(others, 1):
        engine.cancel(id_)
        assert engine._blocks.n_free == held + 3 * n
        assert engine.n_running == 4 - n
    assert run(engine)[kept].text == "abcdefghi"
    assert is_clean(engine)


def test_a_short_common_beginning_is_read_anew():
    backend = FakeBackend(block_size=4)
    engine = engine_of(backend, min_shared=17)
    for end in "xy":
        add(engine, "a system message " + end, max_tokens=1)
    run(engine)
    assert [len(row.token_ids) for row in backend.steps[0]] == [18, 18]


@pytest.mark.parametrize("name", ["n_rows", "chunk", "n_chunks", "min_shared", "n_kv_tokens"])
def test_limits_are_at_least_one(name):
    with pytest.raises(ValueError, match=f"{name} = 0: expected 1 or more"):
        EngineLimits(**{name: 0})
