"""The compress step: a model by name in, a model's folder and its result out."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lmwright.compression.config import Compress
from lmwright.core.stage import StepContext


def run(config: Compress, out: Path, context: StepContext) -> dict[str, Any]:
    """Write the compressed model to `out/model`; return what it became, for result.json.

    It is opened again and compared with its source; if it is another model, an error says why.
    """
    from lmwright.compression.folder import compress_folder
    from lmwright.conversion.check import VerificationError, check_folder
    from lmwright.hub import resolve

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


@contextmanager
def _as_folder(source: Path, temporary: Path) -> Iterator[Path]:
    """Give a Hugging Face folder: the source itself, or a .gguf unpacked to `temporary`."""
    if source.is_dir():
        yield source
        return
    from lmwright import lm

    # Left by a run that was killed.
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        lm.load_local(source, precision="fp32").save(temporary)
        yield temporary
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
