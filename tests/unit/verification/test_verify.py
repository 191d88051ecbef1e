"""A copy with one fault must fail and a faithful one must pass: that is all that verify is for."""

import copy
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import tokenizers
import torch

from lmwright.core.errors import RequestError
from lmwright.lm import local_model
from lmwright.model.config import ModelConfig
from lmwright.model.transformer import DecoderLM, EncoderDecoderLM, EncoderLM
from lmwright.tokenizer.encode import Tokenizer
from lmwright.verification.bounds import custom
from lmwright.verification.local import LocalWitness
from lmwright.verification.opening import open_path
from lmwright.verification.verdict import Verdict
from lmwright.verification.verify import verify

Changed = Callable[..., LocalWitness]
Written = Callable[..., Path]


def failed(verdict: Verdict) -> set[str]:
    return {check.name for check in verdict.failures}


LARGEST = "largest difference of logits"


def test_a_model_is_itself(original: LocalWitness, changed: Changed) -> None:
    verdict = verify(original, changed(), n_tokens=4)
    assert verdict.is_passed, verdict
    assert verdict.numbers["largest_difference"] == 0
    assert verdict.numbers["agreement"] == 1
    assert verdict.n_prompts == 19
    assert verdict.not_compared == ("1 built-in prompts: longer than the context of 512 tokens",)
    assert verdict.bound == "the same numbers"


@pytest.mark.parametrize(
    ("form", "bound"),
    [
        ("fp32", "the same numbers"),
        ("fp16", "16 bits (fp16)"),
        ("bf16", "16 bits (bf16)"),
        ("int8", "8 bits"),
        ("int4", "4 bits"),
        ("F16", "16 bits (fp16)"),
        ("BF16", "16 bits (bf16)"),
        ("Q8_0", "8 bits"),
        ("Q4_0", "4 bits"),
    ],
)
def test_a_faithful_copy_passes_in_every_format(
    form: str, bound: str, original: LocalWitness, written: Written
) -> None:
    verdict = verify(original, open_path(written(form)), n_prompts=6, n_tokens=4)
    assert verdict.is_passed, verdict
    assert verdict.bound == bound
    if form != "fp32":
        assert verdict.numbers["weight_error"] > 0


@pytest.mark.parametrize("form", ["fp32", "bf16", "int8", "int4", "F16", "Q8_0", "Q4_0"])
def test_a_wrong_rotary_permutation_fails_in_every_format(
    form: str, original: LocalWitness, written: Written, break_rope: Callable[[DecoderLM], None]
) -> None:
    verdict = verify(original, open_path(written(form, break_rope)), n_prompts=6, n_tokens=4)
    said = {LARGEST, "relative error of logits", "mean divergence, nats a token"}
    assert "weights" in failed(verdict)
    # Four bits alone are too coarse for this tiny model's behaviour to show it for certain.
    assert failed(verdict) & said or form in ("int4", "Q4_0")


def a_wrong_base(model: DecoderLM) -> None:
    rope = replace(model.config.rope, theta=500_000.0)
    made = DecoderLM(replace(model.config, rope=rope))
    made.load_state_dict(model.state_dict())
    # A new model, for the rotation is chosen when it is built.
    model.decoder, model.config = made.decoder, made.config
    model.requires_grad_(False)


def a_missing_tied_head(model: DecoderLM) -> None:
    model.head.weight = torch.nn.Parameter(torch.zeros_like(model.head.weight))


def a_norm_that_is_one_off(model: DecoderLM) -> None:
    for name, weight in model.named_parameters():
        if "norm" in name:
            weight.data += 1


def a_swapped_gate(model: DecoderLM) -> None:
    mlp = model.decoder.blocks[1].mlp
    mlp.gate.weight, mlp.up.weight = mlp.up.weight, mlp.gate.weight


def one_number(model: DecoderLM) -> None:
    model.decoder.blocks[1].mlp.up.weight.data[3, 5] += 0.5


