"""A GGUF file opened in llama.cpp: what the models that we export say elsewhere.

llama.cpp comes with the `xllamacpp` wheel and runs in a process of its own: it ends the process
when a file breaks one of its assertions, and that should be a message here.
"""

import contextlib
import http.client
import importlib
import json
import math
import os
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lmwright.core.errors import LmwrightError, ModelError, RequestError

INSTALL = "pip install 'lmwright[llama-cpp]'"
# A file may carry sampling settings of its own: every one is named. Of a single candidate there is
# nothing to draw, and the probabilities are those before sampling.
GREEDY = {
    "samplers": ["top_k"],
    "top_k": 1,
    "mirostat": 0,
    "post_sampling_probs": False,
    "cache_prompt": False,
    "ignore_eos": False,
    "stop": [],
    "return_tokens": True,
}


@dataclass(frozen=True)
class Continuation:
    """What llama.cpp writes after a prompt, always taking the likeliest token."""

    # The token that ended it, if one did, is the last.
    token_ids: tuple[int, ...]
    # For each token the likeliest (token id, natural log of the probability), best first. NaN: the
    # file makes no number of it.
    top: tuple[tuple[tuple[int, float], ...], ...]
    # Which of these were not told with the token, but asked of the text before it as a prompt: with
    # quantised weights llama.cpp then computes a little otherwise.
    is_asked_again: tuple[bool, ...]
    # False if the continuation is as long as was asked for.
    has_ended: bool


