"""Small tokenizers for the tests of this package."""

from collections.abc import Callable

import pytest
import tokenizers
from tokenizers import decoders, models, pre_tokenizers, processors

from lmwright.tokenizer.encode import Tokenizer


@pytest.fixture(scope="session")
def byte_fallback() -> Callable[[], Tokenizer]:
    """Build a new one that falls back to bytes."""
    return build_byte_fallback


def build_byte_fallback() -> Tokenizer:
    """SentencePiece's way: <s> in front, spaces as an underscore, unknown characters as bytes."""
    vocabulary = {"<unk>": 0, "<s>": 1, "</s>": 2}
    for piece in [*(f"<0x{byte:02X}>" for byte in range(256)), "\u2581", "\u2581a", *"abc"]:
        vocabulary[piece] = len(vocabulary)
    backend = tokenizers.Tokenizer(
        models.BPE(vocabulary, [("\u2581", "a")], byte_fallback=True, unk_token="<unk>")
    )
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    backend.decoder = decoders.Sequence(
        [
            decoders.Replace("\u2581", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    backend.add_special_tokens(["<unk>", "<s>", "</s>"])
    backend.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 1)]
    )
    return Tokenizer(
        backend,
        special_tokens={"bos_token": "<s>", "eos_token": "</s>"},
        chat_template="{{ bos_token }}{% for m in messages %}{{ m.content }}</s>{% endfor %}",
    )
