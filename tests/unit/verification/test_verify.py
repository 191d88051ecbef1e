"""A copy with one fault must fail and a faithful one must pass: that is all that verify is for."""

import copy
import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import tokenizers
import torch

from copies import subject
from lmwright.core.errors import RequestError
from lmwright.model.config import ModelConfig
from lmwright.model.transformer import DecoderLM, EncoderDecoderLM, EncoderLM
from lmwright.tokenizer.encode import Tokenizer
from lmwright.verification.compare import Tally
from lmwright.verification.result import VerificationResult
from lmwright.verification.subject import Drift, LocalSubject, open_path
from lmwright.verification.tolerances import BY_NAME, EXACT, Tolerance, custom
from lmwright.verification.verify import behaviour_checks, untold, verify

Changed = Callable[..., LocalSubject]
Written = Callable[..., Path]


def failed(result: VerificationResult) -> set[str]:
    return {check.name for check in result.failures}


LARGEST = "largest difference of logits"


def test_a_model_is_itself(original: LocalSubject, changed: Changed) -> None:
    result = verify(original, changed(), n_tokens=4)
    assert result.is_passed, result
    assert result.numbers["largest_difference"] == 0
    assert result.numbers["agreement"] == 1
    assert result.n_prompts == 19
    assert result.not_compared == ("1 built-in prompts: longer than the context of 512 tokens",)
    assert result.tolerance == "the same numbers"


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
    form: str, bound: str, original: LocalSubject, written: Written
) -> None:
    result = verify(original, open_path(written(form)), n_prompts=6, n_tokens=4)
    assert result.is_passed, result
    assert result.tolerance == bound
    if form != "fp32":
        assert result.numbers["weight_error"] > 0


@pytest.mark.parametrize("form", ["fp32", "bf16", "int8", "int4", "F16", "Q8_0", "Q4_0"])
def test_a_wrong_rotary_permutation_fails_in_every_format(
    form: str, original: LocalSubject, written: Written, break_rope: Callable[[DecoderLM], None]
) -> None:
    result = verify(original, open_path(written(form, break_rope)), n_prompts=6, n_tokens=4)
    said = {LARGEST, "relative error of logits", "mean divergence, nats a token"}
    assert "weights" in failed(result)
    # Four bits alone are too coarse for this tiny model's behaviour to show it for certain.
    assert failed(result) & said or form in ("int4", "Q4_0")


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
    fault: Callable[[DecoderLM], None], original: LocalSubject, changed: Changed
) -> None:
    result = verify(original, changed(fault), n_prompts=6, n_tokens=4)
    assert LARGEST in failed(result), result
    assert json.loads(json.dumps(result.to_json(), allow_nan=False))["is_passed"] is False


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
        subject(each, tiny_tokenizer, name=name)
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


@pytest.mark.parametrize("form", ["int4", "Q4_0"])
@pytest.mark.parametrize("fault", ["decoder.blocks.1.mlp_residual.norm_in", "decoder.norm", "rows"])
def test_in_four_bits_what_is_not_stored_in_four_bits_may_differ_less(
    form: str, fault: str, original: LocalSubject, written: Written
) -> None:
    def change(model: DecoderLM) -> None:
        if fault == "rows":
            model.decoder.embedding.weight[40:42] = 0.0
        else:
            model.get_parameter(f"{fault}.weight").mul_(1.2)

    assert verify(original, open_path(written(form)), n_prompts=6, n_tokens=4).is_passed
    result = verify(original, open_path(written(form, change)), n_prompts=6, n_tokens=4)
    expected = {"rows of weights"} if fault == "rows" else {"weights", "rows of weights"}
    assert failed(result) >= expected
    [found] = [check.found for check in result.failures if check.name == "rows of weights"]
    assert ("row 40" if fault == "rows" else fault) in found


