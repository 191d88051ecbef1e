"""What is sent decides what is measured: nothing that was asked for may be lost on the way."""

from typing import Any

import numpy as np
import pytest

from lmwright.core.errors import ModelError, RequestError, UnsupportedError
from lmwright.engine.request import UNKNOWN, Sampling, ScoreRequest
from lmwright.hosted.config import Hosted
from lmwright.hosted.errors import HostedError, NoLogprobsError
from lmwright.hosted.model import HostedModel
from lmwright.lm import load, load_local, local

CHAT: Any = [{"role": "user", "content": "Hi"}]


def text(said: str = "Hello", **fields: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "text": said, "finish_reason": "stop", **fields}]}


def test_a_dialogue_a_text_and_token_ids_go_where_they_belong(
    endpoint: Any, say: Any, make_answer: Any
) -> None:
    endpoint.say(say("chat"), make_answer(text("plain")), make_answer(text("ids")))
    model = endpoint.model(n_parallel=1)
    answers = model.generate(["Once", CHAT, [1, 2]], Sampling(max_tokens=5))
    assert [answer.text for answer in answers] == ["plain", "chat", "ids"]
    assert [request["path"] for request in endpoint.requests] == [
        "/v1/chat/completions", "/v1/completions", "/v1/completions",
    ]  # fmt: skip
    common = {"model": "gpt", "temperature": 0.0, "max_tokens": 5}
    assert endpoint.bodies == [
        {**common, "messages": CHAT}, {**common, "prompt": "Once"}, {**common, "prompt": [1, 2]},
    ]  # fmt: skip


def test_answers_are_given_one_by_one_before_a_failure(
    endpoint: Any, say: Any, make_answer: Any
) -> None:
    endpoint.say(say("one"), say("two"), make_answer({}, 400))
    dialogues: Any = [[{"role": "user", "content": str(i)}] for i in range(3)]
    found = endpoint.model(n_parallel=1).completions(dialogues, Sampling())
    assert [(number, answer.text) for number, answer in (next(found), next(found))] == [
        (0, "one"), (1, "two"),
    ]  # fmt: skip
    with pytest.raises(RequestError, match="status 400"):
        next(found)


def test_what_is_not_the_default_is_sent_and_nothing_else(endpoint: Any, say: Any) -> None:
    endpoint.say(say())
    wanted = {"temperature": 0.5, "top_k": 3, "top_p": 0.9, "min_p": 0.1, "seed": 7}
    more = {"repetition_penalty": 1.2, "ignore_eos": True}
    endpoint.model().generate([CHAT], Sampling(stop=("x", "y"), logprobs=2, **wanted, **more))
    sent = {**wanted, **more, "stop": ["x", "y"], "logprobs": True, "top_logprobs": 2}
    assert endpoint.bodies == [{"model": "gpt", "messages": CHAT, "max_tokens": 128, **sent}]


def test_openai_gets_the_newer_name_of_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-x")
    model = HostedModel("openai:gpt-5", Hosted())
    assert model._body(CHAT, Sampling(max_tokens=5))["max_completion_tokens"] == 5
    assert model._body("Once", Sampling(max_tokens=5))["max_tokens"] == 5


def test_an_endpoint_without_completions_says_so(endpoint: Any, make_answer: Any) -> None:
    chat_only = "This is a chat model and not supported in the v1/completions endpoint."
    endpoint.say(make_answer({"error": {"message": chat_only, "param": "model"}}, 404))
    model = endpoint.model()
    with pytest.raises(UnsupportedError, match="has no /completions"):
        model.generate(["Once"], Sampling())
    with pytest.raises(NoLogprobsError, match="has no /completions, so a given text"):
        model.score([ScoreRequest("a", "b")])


# ---- scores


def echo(**columns: Any) -> dict[str, Any]:
    table = {
        "tokens": ["The", " ", "ca", "t!"],
        "token_logprobs": [None, -1.0, -2.0, -3.0],
        "top_logprobs": [None, {" ": -1.0}, {"ca": -2.0, "do": -0.5}, {"t!": -3.0}],
        "text_offset": [0, 3, 4, 6],
        **columns,
    }
    return text("The cat!", logprobs=table)


