"""The largest difference between what transformers computes and what we compute, way by way.

Each function takes a pair of tests/families.py and returns a number that must stay below its LIMIT.
"""

import functools
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from inspect import signature
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor

from cached_rows import CachedRows
from families import VARIANTS, VOCAB_SIZE, Variant
from lmwright.model import checkpoint
from lmwright.model.position import GROWING
from lmwright.model.transformer import DecoderLM, EncoderDecoderLM, EncoderLM, Model
from lmwright.training.batches import Encoded, PackedBatch, pack

# Its name in transformers until 5.23, and since.
_PARAMETERS = signature(transformers.GPT2LMHeadModel.forward).parameters
CACHE = "cache" if "cache" in _PARAMETERS else "past_key_values"
N_TOKENS = 40
# Prefill, one by one, and several at once behind the cache.
STEPS = ((0, 9), *((i, i + 1) for i in range(9, 24)), (24, N_TOKENS))
LENGTHS = (3, 17, 9)
N_NEW = 8
AUTO = {
    "language": transformers.AutoModelForCausalLM,
    "masked": transformers.AutoModelForMaskedLM,
    "pretraining": transformers.AutoModelForPreTraining,
    "sequence": transformers.AutoModelForSequenceClassification,
    "tokens": transformers.AutoModelForTokenClassification,
    "none": transformers.AutoModel,
}


@dataclass(frozen=True)
class Pair:
    """The same model twice."""

    variant: Variant
    theirs: Any
    ours: Model


@functools.cache
def theirs(name: str) -> Any:
    """Return transformers' model, the same at each call; nobody may change it."""
    transformers.utils.logging.disable_progress_bar()
    variant = VARIANTS[name]
    settings = {key: copied(value) for key, value in variant.settings.items()}
    config = getattr(transformers, f"{variant.kind}Config")(**settings)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        kind = variant.kind.removesuffix("Text")
        model = getattr(transformers, f"{kind}{variant.head}")(config).eval()
        for key, parameter in model.named_parameters():
            if parameter.ndim == 1:  # norms of ones and biases of zeros could be left out unnoticed
                parameter.data.uniform_(*((-0.5, 0.5) if key.endswith("bias") else (0.5, 1.5)))
        if variant.own_head:
            own = torch.randn_like(model.lm_head.weight) * 0.4
            model.lm_head.weight = torch.nn.Parameter(own)
        for key, buffer in model.named_buffers():
            if key == "final_logits_bias":
                buffer.uniform_(-1, 1)
    return model


@functools.cache
def pair(name: str) -> Pair:
    """Return transformers' model and ours, opened from the folder that theirs was saved to."""
    model = theirs(name)
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        return Pair(VARIANTS[name], model, checkpoint.load_folder(Path(folder), torch.float32))


