"""What a model is, before anything is measured; plain data, no torch."""

from dataclasses import dataclass

# What the assemblies of the model core are called.
KINDS = {"DecoderLM": "decoder", "EncoderLM": "encoder", "EncoderDecoderLM": "encoder-decoder"}


@dataclass(frozen=True)
class ModelInfo:
    """What a model is; None is what nobody tells (an endpoint knows little of its model)."""

    architecture: str | None
    n_params: int | None
    # Bytes of the weight files on disk (without any: in memory), and 8 * bytes / parameters.
    size_bytes: int | None
    bits_per_weight: float | None
    context_length: int | None
    # The number format that it computes with here.
    dtype: str | None
    device: str | None
    # "decoder", "encoder" or "encoder-decoder".
    kind: str | None = None
    # Rows of its embedding: token ids go below. A tokenizer may use fewer, with gaps.
    vocab_size: int | None = None