def a_number_that_is_none(model: DecoderLM) -> None:
    model.decoder.blocks[0].mlp.up.weight.data[3, 5] = float("nan")


@pytest.mark.parametrize(
    "fault",
    [
        a_wrong_base,
        a_missing_tied_head,
        a_norm_that_is_one_off,
        a_swapped_gate,
        one_number,
        a_number_that_is_none,
    ],
)
def test_a_copy_with_one_fault_fails(
    fault: Callable[[DecoderLM], None], original: LocalWitness, changed: Changed
) -> None:
    verdict = verify(original, changed(fault), n_prompts=6, n_tokens=4)
    assert LARGEST in failed(verdict), verdict
    assert json.loads(json.dumps(verdict.to_json(), allow_nan=False))["is_passed"] is False


def test_swapped_norms_of_queries_and_keys_fail(tiny_tokenizer: Tokenizer) -> None:
    settings = ModelConfig(
        family="qwen3", vocab_size=300, d_model=32, n_layers=2, n_heads=2, n_kv_heads=2, d_head=16,
        d_ff=64, max_positions=512, qk_norm="head", eos_ids=(2,),
    )  # fmt: skip
    torch.manual_seed(0)
    first = DecoderLM(settings).eval().requires_grad_(False)
    for name, weight in first.named_parameters():
        if "attention" in name and "norm" in name:
            weight.uniform_(0.5, 3.0)
    second = copy.deepcopy(first)
    for block in second.decoder.blocks:
        norms = block.attention.q_norm, block.attention.k_norm
        weights = [norm.weight.clone() for norm in norms]
        for norm, weight in zip(norms, reversed(weights), strict=True):
            norm.weight.copy_(weight)
    pair = [
        LocalWitness(local_model(each, tiny_tokenizer, name=name))
        for each, name in ((first, "first"), (second, "second"))
    ]
    assert verify(pair[0], pair[0], n_prompts=4, n_tokens=4).is_passed
    assert LARGEST in failed(verify(pair[0], pair[1], n_prompts=4, n_tokens=4))


def respelt(tokenizer: Tokenizer, change: Callable[[dict], None], **roles: object) -> Tokenizer:
    """Return another tokenizer whose tokenizer.json was changed."""
    spec = json.loads(tokenizer._backend.to_str())
    change(spec)
    template = tokenizer.chat_template
    assert template is not None
    options = {"special_tokens": tokenizer.special_tokens, "chat_template": template.source}
    return Tokenizer(tokenizers.Tokenizer.from_str(json.dumps(spec)), **{**options, **roles})


def off_by_one(spec: dict) -> None:
    """Let <|im_start|> and <|im_end|> change places, as a wrong offset would."""
    first, second = spec["added_tokens"][1:3]
    first["content"], second["content"] = second["content"], first["content"]
    vocab = spec["model"]["vocab"]
    vocab["<|im_start|>"], vocab["<|im_end|>"] = vocab["<|im_end|>"], vocab["<|im_start|>"]


def test_special_tokens_off_by_one_fail(
    original: LocalWitness, changed: Changed, tiny_tokenizer: Tokenizer
) -> None:
    verdict = verify(
        original, changed(tokenizer=respelt(tiny_tokenizer, off_by_one)), n_prompts=4, n_tokens=4
    )
    assert failed(verdict) == {"tokens of texts", "vocabulary"}


def test_another_end_of_a_reply_fails(
    original: LocalWitness, changed: Changed, tiny_tokenizer: Tokenizer
) -> None:
    ends = {"special_tokens": {"eos_token": "<|endoftext|>"}}
    other = respelt(tiny_tokenizer, lambda spec: None, **ends)
    verdict = verify(original, changed(tokenizer=other), n_prompts=4, n_tokens=4)
    assert failed(verdict) == {"vocabulary"}
    [found] = [check.found for check in verdict.failures]
    assert found == "a reply ends with 2 '<|im_end|>', against 0 '<|endoftext|>'"


