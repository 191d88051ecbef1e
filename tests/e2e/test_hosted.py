"""A served model must be the same model: over a real socket, against ours and llama.cpp's."""

import json
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import uvicorn

import weights
from lmwright import cli
from lmwright.core.errors import ModelError, UnsupportedError
from lmwright.engine.request import UNKNOWN, Prompt, Sampling, ScoreRequest
from lmwright.evaluation import run as evaluation_run
from lmwright.evaluation import speed
from lmwright.evaluation.selection import starter_lines
from lmwright.evaluation.tasks import MEASUREMENTS, gender_gap, multiple_choice
from lmwright.hosted.client import Client
from lmwright.hosted.config import Hosted
from lmwright.hosted.errors import NoLogprobsError
from lmwright.hosted.model import HostedModel
from lmwright.lm import LocalModel, load_local, local_model
from lmwright.model.config import ModelConfig
from lmwright.model.transformer import DecoderLM
from lmwright.serving.app import create_app, listen
from lmwright.tokenizer.encode import Tokenizer

PROMPTS: Sequence[Prompt] = [
    "The bank opens",
    [{"role": "user", "content": "What does a new card cost?"}],
    [7, 8, 9],
]


@contextmanager
def serving(model: LocalModel, **options: Any) -> Iterator[str]:
    """Serve a model in a thread; give its URL."""
    server = uvicorn.Server(
        uvicorn.Config(create_app(model, **options), ws="none", log_config=None)
    )
    with listen("127.0.0.1", 0) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
        finally:
            server.should_exit = True
            thread.join()


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LMWRIGHT_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    return tmp_path / "home"


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    counts = {"qa_accuracy": 2, "multiple_choice": 4, "bits_per_byte": 2, "gender_gap": 1}
    counts |= {"refusal_rate": 2, "over_refusal_rate": 2}
    counts |= {"prefill_tokens_per_s": 2, "decode_tokens_per_s": 2}
    for metric, n_items in counts.items():
        monkeypatch.setitem(MEASUREMENTS[metric].n_items, "quick", n_items)