def off_by_one(spec: dict) -> None:
    """Let <|im_start|> and <|im_end|> change places, as a wrong offset would."""
    first, second = spec["added_tokens"][1:3]
    first["content"], second["content"] = second["content"], first["content"]
    vocab = spec["model"]["vocab"]
    vocab["<|im_start|>"], vocab["<|im_end|>"] = vocab["<|im_end|>"], vocab["<|im_start|>"]


def test_special_tokens_off_by_one_fail(
    original: LocalSubject, changed: Changed, tiny_tokenizer: Tokenizer
) -> None:
    result = verify(
        original, changed(tokenizer=respelt(tiny_tokenizer, off_by_one)), n_prompts=4, n_tokens=4
    )
    assert failed(result) == {"tokens of texts", "vocabulary"}


def test_another_end_of_a_reply_fails(
    original: LocalSubject, changed: Changed, tiny_tokenizer: Tokenizer
) -> None:
    roles = {**tiny_tokenizer.special_tokens, "eos_token": "<|endoftext|>"}
    other = respelt(tiny_tokenizer, lambda spec: None, special_tokens=roles)
    result = verify(original, changed(tokenizer=other), n_prompts=4, n_tokens=4)
    assert failed(result) == {"vocabulary"}
    [found] = [check.found for check in result.failures]
    assert found == "a reply ends with 2 '<|im_end|>', against 0 '<|endoftext|>'"


@pytest.mark.parametrize("template", ["{{ messages[-1]['content'] }}", None])
def test_another_chat_template_or_none_fails(
    template: str | None, original: LocalSubject, changed: Changed, tiny_tokenizer: Tokenizer
) -> None:
    other = respelt(tiny_tokenizer, lambda spec: None, chat_template=template)
    result = verify(original, changed(tokenizer=other), n_prompts=4, n_tokens=4)
    assert failed(result) == {"tokens of texts", "chat template"}


def test_the_place_of_the_largest_difference_is_told(
    original: LocalSubject, changed: Changed
) -> None:
    def favour(model: DecoderLM) -> None:
        model.head.weight = torch.nn.Parameter(model.head.weight.clone(), requires_grad=False)
        model.head.weight[70] *= 1.5

    result = verify(original, changed(favour), n_prompts=4, n_tokens=4)
    assert result.largest is not None
    assert result.largest.token_id == 70
    assert result.largest.text
    assert f"{result.largest.value:.3g}, of token 70 'd'" in result.summary
    assert result.summary.startswith("FAIL: ")


def test_a_tolerance_of_ones_own_judges_the_largest_difference(
    original: LocalSubject, written: Written
) -> None:
    other = open_path(written("bf16"))
    found = verify(original, other, n_prompts=4, n_tokens=4).numbers["largest_difference"]
    for tolerance, is_passed in ((2 * found, True), (0.5 * found, False)):
        result = verify(original, other, n_prompts=4, n_tokens=4, tolerance=custom(tolerance))
        assert result.is_passed is is_passed


def test_one_near_tie_does_not_hide_the_rest(original: LocalSubject, written: Written) -> None:
    result = verify(original, open_path(written("int4")), n_tokens=16)
    assert result.numbers["n_same_prompts"] < result.n_prompts
    assert result.n_positions > 200
    assert result.is_passed, result


def test_a_model_without_the_others_tokens_fails(
    original: LocalSubject, tiny_tokenizer: Tokenizer, config: ModelConfig
) -> None:
    small = DecoderLM(replace(config, vocab_size=100)).eval()
    result = verify(original, subject(small, tiny_tokenizer, name="small"), n_prompts=4)
    assert {"tokens known to both", "weights"} <= failed(result)
    assert result.largest is None
    assert result.summary.startswith("FAIL: weights; ")
    assert result.summary.endswith("; no log-probabilities were compared")


