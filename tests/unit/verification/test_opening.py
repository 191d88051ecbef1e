"""What a user writes decides what is compared; a wrong word must end before anything is loaded."""

import pytest

from lmwright.core.errors import ModelError, RequestError
from lmwright.verification import opening
from lmwright.verification.local import LocalWitness
from lmwright.verification.remote import LlamaWitness, ServerWitness


def test_folders_and_files_are_opened_here_or_in_llama_cpp(written) -> None:
    folder, file = written("int8"), written("Q8_0")
    first, second = opening.open_pair(str(folder), str(file))
    assert isinstance(first, LocalWitness)
    assert (first.weights, second.weights) == ("int8", "Q8_0")
    there = opening.open_local(f"llama.cpp:{file}")
    assert isinstance(there, LlamaWitness)
    assert (there.name, there.weights, there.n_ids) == (f"llama.cpp:{file}", "Q8_0", 300)
    assert there.context_length == 512
    opening.close(first, there)


def test_a_server_gets_the_tokens_of_the_other(written, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    folder = str(written("fp32"))
    for names in (
        (folder, "openai:x@http://127.0.0.1:9/v1"),
        ("openai:x@http://127.0.0.1:9/v1", folder),
    ):
        pair = opening.open_pair(*names)
        assert [isinstance(each, ServerWitness) for each in pair] == [
            name.startswith("openai:") for name in names
        ]
        assert [each.name for each in pair] == list(names)


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        ("openai:a@http://127.0.0.1:9/v1", "openai:b@http://127.0.0.1:9/v1", "two servers"),
        ("no/such", "starter", "no such model"),
    ],
)
def test_what_cannot_be_opened_is_refused(first: str, second: str, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        opening.open_pair(first, second)


def test_llama_cpp_opens_gguf_files_only(written) -> None:
    with pytest.raises(ModelError, match=r"llama.cpp opens \.gguf files"):
        opening.open_local(f"llama.cpp:{written('fp32')}")
