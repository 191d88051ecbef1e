"""The torch modules of a model: how they are opened, and which backend runs them."""

from dataclasses import replace
from pathlib import Path

from lmwright.core.device import Precision, best_device, compute_dtype
from lmwright.engine.torch.decoder import TorchDecoder
from lmwright.engine.torch.encoder import TorchEncoder
from lmwright.engine.torch.seq2seq import TorchSeq2Seq
from lmwright.formats.gguf import open_gguf
from lmwright.formats.sentence_transformers import Pooling, read_pooling
from lmwright.model import checkpoint
from lmwright.model.transformer import EncoderDecoderLM, EncoderLM, Model
from lmwright.tokenizer.encode import Tokenizer
from lmwright.tokenizer.gguf.reader import gguf_tokenizer
from lmwright.tokenizer.huggingface.folder import load_tokenizer

TorchBackend = TorchDecoder | TorchEncoder | TorchSeq2Seq


def open_backend(path: Path, precision: Precision = "auto") -> tuple[TorchBackend, Tokenizer]:
    """Open a folder or a .gguf file on torch."""
    device = best_device()
    dtype = compute_dtype(precision, device)
    if path.suffix == ".gguf":
        file = open_gguf(path)
        # First: what it needs for a moment does not come on top of the weights.
        tokenizer = gguf_tokenizer(file.metadata)
        modules, pooling = checkpoint.load_gguf(file, dtype), None
    else:
        modules, tokenizer = checkpoint.load_folder(path, dtype), load_tokenizer(path)
        pooling = read_pooling(path)
    # A GGUF, or a generation_config.json, may know more ends of a reply than the configuration.
    ends = tokenizer.eos_ids or modules.config.eos_ids
    modules.config = replace(modules.config, eos_ids=ends)
    return torch_backend(modules.to(device), tokenizer, pooling), tokenizer


def torch_backend(model: Model, tokenizer: Tokenizer, pooling: Pooling | None) -> TorchBackend:
    """Return the backend for modules of any kind."""
    if isinstance(model, EncoderLM):
        return TorchEncoder(model, pooling)
    if isinstance(model, EncoderDecoderLM):
        return TorchSeq2Seq(model, tokenizer, pooling)
    return TorchDecoder(model, pooling)
