"""Compression for a program: a model in, another model out."""

import weakref
from pathlib import Path
from tempfile import TemporaryDirectory

from lmwright.compression.config import Compress
from lmwright.compression.folder import compress_folder
from lmwright.conversion.check import check_folder
from lmwright.core.device import Precision
from lmwright.lm import LanguageModel, LocalModel, decoder, load_local, local


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
    precision: Precision = "fp32" if model.info.dtype == "float32" else "auto"
    small = load_local(packed, precision=precision, name=f"{model.name}-{config.number_format}")
    weakref.finalize(small, folder.cleanup)
    return small