def tokens(*shape: int, seed: int = 0) -> torch.Tensor:
    """Return random tokens, none of which has a role."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(3, VOCAB_SIZE - 1, shape, generator=generator)


def copied(value: Any) -> Any:
    """Copy nested tables: transformers writes into the ones that it is given."""
    return {k: copied(v) for k, v in value.items()} if isinstance(value, dict) else value


@torch.no_grad()
def full_forward(pair: Pair) -> float:
    """Compare whole rows without padding."""
    return FULL[type(pair.ours)](pair)


@torch.no_grad()
def padded_batch(pair: Pair) -> float:
    """Compare rows of different lengths in one batch; theirs with an attention mask."""
    return PADDED[type(pair.ours)](pair)


@torch.no_grad()
def cached_decoding(pair: Pair) -> float:
    """Compare what is computed step by step behind a cache, ours and theirs."""
    return CACHED[type(pair.ours)](pair)


@torch.no_grad()
def saved(pair: Pair) -> float:
    """Open our folder with AutoModel and compare; no tensor may be missing or left over."""
    ours = pair.ours
    auto = AUTO[ours.config.head]
    if isinstance(ours, EncoderDecoderLM):
        auto = transformers.AutoModelForSeq2SeqLM
    with tempfile.TemporaryDirectory() as folder:
        checkpoint.save(ours, Path(folder), torch.float32)
        theirs, info = auto.from_pretrained(folder, output_loading_info=True, dtype=torch.float32)
        assert not any(info.values()), info
        assert type(theirs) is type(pair.theirs)
        again = checkpoint.load_folder(Path(folder), torch.float32)
        assert again.config == ours.config
    return full_forward(Pair(pair.variant, theirs.eval(), again))


def largest(found: Tensor, expected: Tensor) -> float:
    """Return the largest difference; NaN, which is larger than nothing, counts as infinite."""
    assert found.shape == expected.shape
    return float((found.double() - expected.double()).abs().nan_to_num(nan=torch.inf).max())


# Decoders


def reset(theirs: Any) -> None:
    """Let transformers forget the longest text so far, to which dynamic ropes stay stretched."""
    theirs(tokens(1, 1))


def decoder_full(pair: Pair) -> float:
    """Compare two rows."""
    ids = tokens(2, N_TOKENS)
    reset(pair.theirs)
    return largest(pair.ours(ids), pair.theirs(ids).logits)


def decoder_cached(pair: Pair) -> float:
    """Compare steps of several widths."""
    ids = tokens(2, N_TOKENS)
    reset(pair.theirs)
    rows, past, worst = CachedRows(pair.ours, 2), None, 0.0
    for begin, end in STEPS:
        found = rows.logits(ids[:, begin:end])
        step = pair.theirs(ids[:, begin:end], use_cache=True, **{CACHE: past})
        past = step[CACHE]
        worst = max(worst, largest(found, step.logits))
    return worst


def decoder_padded(pair: Pair) -> float:
    """Compare rows of different lengths, and their next tokens behind the cache.

    Theirs are padded on the left, as transformers generates; ours are not padded. Where angles grow
    with the text, theirs take the longest row's for all; ours are those of each row alone.
    """
    n_rows = len(LENGTHS)
    rows = tokens(n_rows, max(LENGTHS) + N_NEW)
    cached = CachedRows(pair.ours, n_rows)
    found = [cached.ragged_logits([rows[row, :n] for row, n in enumerate(LENGTHS)])]
    for i in range(N_NEW):
        new = [rows[row, n + i : n + i + 1] for row, n in enumerate(LENGTHS)]
        found.append(cached.ragged_logits(new))
    is_growing = pair.ours.config.rope.scaling in GROWING
    groups = [[row] for row in range(n_rows)] if is_growing else [list(range(n_rows))]
    return max(padded_group(pair.theirs, rows, group, found) for group in groups)


def padded_group(theirs: Any, rows: Tensor, group: list[int], found: list[list[Tensor]]) -> float:
    """Compare what was found for some rows, step by step, with a batch of those."""
    lengths = torch.tensor([LENGTHS[row] for row in group])
    width = int(lengths.max())
    left, mask = torch.zeros(2, len(group), width, dtype=torch.int64)
    for i, row in enumerate(group):
        left[i, width - LENGTHS[row] :] = rows[row, : LENGTHS[row]]
        mask[i, width - LENGTHS[row] :] = 1
    reset(theirs)
    places = (mask.cumsum(1) - 1).clamp(min=0)
    step = theirs(left, attention_mask=mask, position_ids=places, use_cache=True)
    worst = 0.0
    for n, logits in enumerate(found):
        for i, row in enumerate(group):
            worst = max(worst, largest(logits[row], step.logits[i, -len(logits[row]) :]))
        if n < N_NEW:
            at = (lengths + n)[:, None]
            mask = torch.cat((mask, torch.ones(len(group), 1, dtype=torch.int64)), dim=1)
            past = {CACHE: step[CACHE]}
            new = rows[group].gather(1, at)
            step = theirs(new, attention_mask=mask, position_ids=at, **past)
    return worst


@torch.no_grad()
def packed_samples(pair: Pair) -> float:
    """Compare samples packed for training with each of them alone."""
    # Where a rope grows with the text, a sample's neighbours must be as long as it is.
    is_growing = pair.ours.config.rope.scaling in GROWING
    lengths = (N_TOKENS,) * 3 if is_growing else (1, 13, N_TOKENS, 7)
    rows = [tokens(n, seed=i) for i, n in enumerate(lengths)]
    logits = pair.ours.head(pair.ours.packed_hidden(*layout(packed(rows)))).split(list(lengths))
    reset(pair.theirs)
    return max(
        largest(found, pair.theirs(row[None]).logits[0])
        for row, found in zip(rows, logits, strict=True)
    )


def packed(rows: list[Tensor]) -> PackedBatch:
    """Return samples in which each token but the first is a target."""
    return pack([Encoded(str(i), tuple(r.tolist()), (True,) * len(r)) for i, r in enumerate(rows)])


def layout(batch: PackedBatch) -> tuple[Tensor, Tensor, Tensor]:
    """Return what `packed_hidden` takes."""
    return batch.tokens, batch.positions, batch.segments


# Encoders


def encoder_full(pair: Pair) -> float:
    """Compare two rows, of two texts each where the model knows types."""
    return encoder(pair, tokens(2, N_TOKENS), torch.ones(2, N_TOKENS, dtype=torch.bool))


def encoder_padded(pair: Pair) -> float:
    """Compare three rows of which only the first is full."""
    mask = torch.arange(N_TOKENS) < torch.tensor([[N_TOKENS], [25], [3]])
    ids = tokens(3, N_TOKENS).masked_fill(~mask, pair.theirs.config.pad_token_id)
    return encoder(pair, ids, mask)


def encoder(pair: Pair, ids: Tensor, mask: Tensor) -> float:
    """Compare all that the two say where there is no padding."""
    ours, more = pair.ours, {}
    types = None
    if ours.config.n_token_types > 1:
        types = (torch.arange(N_TOKENS) > 1).long().expand_as(ids)
        more = {"token_type_ids": types}
    given = None if mask.all() else mask
    step = pair.theirs(ids, attention_mask=None if given is None else mask.long(), **more)
    hidden = ours.hidden(ids, mask=given, types=types)
    found = ours(ids, mask=given, types=types)
    names = {"none": "last_hidden_state", "pretraining": "prediction_logits"}
    expected = step[names.get(ours.config.head, "logits")]
    is_by_token = found.shape[:2] == ids.shape
    worst = largest(found[mask], expected[mask]) if is_by_token else largest(found, expected)
    if ours.config.head == "pretraining":
        worst = max(worst, largest(ours.head.follows(hidden), step.seq_relationship_logits))
    if ours.pooler is not None:
        worst = max(worst, largest(ours.pooler(hidden), step.pooler_output))
    return worst


# Encoder-decoders


def sources_and_targets() -> tuple[Tensor, Tensor]:
    """Return two texts, and two that are not as long."""
    return tokens(2, N_TOKENS), tokens(2, 24, seed=1)


def pair_full(pair: Pair) -> float:
    """Compare two rows without padding."""
    sources, targets = sources_and_targets()
    step = pair.theirs(input_ids=sources, decoder_input_ids=targets)
    return largest(pair.ours(sources, targets), step.logits)


def pair_padded(pair: Pair) -> float:
    """Compare two rows with sources of different lengths."""
    sources, targets = sources_and_targets()
    mask = torch.arange(N_TOKENS) < torch.tensor([[N_TOKENS], [25]])
    sources = sources.masked_fill(~mask, pair.theirs.config.pad_token_id)
    step = pair.theirs(input_ids=sources, attention_mask=mask.long(), decoder_input_ids=targets)
    return largest(pair.ours(sources, targets, mask=mask), step.logits)


def pair_cached(pair: Pair) -> float:
    """Compare steps of the decoder, with the encoder's keys and values kept."""
    sources, targets = sources_and_targets()
    mask = torch.arange(N_TOKENS) < torch.tensor([[N_TOKENS], [25]])
    ours, theirs = pair.ours, pair.theirs
    memory = ours.encode(sources, mask=mask)
    encoded = theirs.get_encoder()(input_ids=sources, attention_mask=mask.long())
    rows, past, worst = CachedRows(ours, 2, memory), None, 0.0
    for begin, end in ((0, 4), *((i, i + 1) for i in range(4, 20)), (20, 24)):
        found = rows.logits(targets[:, begin:end])
        step = theirs(
            encoder_outputs=encoded,
            attention_mask=mask.long(),
            decoder_input_ids=targets[:, begin:end],
            use_cache=True,
            **{CACHE: past},
        )
        past = step[CACHE]
        worst = max(worst, largest(found, step.logits))
    return worst


Measure = Callable[[Pair], float]
FULL: dict[type, Measure] = {
    DecoderLM: decoder_full,
    EncoderLM: encoder_full,
    EncoderDecoderLM: pair_full,
}
PADDED: dict[type, Measure] = {
    DecoderLM: decoder_padded,
    EncoderLM: encoder_padded,
    EncoderDecoderLM: pair_padded,
}
CACHED: dict[type, Measure] = {DecoderLM: decoder_cached, EncoderDecoderLM: pair_cached}
