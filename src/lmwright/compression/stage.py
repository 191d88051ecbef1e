"""The stage `[compress.NAME]`: what a recipe must know of it."""

from collections.abc import Mapping
from typing import Any

from lmwright.compression.config import Compress
from lmwright.core.stage import ASSUMED_PARAMS, MODEL, Estimate, Named, Reference, Stage
from lmwright.model.memory import inference_bytes

# Parameters a second that are read, rounded, packed and written (2 cores of an AMD EPYC).
COMPRESSION_SPEED = 2e7


def _estimate(config: Compress, known: Mapping[str, Estimate]) -> Estimate:
    n_params = known[config.model].n_params
    size = n_params or ASSUMED_PARAMS
    return Estimate(
        3 + size / COMPRESSION_SPEED,
        # It and its source are compared in fp32.
        inference_bytes(size, n_models=2),
        is_complete=n_params is not None,
        n_params=n_params,
        matrices=known[config.model].matrices,
    )


def _settle(
    config: Compress, _: Mapping[str, Named], known: Mapping[str, Estimate]
) -> dict[str, Any]:
    matrices = known[config.model].matrices
    if matrices is not None:
        config.check_widths({f"a matrix of {n} x {k}": k for n, k in matrices.shapes})
    return {}


COMPRESS_STAGE = Stage(
    name="compress",
    title="Compressing",
    config=Compress,
    makes=MODEL,
    version=1,
    run="lmwright.compression.run:run",
    files=("model", ".source"),
    estimate=_estimate,
    references={"model": Reference(MODEL)},
    parents=("model",),
    relation="quantized",
    settle=_settle,
    needs=lambda _: ("torch",),
)