@pytest.mark.parametrize("template", ["{{ messages[-1]['content'] }}", None])
def test_another_chat_template_or_none_fails(
    template: str | None, original: LocalWitness, changed: Changed, tiny_tokenizer: Tokenizer
) -> None:
    other = respelt(tiny_tokenizer, lambda spec: None, chat_template=template)
    verdict = verify(original, changed(tokenizer=other), n_prompts=4, n_tokens=4)
    assert failed(verdict) == {"tokens of texts"}


def test_the_place_of_the_largest_difference_is_told(
    original: LocalWitness, changed: Changed
) -> None:
    def favour(model: DecoderLM) -> None:
        model.head.weight = torch.nn.Parameter(model.head.weight.clone(), requires_grad=False)
        model.head.weight[70] *= 1.5

    verdict = verify(original, changed(favour), n_prompts=4, n_tokens=4)
    assert verdict.largest is not None
    assert verdict.largest.token_id == 70
    assert verdict.largest.text
    assert f"{verdict.largest.value:.3g}, of token 70 'd'" in verdict.summary
    assert verdict.summary.startswith("FAIL: ")


def test_a_tolerance_of_ones_own_judges_the_largest_difference(
    original: LocalWitness, written: Written
) -> None:
    other = open_path(written("bf16"))
    found = verify(original, other, n_prompts=4, n_tokens=4).numbers["largest_difference"]
    for tolerance, is_passed in ((2 * found, True), (0.5 * found, False)):
        verdict = verify(original, other, n_prompts=4, n_tokens=4, bound=custom(tolerance))
        assert verdict.is_passed is is_passed


def test_one_near_tie_does_not_hide_the_rest(original: LocalWitness, written: Written) -> None:
    verdict = verify(original, open_path(written("int4")), n_tokens=16)
    assert verdict.numbers["n_same_prompts"] < verdict.n_prompts
    assert verdict.n_positions > 200
    assert verdict.is_passed, verdict


def test_a_model_without_the_others_tokens_fails(
    original: LocalWitness, tiny_tokenizer: Tokenizer, config: ModelConfig
) -> None:
    small = DecoderLM(replace(config, vocab_size=100)).eval()
    verdict = verify(
        original, LocalWitness(local_model(small, tiny_tokenizer, name="small")), n_prompts=4
    )
    assert {"tokens known to both", "weights"} <= failed(verdict)
    assert verdict.largest is None
    assert verdict.summary == "FAIL: no log-probabilities were compared"


def test_own_prompts_must_fit(original: LocalWitness, changed: Changed) -> None:
    verdict = verify(original, changed(), prompts=["Hello", [5, 6, 7]], n_tokens=2)
    assert (verdict.n_prompts, verdict.n_positions) == (2, 4)
    with pytest.raises(RequestError, match="prompt 2: 600 tokens and 2 more; the context has 512"):
        verify(original, changed(), prompts=["Hello", "~" * 600], n_tokens=2)


@pytest.mark.parametrize("kind", [EncoderLM, EncoderDecoderLM])
def test_encoders_and_encoder_decoders_can_be_compared(
    kind: type, config: ModelConfig, tiny_tokenizer: Tokenizer
) -> None:
    settings = replace(
        config, n_decoder_layers=2 if kind is EncoderDecoderLM else 0, decoder_start_id=0,
        head="none" if kind is EncoderLM else "language",
    )  # fmt: skip
    torch.manual_seed(0)
    first = kind(settings).eval().requires_grad_(False)
    second = copy.deepcopy(first)
    pair = [
        LocalWitness(local_model(each, tiny_tokenizer, name=name))
        for each, name in ((first, "first"), (second, "second"))
    ]
    verdict = verify(*pair, n_prompts=4, n_tokens=4)
    assert verdict.is_passed, verdict
    assert verdict.numbers["largest_difference"] == 0
    second.encoder.blocks[1].mlp.up.weight[3, 5] += 0.5
    assert LARGEST in failed(verify(*pair, n_prompts=4, n_tokens=4))