class LlamaCpp:
    """A model in llama.cpp, on the CPU, with 32-bit keys and values; close it after use."""

    def __init__(
        self, path: str | Path, *, n_context: int = 512, n_threads: int | None = None
    ) -> None:
        """Load the file; `n_threads` None means as many as llama.cpp finds right.

        Raises a ModelError with llama.cpp's own words if it refuses the file.
        """
        self.path = Path(path)
        if not self.path.is_file():
            raise ModelError(f"{self.path}: no such file")
        self.n_context = n_context
        # A port of this machine is opened in any case; nobody else has the key.
        self._key = os.urandom(16).hex()
        # Its log: a pipe that nobody empties would stop it.
        self._log = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115
        self._process = subprocess.Popen(
            [sys.executable, "-m", "lmwright.verification.llama_cpp"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            encoding="utf-8",
            # Without it a failed assertion starts a debugger.
            env={**os.environ, "GGML_NO_BACKTRACE": "1"},
        )
        try:
            self._url = self._start(n_threads=n_threads or -1)
        except BaseException:
            self.close()
            raise

    def greedy(self, prompt_ids: Sequence[int], n_tokens: int, *, n_top: int = 20) -> Continuation:
        """Continue a prompt by at most `n_tokens`; nothing of earlier prompts is used again.

        `n_top` may be as large as the vocabulary.
        """
        if not prompt_ids or n_tokens < 1 or n_top < 1:
            raise RequestError(
                f"a prompt of {len(prompt_ids)} tokens, n_tokens = {n_tokens}, n_top = {n_top}: "
                "each must be at least 1"
            )
        if len(prompt_ids) + n_tokens > self.n_context:
            raise RequestError(
                f"{len(prompt_ids)} + {n_tokens} tokens do not fit n_context = {self.n_context}; "
                "open the file with a larger one"
            )
        answer = self._complete(prompt_ids, {"n_predict": n_tokens, "n_probs": n_top})
        token_ids = answer["tokens"]
        # Should llama.cpp ever add a BOS, the comparison would be void.
        assert answer["tokens_evaluated"] == len(prompt_ids)
        steps = _placed(answer.get("completion_probabilities", []), token_ids)
        return Continuation(
            token_ids=tuple(token_ids),
            top=tuple(
                self._top([*prompt_ids, *token_ids[:n]], n_top=n_top)
                if step is None
                else _pairs(step)
                for n, step in enumerate(steps)
            ),
            is_asked_again=tuple(step is None for step in steps),
            has_ended=answer["stop_type"] == "eos",
        )

    def _top(self, prompt_ids: Sequence[int], *, n_top: int) -> tuple[tuple[int, float], ...]:
        """Return the likeliest next tokens, whatever they are.

        llama.cpp tells no probabilities of a token that ends within a character. So it is made to
        take a whole one; the probabilities are from before that.
        """
        settings = {"n_predict": 1, "n_probs": n_top, "logit_bias": [["a", 1e6]]}
        (step,) = self._complete(prompt_ids, settings)["completion_probabilities"]
        return _pairs(step)

    def _complete(self, prompt_ids: Sequence[int], settings: dict[str, Any]) -> dict[str, Any]:
        return self._ask("completion", {**GREEDY, "prompt": list(prompt_ids), **settings})

    def tokenize(
        self, text: str, *, add_special: bool = False, parse_special: bool = False
    ) -> list[int]:
        """Return a text's token ids, with BOS and EOS as the file says if `add_special`.

        `parse_special` takes control tokens written in the text for what they name.
        """
        flags = {"add_special": add_special, "parse_special": parse_special}
        return self._ask("tokenize", {"content": text, **flags})["tokens"]

    def render(self, messages: Sequence[Mapping[str, str]]) -> str:
        """Return a dialogue as text, ready for the assistant's turn, by the file's template."""
        body = {"messages": [dict(message) for message in messages]}
        return self._ask("apply-template", body)["prompt"]

    def close(self) -> None:
        """End llama.cpp and free its memory."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._log):
            if stream is not None:
                stream.close()

    def __enter__(self) -> "LlamaCpp":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _start(self, *, n_threads: int) -> str:
        """Let the child open the file; return where it listens."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        settings = {"path": str(self.path), "n_context": self.n_context, "n_threads": n_threads}
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps({**settings, "key": self._key}) + "\n")
            self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise self._refused()
        told = json.loads(line)
        if "missing" in told:
            raise LmwrightError(f"llama.cpp is not installed ({told['missing']}); {INSTALL}")
        return told["url"]

    def _ask(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """Ask the server over its port: the wheel's own methods do not tell all token ids."""
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {self._key}"}
        request = urllib.request.Request(f"{self._url}/{path}", json.dumps(body).encode(), headers)
        # A proxy of the environment has no business here.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request) as response:
                return json.load(response)
        except urllib.error.HTTPError as error:
            message = json.load(error)["error"]["message"]
            raise RequestError(f"{self.path}: llama.cpp: {message}") from None
        except (OSError, http.client.HTTPException):
            self._process.kill()
            raise self._refused() from None

    def _refused(self) -> ModelError:
        """Return the error for a child that has ended, with the most telling line of its log."""
        self._process.wait()
        self._log.seek(0)
        lines = [line.strip() for line in self._log if line.strip()]
        for sign in ("error loading model", "GGML_ASSERT", "what():", " E "):
            if told := [line for line in lines if sign in line]:
                words = told[0].partition(" E ")[2] or told[0]
                break
        else:
            words = lines[-1] if lines else f"exit code {self._process.returncode}"
        return ModelError(f"{self.path}: llama.cpp cannot use this file: {words}")


def _placed(
    told: Sequence[dict[str, Any]], token_ids: Sequence[int]
) -> list[dict[str, Any] | None]:
    """Return what was told of each token, or None; of none, should it be unclear of which it is."""
    first = _matched([step["id"] for step in told], token_ids)
    last = _matched([step["id"] for step in reversed(told)], token_ids[::-1])
    if first is None or last is None or first != [len(token_ids) - 1 - n for n in reversed(last)]:
        return [None] * len(token_ids)
    steps = dict(zip(first, told, strict=True))
    return [steps.get(n) for n in range(len(token_ids))]


def _matched(ids: Sequence[int], token_ids: Sequence[int]) -> list[int] | None:
    """Return the first places at which `ids` stand in this order among the tokens."""
    places, start = [], 0
    for id_ in ids:
        if id_ not in token_ids[start:]:
            return None
        places.append(token_ids.index(id_, start))
        start = places[-1] + 1
    return places


def _pairs(step: dict[str, Any]) -> tuple[tuple[int, float], ...]:
    """Return the likeliest tokens of a step; JSON writes null for what is no number."""
    told = [(token["id"], token["logprob"]) for token in step["top_logprobs"]]
    return tuple((id_, math.nan if logprob is None else logprob) for id_, logprob in told)


def serve() -> None:
    """Be the child: open what a line of stdin says, tell where, and live as long as stdin does."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
    # Whatever a library prints belongs into the log.
    os.dup2(2, 1)
    try:
        server = start(json.loads(sys.stdin.readline()))
    except ImportError as error:
        answers.write(json.dumps({"missing": str(error)}) + "\n")
        return
    answers.write(json.dumps({"url": server.listening_address}) + "\n")
    sys.stdin.read()


def start(settings: dict[str, Any]) -> Any:
    """Load the model with nothing that makes results depend on what came before."""
    # An extension module that tells its types to nobody.
    xllamacpp: Any = importlib.import_module("xllamacpp")
    params = xllamacpp.CommonParams()
    params.model.path = settings["path"]
    params.n_ctx = settings["n_context"]
    params.n_parallel = 1
    params.cpuparams.n_threads = settings["n_threads"]
    params.cpuparams_batch.n_threads = settings["n_threads"]
    params.n_gpu_layers = 0
    params.no_op_offload = True
    # Half-precision keys and values move logits by 0.01: a near-tie would look like a fault.
    params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
    params.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    params.cache_prompt = False
    params.cache_ram_mib = 0
    params.fit_params = False
    params.warmup = False
    params.ui = False
    # Errors only.
    params.verbosity = 1
    params.api_keys = [settings["key"]]
    return xllamacpp.Server(params)


if __name__ == "__main__":
    serve()