def test_a_token_over_the_border_counts_as_continuation(endpoint: Any, make_answer: Any) -> None:
    endpoint.say(make_answer(echo()))
    model = endpoint.model()
    for context, expected in [
        ("The cat", [-3.0]), ("The ca", [-3.0]), ("The c", [-2.0, -3.0]), ("The ", [-2.0, -3.0]),
        ("The", [-1.0, -2.0, -3.0]), ("Th", [-1.0, -2.0, -3.0]), ("", [-1.0, -2.0, -3.0]),
    ]:  # fmt: skip
        request = ScoreRequest(context, "The cat!".removeprefix(context), n_top=1)
        (score,) = model.score([request])
        assert score.token_logprobs.tolist() == expected
        assert score.token_ids == (UNKNOWN,) * len(expected)
        assert score.is_greedy == (len(expected) == 1)
        assert score.top[-1] == ((UNKNOWN, -3.0),)
    sent = {"echo": True, "max_tokens": 1, "temperature": 0, "logprobs": 1, "prompt": "The cat!"}
    assert endpoint.bodies == [{"model": "gpt", **sent}]


def test_what_was_written_behind_the_text_is_not_scored(endpoint: Any, make_answer: Any) -> None:
    longer = echo(
        tokens=["The", " ", "ca", "t!", "!!"],
        token_logprobs=[None, -1.0, -2.0, -3.0, -9.0],
        top_logprobs=[None, {" ": -1}, {"ca": -2}, {"t!": -3}, {"!!": -9}],
        text_offset=[0, 3, 4, 6, 8],
    )
    longer["choices"][0]["text"] += "!!"
    endpoint.say(make_answer(longer))
    (score,) = endpoint.model().score([ScoreRequest("The ca", "t!")])
    assert score.token_logprobs.tolist() == [-3.0]


def test_a_bos_that_is_counted_into_the_offsets_is_taken_out(
    endpoint: Any, make_answer: Any
) -> None:
    with_bos = echo(
        tokens=["<s>", "The", " ", "cat!"],
        token_logprobs=[None, -1.0, -2.0, -3.0],
        top_logprobs=[None, {"The": -1}, {" ": -2}, {"cat!": -3}],
        text_offset=[0, 3, 6, 7],
    )
    endpoint.say(make_answer(with_bos))
    model = endpoint.model()
    assert model.score([ScoreRequest("The ", "cat!")])[0].token_logprobs.tolist() == [-3.0]
    assert model.score([ScoreRequest("", "The cat!")])[0].token_logprobs.tolist() == [-1, -2, -3]


@pytest.mark.parametrize(
    "answer",
    [
        text("!", logprobs=None),
        text("!", logprobs={"content": [{"token": "!", "logprob": -1.0}]}),
        {**echo(), "choices": [{**echo()["choices"][0], "text": "!"}]},
    ],
)
def test_without_logprobs_of_the_text_nothing_is_scored_or_asked_again(
    endpoint: Any, make_answer: Any, answer: Any
) -> None:
    endpoint.say(make_answer(answer))
    model = endpoint.model()
    for _ in range(2):
        with pytest.raises(NoLogprobsError, match="vLLM and `lmwright serve`") as caught:
            model.score([ScoreRequest("The ca", "t!")] * 20)
        assert caught.value.reason == "the endpoint gives no log-probabilities of a given text"
    assert len(endpoint.requests) == 1


def test_an_endpoint_that_refuses_echo_cannot_score(endpoint: Any, make_answer: Any) -> None:
    said = "Setting 'echo' and 'logprobs' at the same time is not supported for this model."
    endpoint.say(make_answer({"error": {"message": said}}, 400))
    with pytest.raises(NoLogprobsError, match="Setting 'echo'"):
        endpoint.model().score([ScoreRequest("The ca", "t!")])
    endpoint.say(make_answer({"error": {"message": "the context is 8 tokens"}}, 400))
    with pytest.raises(RequestError, match="the context is 8 tokens") as caught:
        endpoint.model().score([ScoreRequest("The ca", "t!")])
    assert not isinstance(caught.value, UnsupportedError)


