"""The verb serve: an OpenAI-compatible server around one model."""

from pathlib import Path
from typing import Annotated

import typer

from lmwright.cli import options
from lmwright.core.errors import RequestError

# A key is a line; this is a wrong file.
MAX_KEY_BYTES = 4096
MAX_NAME = 200  # characters


def serve(
    model: options.ModelName = "starter",
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8000,
    key_file: Annotated[
        Path | None, typer.Option(help="A file with the API key that clients must send.")
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="What clients call the model, if not MODEL.")
    ] = None,
) -> None:
    """Serve a model to OpenAI's clients over HTTP."""
    from lmwright import lm
    from lmwright.engine.torch.kernels import bound_kernels
    from lmwright.serving.app import serve as listen

    key = None if key_file is None else _read_key(key_file)
    if name is not None and (not name.isprintable() or not name.strip() or len(name) > MAX_NAME):
        raise RequestError(f"--name {name!r}: expected 1 to {MAX_NAME} printable characters")
    bound_kernels()
    listen(lm.load(model, name=name), host=host, port=port, api_key=key)


def _read_key(file: Path) -> str:
    with file.open("rb") as stream:
        content = stream.read(MAX_KEY_BYTES + 1)
    try:
        key = content.decode("ascii").strip()
    except UnicodeDecodeError:
        raise RequestError(f"--key-file {file}: not text; expected one line with the key") from None
    if len(content) > MAX_KEY_BYTES:
        raise RequestError(f"--key-file {file}: too large; expected one line with the key")
    return key
