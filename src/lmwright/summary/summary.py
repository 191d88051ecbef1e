"""The summary of a model: what it is, how it is stored, what it takes to run."""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmwright.core.errors import RequestError
from lmwright.formats.gguf import open_gguf
from lmwright.formats.sentence_transformers import Pooling, read_pooling
from lmwright.hosted.address import is_hosted, parse
from lmwright.hosted.client import KEY
from lmwright.hub import resolve
from lmwright.model.config import ModelConfig
from lmwright.model.memory import MemoryModel, MemoryNeed
from lmwright.summary.choices import choices, head, pooled
from lmwright.summary.dialogue import Dialogue, dialogue
from lmwright.summary.origin import Origin, origin
from lmwright.tokenizer.encode import Tokenizer
from lmwright.tokenizer.gguf.reader import gguf_tokenizer
from lmwright.tokenizer.huggingface.folder import load_tokenizer
from lmwright.tokenizer.summary import TokenizerSummary, summarise_tokenizer

if TYPE_CHECKING:
    from lmwright.summary.inventory import Inventory

    # A .gguf's metadata, the model, its tokenizer, how it makes one vector of a text.
    _Read = tuple[Mapping[str, Any], Inventory, Tokenizer, Pooling | None]

# Tokens of a text that memory is told for, besides the model's longest.
CONTEXTS = (512, 2048)
# What an endpoint tells nobody.
NOT_TOLD = (
    "architecture",
    "parameters",
    "number formats",
    "licence",
    "context length",
    "tokenizer",
    "chat template",
)


@dataclass(frozen=True)
class ModelSummary:
    """What a model is; nothing in it needs the weights themselves."""

    name: str
    # "gguf" or "safetensors"
    file_format: str
    file_bytes: int
    origin: Origin
    inventory: "Inventory"
    head: str
    # How it makes one vector of a text, where its folder says so.
    pooling: str | None
    # Where the architecture differs from a plain pre-norm decoder.
    choices: tuple[str, ...]
    context_length: int
    # What weights and activations have on this machine, and where.
    dtype: str
    device: str
    memory: tuple[MemoryNeed, ...]
    tokenizer: TokenizerSummary
    # Where the tokenizer and the model contradict each other.
    mismatches: tuple[str, ...]
    dialogue: Dialogue | None

    def to_json(self) -> dict[str, Any]:
        """Return plain data."""
        inventory, found = self.inventory, asdict(self)
        parts = [
            {
                **asdict(part),
                "share": part.n_params / inventory.n_params,
                "bits_per_weight": part.bits_per_weight,
            }
            for part in inventory.parts
        ]
        return {
            **{key: value for key, value in found.items() if key not in ("name", "inventory")},
            "model": self.name,
            "kind": inventory.assembly,
            "architecture": inventory.config.family,
            "labels": list(inventory.config.labels),
            "config": asdict(inventory.config),
            "n_params": inventory.n_params,
            "size_bytes": inventory.size_bytes,
            "bits_per_weight": inventory.bits_per_weight,
            "parts": parts,
            "vocabulary": inventory.config.vocab_size,
        }


@dataclass(frozen=True)
class HostedSummary:
    """What can be said of a model behind an endpoint without asking it anything."""

    name: str
    model: str
    url: str
    # Whether nobody on the way can read what is sent.
    is_secret: bool
    has_key: bool

    def to_json(self) -> dict[str, Any]:
        """Return plain data."""
        facts = {"model": self.name, "kind": "hosted", "name_there": self.model, "url": self.url}
        flags = {"is_secret": self.is_secret, "has_key": self.has_key}
        return {**facts, **flags, "not_told": list(NOT_TOLD)}


def summarise(
    model: str, *, context: int | None = None, batch: int | None = None
) -> ModelSummary | HostedSummary:
    """Return what a model is; memory is told for `batch` texts of `context` tokens.

    Without a context it is told for a few up to the longest. Only headers are read, never a
    weight; a damaged or foreign model raises the `ModelError` that loading it would.
    """
    if not is_hosted(model):
        return _local(model, context=context, batch=1 if batch is None else batch)
    if context is not None or batch is not None:
        raise RequestError(f"{model}: a hosted model takes no memory here; leave out --context")
    address = parse(model)
    has_key = bool(os.environ.get(KEY))
    return HostedSummary(model, address.model, address.url, address.is_secret, has_key)