def test_own_prompts_must_fit(original: LocalSubject, changed: Changed) -> None:
    result = verify(original, changed(), prompts=["Hello", [5, 6, 7]], n_tokens=2)
    assert (result.n_prompts, result.n_positions) == (2, 4)
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
        subject(each, tiny_tokenizer, name=name)
        for each, name in ((first, "first"), (second, "second"))
    ]
    result = verify(*pair, n_prompts=4, n_tokens=4)
    assert result.is_passed, result
    assert result.numbers["largest_difference"] == 0
    second.encoder.blocks[1].mlp.up.weight[3, 5] += 0.5
    assert LARGEST in failed(verify(*pair, n_prompts=4, n_tokens=4))


A = SimpleNamespace(name="a", engine="lmwright", weights="int4")
B = SimpleNamespace(name="b", engine="server", weights="fp32")


def tally(**changes: object) -> Tally:
    values: dict = {
        "n_positions": 10, "n_chosen": 10, "n_same": 9, "n_prompts": 2, "n_same_prompts": 1,
        "kl": 0.2, "squares": 100.0, "squared_errors": 1.0, "scale": 30.0,
        "largest": (0.3, 0, 1, 5), "drifts": [Drift(1e-5, 30.0), None], "worst_loss": 0.1,
    }  # fmt: skip
    return Tally(**{**values, **changes})


def judged_wrong(tolerance: Tolerance, **changes: object) -> list[str]:
    checks = behaviour_checks(A, B, tally(**changes), tolerance)  # type: ignore[arg-type]
    return [check.name for check in checks if check.is_passed is False]


def test_each_figure_has_its_limit() -> None:
    eight = BY_NAME["8 bits"]
    assert judged_wrong(eight) == []
    assert judged_wrong(eight, squared_errors=7.0) == ["relative error of logits"]
    assert judged_wrong(eight, kl=0.6) == ["mean divergence, nats a token"]
    assert judged_wrong(eight, n_same=7) == ["the same choice"]
    assert judged_wrong(eight, drifts=[Drift(1e-2, 30.0), None]) == ["cached decoding of a"]
    assert judged_wrong(eight, n_unfaithful=1) == ["greedy tokens"]
    assert judged_wrong(EXACT) == ["largest difference of logits"]
    assert judged_wrong(EXACT, largest=(3e-4, 0, 1, 5)) == []
    assert judged_wrong(EXACT, largest=(3e-4, 0, 1, 5), scale=None) == [
        "largest difference of log-probabilities"
    ]


@pytest.mark.parametrize("field", ["kl", "squared_errors"])
def test_what_is_no_number_passes_no_limit(field: str) -> None:
    assert judged_wrong(BY_NAME["2 bits"], **{field: float("nan")})
    assert judged_wrong(Tolerance("x", largest=sys.float_info.max), largest=(float("inf"), 0, 1, 5))


def test_nothing_in_common_is_a_failure() -> None:
    [check] = behaviour_checks(A, B, Tally(), EXACT)  # type: ignore[arg-type]
    assert check.is_passed is False


def test_an_original_of_fewer_bits_gets_advice_when_it_fails() -> None:
    checks = behaviour_checks(A, B, tally(), EXACT)  # type: ignore[arg-type]
    assert "name the original first" in checks[-1].found
    checks = behaviour_checks(A, B, tally(), BY_NAME["8 bits"])  # type: ignore[arg-type]
    assert all(check.name != "order" for check in checks)


def test_what_was_not_told_is_said() -> None:
    unknown = SimpleNamespace(name="c", engine="server", weights=None)
    assert list(untold(A, unknown, tally())) == [  # type: ignore[arg-type]
        "how c stores its weights: taken for bf16; if you know better, name it (--server-weights)"
    ]
    told = list(untold(A, B, tally(n_untold=3, n_empty=1, scale=None)))  # type: ignore[arg-type]
    assert told == [
        "3 of 13 next tokens: one of the two does not tell about them",
        "1 prompts: a says nothing after them",
        "all but the 20 likeliest tokens: b tells no more",
    ]
    assert list(untold(A, B, tally())) == []  # type: ignore[arg-type]
