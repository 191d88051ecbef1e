"""The verb serve: an OpenAI-compatible server around one model."""

from pathlib import Path
from typing import Annotated

import typer

from lmwright.cli import options


def serve(
    model: options.ModelName = "starter",
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8000,
    key_file: Annotated[
        Path | None, typer.Option(help="A file with the API key that clients must send.")
    ] = None,
) -> None:
    """Serve a model to OpenAI's clients over HTTP."""
    from lmwright import lm
    from lmwright.serving.app import serve as listen

    key = key_file.read_text(encoding="utf-8").strip() if key_file is not None else None
    listen(lm.load(model), host=host, port=port, api_key=key)
