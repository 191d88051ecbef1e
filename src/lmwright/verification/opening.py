"""From what a user writes to a witness."""

from pathlib import Path

from lmwright.core.errors import ModelError, RequestError
from lmwright.hosted.address import is_hosted
from lmwright.hub import resolve
from lmwright.lm import load_local
from lmwright.verification.local import LocalWitness, weights_of
from lmwright.verification.remote import LLAMA_CPP, LlamaWitness, ServerWitness
from lmwright.verification.witness import Witness


def open_pair(first: str, second: str) -> tuple[Witness, Witness]:
    """Open two models: as everywhere, or llama.cpp:FILE.gguf, or openai:MODEL@URL."""
    if is_hosted(first) and is_hosted(second):
        raise RequestError(
            f"{first} and {second}: two servers, neither of which shows its tokens; one of the "
            "two must be a model whose files are here"
        )
    if is_hosted(first):
        other = open_local(second)
        return _server(first, other), other
    one = open_local(first)
    return one, _server(second, one) if is_hosted(second) else open_local(second)


def close(*witnesses: Witness) -> None:
    """End the programs that were started for them."""
    for witness in witnesses:
        if isinstance(witness, LlamaWitness):
            witness.close()


def open_local(name: str) -> LocalWitness | LlamaWitness:
    """Open a model whose files are here, in lmwright or in llama.cpp."""
    if name.startswith(LLAMA_CPP):
        rest = name.removeprefix(LLAMA_CPP)
        path = resolve(rest)
        if path.suffix != ".gguf":
            raise ModelError(f"{name}: llama.cpp opens .gguf files; lmwright convert makes one")
        return LlamaWitness(path, name=name)
    return open_path(resolve(name), name=name)


def open_path(path: Path, *, name: str | None = None) -> LocalWitness:
    """Open a folder or a .gguf file in lmwright, in fp32."""
    model = load_local(path, precision="fp32", name=name or str(path))
    return LocalWitness(model, weights_of(path))


def _server(name: str, other: LocalWitness | LlamaWitness) -> ServerWitness:
    from lmwright.hosted.config import Hosted
    from lmwright.hosted.model import HostedModel

    # An answer that was kept says nothing of the server that runs now.
    return ServerWitness(HostedModel(name, Hosted(cache=False)), other.tokenizer)
