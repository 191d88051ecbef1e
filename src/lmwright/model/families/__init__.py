"""The families as data: how each spells its configuration and names its tensors."""

import difflib

from lmwright.core.errors import ModelError
from lmwright.formats.settings import shown
from lmwright.model.families.bart import BART
from lmwright.model.families.bert import BERT
from lmwright.model.families.distilbert import DISTILBERT
from lmwright.model.families.family import Family
from lmwright.model.families.gemma2 import GEMMA2
from lmwright.model.families.gemma3 import GEMMA3
from lmwright.model.families.gpt2 import GPT2
from lmwright.model.families.llama import LLAMA, MISTRAL
from lmwright.model.families.marian import MARIAN
from lmwright.model.families.mbart import MBART
from lmwright.model.families.olmo import OLMO2
from lmwright.model.families.phi import PHI3
from lmwright.model.families.qwen import QWEN2, QWEN3
from lmwright.model.families.roberta import ROBERTA
from lmwright.model.families.t5 import T5

DECODERS = (GPT2, LLAMA, MISTRAL, QWEN2, QWEN3, GEMMA2, GEMMA3, PHI3, OLMO2)
ENCODERS = (BERT, ROBERTA, DISTILBERT)
ENCODER_DECODERS = (T5, BART, MBART, MARIAN)
# By `model_type` of config.json.
FAMILIES: dict[str, Family] = {
    each.name: each for each in (*DECODERS, *ENCODERS, *ENCODER_DECODERS)
}
# By `general.architecture`; what GGUF calls "llama" is read as Llama, Mistrals included.
GGUF_FAMILIES: dict[str, Family] = {
    each.gguf.architecture: each for each in reversed(DECODERS) if each.gguf
}


def family(model_type: object) -> Family:
    """Return the family of this `model_type`, or say which are known."""
    return _known(model_type, FAMILIES, "model_type")


def gguf_family(architecture: object) -> Family:
    """Return the family of a GGUF file's architecture, or say which are known."""
    return _known(architecture, GGUF_FAMILIES, "general.architecture")


def _known(name: object, families: dict[str, Family], key: str) -> Family:
    # From a file, so it may be anything, also what no dict can look up.
    if isinstance(name, str) and name in families:
        return families[name]
    close = difflib.get_close_matches(str(name), families, n=1, cutoff=0.6)
    meant = f"; did you mean {close[0]!r}?" if close else "."
    raise ModelError(
        f"{key} {shown(name)} is not a family that lmwright builds{meant} Known: "
        f"{', '.join(families)}. A model behind an OpenAI-compatible server (vLLM, llama.cpp) can "
        "be evaluated all the same: openai:MODEL@URL"
    )