def _local(model: str, *, context: int | None, batch: int) -> ModelSummary:
    from lmwright.core.device import best_device, compute_dtype
    from lmwright.lm import weight_bytes

    path = resolve(model)
    metadata, inventory, tokenizer, pooling = _read(path)
    config = inventory.config
    longest = config.max_positions
    if pooling is not None and pooling.max_tokens is not None:
        longest = min(longest, pooling.max_tokens)
    device = best_device()
    dtype = str(compute_dtype("auto", device)).removeprefix("torch.")
    facts = summarise_tokenizer(tokenizer, has_specials=inventory.assembly != "decoder")
    return ModelSummary(
        name=model,
        file_format="gguf" if path.is_file() else "safetensors",
        file_bytes=weight_bytes(path),
        origin=origin(path, metadata),
        inventory=inventory,
        head=head(config),
        pooling=None if pooling is None else pooled(pooling),
        choices=tuple(choices(config)),
        context_length=longest,
        dtype=dtype,
        device=str(device),
        memory=_memory(inventory, contexts(longest, context), batch=batch, dtype=dtype),
        tokenizer=facts,
        mismatches=tuple(mismatches(config, facts)),
        dialogue=dialogue(tokenizer),
    )


def contexts(longest: int, asked: int | None) -> list[int]:
    """Return the lengths to show: the one that was asked for, or a few up to the longest."""
    if asked is None:
        return sorted({min(length, longest) for length in (*CONTEXTS, longest)})
    if not 1 <= asked <= longest:
        raise RequestError(f"--context {asked}: this model reads 1 to {longest:,} tokens")
    return [asked]


def _memory(
    inventory: "Inventory", lengths: Sequence[int], *, batch: int, dtype: str
) -> tuple[MemoryNeed, ...]:
    from lmwright.engine.torch.padding import MAX_TOKENS
    from lmwright.engine.torch.session import MAX_CHUNK

    if batch < 1:
        raise RequestError(f"--batch {batch}: expected 1 or more")
    at_once = MAX_CHUNK if inventory.assembly == "decoder" else MAX_TOKENS
    model = MemoryModel(
        inventory.config, inventory.assembly, inventory.n_params, dtype, max_chunk=at_once
    )
    return tuple(model.need(length, batch=batch) for length in lengths)


def mismatches(config: ModelConfig, tokenizer: TokenizerSummary) -> Iterator[str]:
    """Yield where the tokenizer and the model contradict each other."""
    n_tokens, n_rows = tokenizer.n_tokens, config.vocab_size
    if n_tokens > n_rows:
        yield (
            f"the tokenizer has {n_tokens:,} tokens, the embedding only {n_rows:,} rows: a text "
            "with one of the others cannot be read"
        )
    elif n_tokens < n_rows:
        rows = "row is" if n_rows - n_tokens == 1 else "rows are"
        yield f"{n_rows - n_tokens:,} {rows} of no token: the embedding has {n_rows:,}"
    for token in tokenizer.special_tokens:
        if token.id is None:
            yield f"{token.role} {token.text!r} is not in the vocabulary"
    by_role = {token.role: token.id for token in tokenizer.special_tokens}
    ends = {token.id for token in tokenizer.special_tokens if token.role in ("eos", "end")}
    for role, id_ in (("bos", config.bos_id), ("pad", config.pad_id)):
        if id_ is not None and by_role.get(role, id_) != id_:
            yield f"{role} is {by_role[role]} in the tokenizer, {id_} in the model's configuration"
    lacking = [id_ for id_ in config.eos_ids if id_ not in ends]
    if lacking and ends:
        ids = ", ".join(map(str, lacking))
        yield f"token {ids} ends a reply in the model's configuration only"


def _read(path: Path) -> "_Read":
    from lmwright.summary.inventory import folder_inventory, gguf_inventory

    if path.is_dir():
        return {}, folder_inventory(path), load_tokenizer(path), read_pooling(path)
    with open_gguf(path) as file:
        return file.metadata, gguf_inventory(file), gguf_tokenizer(file.metadata), None
