"""Chat with a model without weights, which recites the alphabet; slowly if asked to be slow."""

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
from serve_fake import SlowBackend

from fakes import ByteTokenizer
from lmwright import lm
from lmwright.cli import main
from lmwright.lm import LocalModel


def load(model: str) -> LocalModel:
    tokenizer: Any = ByteTokenizer()
    return LocalModel(SlowBackend(context_length=100_000), tokenizer, name=model)


if __name__ == "__main__":
    lm.load = load  # type: ignore[assignment]
    sys.exit(main(["chat", *sys.argv[1:]]))
