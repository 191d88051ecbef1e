"""Compression for a program: a model in, another model out."""

import weakref
from pathlib import Path
from tempfile import TemporaryDirectory

from lmwright.compression.config import Compress
from lmwright.compression.quantize import compress_folder
from lmwright.core.device import Precision
from lmwright.lm import LocalModel, load


def compress(model: LocalModel, config: Compress) -> LocalModel:
    """Return a compressed copy of `model`, which stands for `config.model`.

    `save` writes it as it is, packed; until then it lives in a temporary folder.
    """
    folder = TemporaryDirectory(prefix="lmwright-")
    plain, packed = Path(folder.name) / "plain", Path(folder.name) / "packed"
    model.save(plain)
    compress_folder(plain, config, packed)
    precision: Precision = "fp32" if model.facts.dtype == "float32" else "auto"
    small = load(packed, precision=precision, name=f"{model.name}-{config.method}")
    weakref.finalize(small, folder.cleanup)
    return small