@pytest.mark.parametrize(
    "columns",
    [
        {"text_offset": [0, 3, 4]},
        {"text_offset": [0, 3, 4, 9]},
        {"text_offset": [0, 4, 3, 6]},
        {"text_offset": [0, 3, 4, 6.0]},
        {"token_logprobs": [None, -1.0, -2.0, None]},
        {"token_logprobs": [None, -1.0, -2.0, float("nan")]},
        {"token_logprobs": [None, -1.0, -2.0, "-3"]},
        {"top_logprobs": None},
        {"top_logprobs": [None, None, None, None]},
        {"top_logprobs": [None, {}, {}, {}]},
        {"tokens": None},
    ],
)
def test_logprobs_that_do_not_fit_are_an_error(
    endpoint: Any, make_answer: Any, columns: dict[str, Any]
) -> None:
    endpoint.say(make_answer(echo(**columns)))
    with pytest.raises(HostedError, match="cannot be understood"):
        endpoint.model().score([ScoreRequest("The ca", "t!")])


@pytest.mark.parametrize(
    ("request_", "kind"),
    [
        (ScoreRequest("a", ""), RequestError),
        (ScoreRequest(CHAT, "b"), UnsupportedError),
        (ScoreRequest([1], "b"), UnsupportedError),
        (ScoreRequest([1], [2]), UnsupportedError),
    ],
)
def test_what_cannot_be_scored_is_not_sent(
    endpoint: Any, request_: ScoreRequest, kind: type[Exception]
) -> None:
    with pytest.raises(kind):
        endpoint.model().score([request_])
    assert endpoint.requests == []


def test_nothing_asked_nothing_sent(endpoint: Any) -> None:
    model = endpoint.model()
    assert (model.score([]), model.generate([], Sampling())) == ([], [])
    assert model.embed([]).shape == (0, 0)
    with pytest.raises(RequestError, match="the prompt is empty"):
        model.generate([""], Sampling())
    assert endpoint.requests == []


# ---- embeddings, and what an endpoint cannot tell


def test_embeddings(endpoint: Any, make_answer: Any) -> None:
    vector = {"object": "embedding", "index": 0, "embedding": [1, 0.5]}
    endpoint.say(make_answer({"data": [vector], "usage": {"prompt_tokens": 2}}))
    model = endpoint.model()
    vectors = model.embed(["x", "y"])
    np.testing.assert_array_equal(vectors, np.array([[1, 0.5]] * 2, dtype=np.float32))
    assert vectors.dtype == np.float32
    model.embed(["x", "y"])
    assert (model.usage.n_requests, model.usage.n_cached, model.usage.n_prompt_tokens) == (2, 2, 4)


@pytest.mark.parametrize("data", [[], [1], [{"embedding": []}], [{"embedding": "AAAA"}], None])
def test_an_embedding_that_is_none(endpoint: Any, make_answer: Any, data: Any) -> None:
    endpoint.say(make_answer({"data": data}))
    with pytest.raises(HostedError, match="no embedding"):
        endpoint.model().embed(["x"])


def test_an_endpoint_without_embeddings_says_so(endpoint: Any, make_answer: Any) -> None:
    endpoint.say(make_answer({"error": {"message": "not supported"}}, 501))
    with pytest.raises(UnsupportedError, match="has no /embeddings"):
        endpoint.model().embed(["x"])


def test_what_is_not_known_is_not_guessed(endpoint: Any) -> None:
    model = endpoint.model()
    assert set(vars(model.info).values()) == {None}
    assert model.can_chat
    with pytest.raises(UnsupportedError, match="does not show its tokenizer"):
        _ = model.tokenizer
    with pytest.raises(UnsupportedError, match="no head that classifies"):
        model.classify(["x"])


def test_load_opens_it_under_any_name_and_nothing_else_does(endpoint: Any) -> None:
    address = f"openai:gpt@{endpoint.url}"
    model = load(address, hosted=Hosted(n_parallel=2))
    assert isinstance(model, HostedModel)
    assert (model.name, load(address, name="gpt").name) == (address, "gpt")
    with pytest.raises(ModelError, match="whose weights are not here"):
        load_local(address)
    with pytest.raises(ModelError, match="its weights are not here"):
        local(model)
    with pytest.raises(ModelError, match="for models such as openai:MODEL"):
        load("starter", hosted=Hosted())
