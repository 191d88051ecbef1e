"""Compression as a step of a recipe and as a function: a model in, a checked smaller one out."""

import shutil
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from lmwright.compression.config import Compress
from lmwright.compression.folder import compress_folder
from lmwright.conversion.check import VerificationError, check_folder
from lmwright.core.stage import StepContext
from lmwright.hub import resolve
from lmwright.lm import LanguageModel, LocalModel, decoder, load_local, local


def run(config: Compress, out: Path, context: StepContext) -> dict[str, Any]:
    """Write the compressed model to `out/model`; return what it became, for result.json.

    It is opened again and compared with its source; if it is another model, an error says why.
    """
    source = resolve(str(context.inputs.get(config.model, config.model)))
    with _as_folder(source, out / ".source") as folder:
        result = compress_folder(folder, config, out / "model")
        try:
            result["verification"] = check_folder(folder, out / "model")
        except VerificationError:
            shutil.rmtree(out / "model")
            raise
    if source.is_file():
        # Of the file that was named, not of the copy that it was unpacked to.
        size = source.stat().st_size
        result["size_bytes"]["before"] = size
        result["bits_per_weight"]["before"] = 8 * size / result["n_params"]
    return result


def compress(model: LanguageModel, config: Compress) -> LocalModel:
    """Return a compressed copy of `model`, which stands for `config.model`.

    It is compared with `model`; if they do not belong together, an error says why. `save` writes
    it as it is, packed; until then it lives in a temporary folder.
    """
    model = local(model)
    decoder(model, to_be="compressed")
    folder = TemporaryDirectory(prefix="lmwright-")
    plain, packed = Path(folder.name) / "plain", Path(folder.name) / "packed"
    model.save(plain)
    compress_folder(plain, config, packed)
    check_folder(plain, packed)
    precision = "fp32" if model.info.dtype == "float32" else "auto"
    small = load_local(packed, precision=precision, name=f"{model.name}-{config.number_format}")
    weakref.finalize(small, folder.cleanup)
    return small


@contextmanager
def _as_folder(source: Path, temporary: Path) -> Iterator[Path]:
    """Give a Hugging Face folder: the source itself, or a .gguf unpacked to `temporary`."""
    if source.is_dir():
        yield source
        return
    # Left by a run that was killed.
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        load_local(source, precision="fp32").save(temporary)
        yield temporary
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
