"""Serve a model without weights, which recites the alphabet; slowly if the prompt says "slow"."""

import argparse
import logging
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
from fakes import ByteTokenizer, FakeBackend
from lmwright.engine.scheduler import Engine, EngineLimits
from lmwright.lm import LocalModel
from lmwright.serving.app import serve


class SlowBackend(FakeBackend):
    def next_logits(self, ids: tuple[int, ...], source: tuple[int, ...] | None) -> Any:
        if "slow" in ByteTokenizer().decode(ids):
            time.sleep(0.02)
        return super().next_logits(ids, source)


class FewRows(LocalModel):
    """One that writes only so many answers together."""

    n_rows = 32

    def engine(self, limits: EngineLimits) -> Engine:
        return super().engine(replace(limits, n_rows=self.n_rows))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--key")
    parser.add_argument("--rows", type=int, default=32)
    parser.add_argument("--reply", help="Say this, and not the alphabet.")
    parser.add_argument("--no-template", action="store_true")
    parser.add_argument("--kind", default="decoder")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, stream=sys.stderr)
    tokenizer: Any = ByteTokenizer(can_chat=not options.no_template)
    says = {} if options.reply is None else {"reply": lambda _: options.reply}
    model = FewRows(SlowBackend(kind=options.kind, **says), tokenizer, name="fake")
    model.n_rows = options.rows
    serve(model, port=0, api_key=options.key)