@pytest.fixture
def tiny(tiny_config: ModelConfig, tiny_tokenizer: Tokenizer) -> LocalModel:
    """A random model that reads texts of any length that the evaluation has."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = DecoderLM(replace(tiny_config, max_positions=4096)).eval()
    return local_model(model.requires_grad_(False), tiny_tokenizer, name="tiny")


@pytest.fixture
def folder(tiny: LocalModel, tmp_path: Path) -> Path:
    tiny.save(tmp_path / "tiny")
    return tmp_path / "tiny"


def hosted(url: str, **options: Any) -> HostedModel:
    return HostedModel(f"openai:tiny@{url}", Hosted(**{"n_retries": 0, **options}))


# ---- against our own server


def test_a_served_model_scores_as_it_does_here(tiny: LocalModel) -> None:
    questions = starter_lines("multiple-choice.jsonl")[:5]
    requests = [request for each in questions for request in multiple_choice.requests(each)]
    for pair in gender_gap.pairs(1)[:5]:
        requests += [ScoreRequest(pair.context, pair.he), ScoreRequest(pair.context, pair.she)]
    requests += [
        ScoreRequest("\n", starter_lines("neutral-text.jsonl")[0]["text"]),
        # A token over the border, characters of several tokens, no context at all.
        ScoreRequest("The ba", "nk opens"),
        ScoreRequest("caf\u00e9 \U0001f600", " \u00e9t\u00e9 \U0001f680!"),
        ScoreRequest("", "The bank opens"),
    ]
    with serving(tiny) as url:
        there = hosted(url).score(requests)
    here = tiny.score(requests)
    for request, mine, theirs in zip(requests, here, there, strict=True):
        assert len(mine.token_ids) == len(theirs.token_ids), request
        np.testing.assert_allclose(theirs.token_logprobs, mine.token_logprobs, rtol=0, atol=1e-5)
        assert theirs.is_greedy == mine.is_greedy


def test_what_greedy_decoding_says_is_scored_as_greedy(tiny: LocalModel) -> None:
    (said,) = tiny.generate(["The bank"], Sampling(max_tokens=4))
    requests = [ScoreRequest("The bank", said.text), ScoreRequest("The bank", " opens")]
    here = tiny.score(requests)
    with serving(tiny) as url:
        assert [s.is_greedy for s in hosted(url).score(requests)] == [s.is_greedy for s in here]


@pytest.mark.parametrize("temperature", [0.0, 0.9])
def test_a_served_model_writes_what_it_does_here(tiny: LocalModel, temperature: float) -> None:
    sampling = Sampling(max_tokens=16, temperature=temperature, top_k=20, seed=5, logprobs=2)
    with serving(tiny) as url:
        model = hosted(url)
        there = model.generate(PROMPTS, sampling)
        streamed = [list(model.stream(prompt, sampling)) for prompt in PROMPTS]
    for mine, theirs, chunks in zip(tiny.generate(PROMPTS, sampling), there, streamed, strict=True):
        last = chunks[-1].completion
        assert last is not None
        for other in (theirs, last):
            assert (other.text, other.finish_reason) == (mine.text, mine.finish_reason)
            assert other.n_prompt_tokens == mine.n_prompt_tokens
            assert [t.text for t in other.logprobs] == [t.text for t in mine.logprobs]
            assert [t.logprob for t in other.logprobs] == pytest.approx(
                [t.logprob for t in mine.logprobs], abs=1e-5
            )
        assert "".join(chunk.text for chunk in chunks) == mine.text


def test_a_served_model_embeds_as_it_does_here(tiny: LocalModel) -> None:
    texts = ["The bank opens", "at nine"]
    with serving(tiny) as url:
        np.testing.assert_allclose(hosted(url).embed(texts), tiny.embed(texts), atol=1e-6)


def test_keys_and_names_are_checked(tiny: LocalModel, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(tiny, api_key="sk-right") as url:
        with pytest.raises(ModelError, match="OPENAI_API_KEY is not set"):
            hosted(url).generate(PROMPTS, Sampling())
        monkeypatch.setenv("OPENAI_API_KEY", "sk-wrong")
        with pytest.raises(ModelError, match="was refused") as caught:
            hosted(url).generate(PROMPTS, Sampling())
        assert "sk-wrong" not in str(caught.value)
        monkeypatch.setenv("OPENAI_API_KEY", "sk-right")
        assert len(hosted(url).generate(PROMPTS, Sampling(max_tokens=2))) == 3
        other = HostedModel(f"openai:other@{url}", Hosted(n_retries=0))
        with pytest.raises(ModelError, match="'other' does not exist; this server has 'tiny'"):
            other.generate(PROMPTS, Sampling())


def test_a_local_and_a_served_model_stand_in_one_card(
    tiny: LocalModel,
    folder: Path,
    few: None,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # In this process: a new one for each turn takes seconds, and test_speed.py has them.
    monkeypatch.setattr(
        evaluation_run,
        "measure_in_turns",
        lambda models, suite, timed, _: [speed.time_model(*m, suite, timed) for m in models],
    )
    here = str(folder)
    with serving(tiny) as url:
        there = f"openai:tiny@{url}"
        words = ["evaluate", here, there, "--price", f"{there}=1,2", "--json"]
        assert cli.main(words) == 0
        first = json.loads(capsys.readouterr().out)
    # A second time, and with the server gone: all of it is known.
    assert cli.main(words) == 0
    second = json.loads(capsys.readouterr().out)
    quality = {
        "multiple_choice", "bits_per_byte", "gender_gap", "refusal_rate", "over_refusal_rate",
    }  # fmt: skip
    for result in (first, second):
        assert set(result["metrics"][there]) == quality
        assert set(result["metrics"][here]) == {spec["name"] for spec in result["specs"]}
        for metric in quality:
            mine, theirs = (result["metrics"][name][metric]["value"] for name in (here, there))
            assert theirs == pytest.approx(mine, abs=1e-4)
        assert {pair["metric"] for pair in result["comparisons"]} == quality
        elsewhere = {"prefill_tokens_per_s", "decode_tokens_per_s", "size_bytes"}
        elsewhere |= {"bits_per_weight", "peak_memory_bytes", "n_params"}
        assert result["gaps"] == {
            there: dict.fromkeys(sorted(elsewhere), "its weights are not on this machine")
        }
        assert "size_bytes" not in result["facts_of_models"][there]
    assert first["step"]["inputs"][there] == there
    paid, free = (result["facts_of_models"][there]["usage"] for result in (first, second))
    assert (paid["n_cached"], free["n_requests"]) == (0, 0)
    assert free["n_cached"] == paid["n_requests"] > 50
    assert paid["cost"] == pytest.approx(
        (paid["n_prompt_tokens"] + 2 * paid["n_completion_tokens"]) / 1e6
    )
    assert free["cost"] == 0


def test_a_killed_evaluation_pays_only_for_the_rest(
    tiny: LocalModel, tmp_path: Path, few: None, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(tiny) as url:
        there = f"openai:tiny@{url}"
        words = ["evaluate", there, "--tasks", "refusals", "--tasks", "multiple_choice"]
        words += ["--out", str(tmp_path / "out"), "--price", f"{there}=1,1", "--json"]
        with monkeypatch.context() as patched:
            n_left, asking = [10], Client._asking

            def killed(self: Client, *arguments: Any) -> Any:
                n_left[0] -= 1
                if n_left[0] < 0:
                    raise KeyboardInterrupt
                return asking(self, *arguments)

            patched.setattr(Client, "_asking", killed)
            assert cli.main(words) == 130
        assert cli.main(words) == 0
    usage = json.loads(capsys.readouterr().out)["facts_of_models"][there]["usage"]
    # 16 answers of 4 questions and 4 prompts, of which 10 were there already.
    assert (usage["n_requests"], usage["n_cached"]) == (10, 10)


def test_the_table_shows_reasons_and_the_cost(
    tiny: LocalModel, folder: Path, few: None, capsys: pytest.CaptureFixture[str]
) -> None:
    with serving(tiny) as url:
        there = f"openai:tiny@{url}"
        assert cli.main(["evaluate", there, "--tasks", "refusals", "--no-cache"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert f"{there}: 4 requests sent and 0 answered from the cache" in shown
    assert "cost unknown" in shown
    assert cli.main(["evaluate", there, "--tasks", "speed"]) == 2
    assert "its weights are not on this machine" in capsys.readouterr().err
    assert cli.main(["evaluate", str(folder), "--price", "openai:x=1,1"]) == 2
    assert "none of the models is hosted" in capsys.readouterr().err
    assert cli.main(["evaluate", there, "--price", "1,1"]) == 2


def test_a_hosted_model_is_asked_on_the_command_line(tiny: LocalModel, capsys: Any) -> None:
    (expected,) = tiny.generate([[{"role": "user", "content": "Hi"}]], Sampling(max_tokens=5))
    with serving(tiny) as url:
        words = ["generate", f"openai:tiny@{url}", "--prompt", "Hi", "--max-tokens", "5"]
        assert cli.main(words) == 0
        assert capsys.readouterr().out == f"{expected.text}\n"
        assert cli.main([*words, "--json"]) == 0
        (answer,) = json.loads(capsys.readouterr().out)["completions"]
        assert (answer["text"], answer["token_ids"]) == (expected.text, [UNKNOWN] * 5)
        # Its weights, or its tokenizer, are needed for all else.
        assert cli.main(["serve", words[1]]) == 2
        assert "runs elsewhere" in capsys.readouterr().err


# ---- against llama.cpp's server

LLAMA_CPP = """
import sys, time
import xllamacpp
params = xllamacpp.CommonParams()
params.model.path, params.n_ctx, params.n_parallel, params.port = sys.argv[1], 1024, 1, 0
params.cpuparams.n_threads = 1
server = xllamacpp.Server(params)
print("listens at", server.listening_address, flush=True)
sys.stdin.read()
"""


@pytest.fixture(scope="module")
def llama_cpp() -> Iterator[str]:
    pytest.importorskip("xllamacpp", reason="llama.cpp is not installed: pip install xllamacpp")
    # In a process of its own: it writes to stderr, and a failed assertion would end the tests.
    process = subprocess.Popen(
        [sys.executable, "-c", LLAMA_CPP, str(weights.smollm2())],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        line = next((line for line in process.stdout if line.startswith("listens at")), None)
        assert line is not None, "llama.cpp's server did not start"
        yield line.split()[-1] + "/v1"
    finally:
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()


@pytest.mark.weights
def test_llama_cpp_answers_as_we_do(llama_cpp: str, monkeypatch: pytest.MonkeyPatch) -> None:
    there = hosted(llama_cpp)
    monkeypatch.delenv("LMWRIGHT_HOME")
    here = load_local(weights.smollm2(), precision="fp32")
    prompts: list[Prompt] = [
        "The capital of France is",
        [{"role": "user", "content": "What is the capital of France?"}],
    ]
    sampling = Sampling(max_tokens=4, logprobs=3)
    mine, theirs = here.generate(prompts, sampling), there.generate(prompts, sampling)
    # The first words of the text are no close call; those of the chat are.
    assert theirs[0].token_ids == mine[0].token_ids
    for prompt, our, their in zip(prompts, mine, theirs, strict=True):
        assert their.text == here.tokenizer.decode(their.token_ids)
        assert their.finish_reason == "length"
        assert their.n_prompt_tokens == our.n_prompt_tokens
        # It computes with 8-bit activations.
        told = {id_: logprob for id_, _, logprob in their.logprobs[0].top}
        known = {id_: logprob for id_, _, logprob in our.logprobs[0].top}
        assert told == pytest.approx(known, abs=0.25)
        *_, last = there.stream(prompt, sampling)
        assert last.completion is not None
        assert last.completion.text == their.text
    assert there.usage.n_uncounted == 0


@pytest.mark.weights
def test_llama_cpp_says_what_it_cannot(llama_cpp: str) -> None:
    model = hosted(llama_cpp)
    with pytest.raises(NoLogprobsError, match="gives no log-probabilities"):
        model.score([ScoreRequest("The capital of France is", " Paris")])
    with pytest.raises(UnsupportedError, match="has no /embeddings"):
        model.embed(["Paris"])


@pytest.mark.weights
def test_llama_cpp_in_a_card(llama_cpp: str, few: None, capsys: Any) -> None:
    name = f"openai:smollm2@{llama_cpp}"
    words = ["evaluate", name, "--tasks", "refusals", "--tasks", "bits_per_byte", "--json"]
    assert cli.main(words) == 0
    result = json.loads(capsys.readouterr().out)
    assert set(result["metrics"][name]) == {"refusal_rate", "over_refusal_rate"}
    reason = "the endpoint gives no log-probabilities of a given text"
    assert result["gaps"][name]["bits_per_byte"] == reason
    assert result["not_measured"]["bits_per_byte"] == reason
