"""Build, measure and ship language models."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from lmwright.compression.config import Compress
    from lmwright.compression.run import compress
    from lmwright.data.config import Data
    from lmwright.engine.request import Sampling, ScoreRequest
    from lmwright.evaluation.config import Evaluate
    from lmwright.evaluation.runner import evaluate
    from lmwright.finetuning.config import Finetune
    from lmwright.finetuning.run import finetune
    from lmwright.hosted.config import Hosted
    from lmwright.lm import LanguageModel, load

# Loaded when they are first used: `import lmwright` costs nothing, `lmwright --help` neither.
_EXPORTS = {
    "Compress": "lmwright.compression.config",
    "Data": "lmwright.data.config",
    "Evaluate": "lmwright.evaluation.config",
    "Finetune": "lmwright.finetuning.config",
    "Hosted": "lmwright.hosted.config",
    "LanguageModel": "lmwright.lm",
    "Sampling": "lmwright.engine.request",
    "ScoreRequest": "lmwright.engine.request",
    "compress": "lmwright.compression.run",
    "evaluate": "lmwright.evaluation.runner",
    "finetune": "lmwright.finetuning.run",
    "load": "lmwright.lm",
}

__all__ = [
    "Compress",
    "Data",
    "Evaluate",
    "Finetune",
    "Hosted",
    "LanguageModel",
    "Sampling",
    "ScoreRequest",
    "compress",
    "evaluate",
    "finetune",
    "load",
]


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module 'lmwright' has no attribute {name!r}")
    return getattr(import_module(_EXPORTS[name]), name)
