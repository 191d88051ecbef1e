"""In four bits a small fault looks like rounding; the weights and settings themselves tell."""

from dataclasses import replace

import pytest
import torch

from lmwright.formats.ggml_types import dequantize
from lmwright.formats.gguf_writer import TensorSource, encode
from lmwright.model.config import Rope
from lmwright.verification.result import Check
from lmwright.verification.stored import StoredWeights
from lmwright.verification.subject import LocalSubject
from lmwright.verification.tolerances import EXACT, Tolerance, row_error_allowed
from lmwright.verification.weights import compare_weights


def judged(a: LocalSubject, b: LocalSubject, bound: Tolerance = EXACT) -> dict[str, Check]:
    findings = compare_weights(a, b)
    assert findings is not None
    return {check.name: check for check in findings.checks(bound)}


def stored_as(form: str, subject: LocalSubject, **by_name: str) -> LocalSubject:
    subject.stored = StoredWeights(form, {f"{n}.weight": f for n, f in by_name.items()})
    return subject


def test_the_same_weights_are_the_same(original: LocalSubject, changed) -> None:
    findings = compare_weights(original, changed())
    assert findings is not None
    assert findings.are_same
    assert all(check.is_passed for check in findings.checks(EXACT))


def test_the_tensor_that_changed_most_is_named(original: LocalSubject, changed) -> None:
    def change(model) -> None:
        model.decoder.blocks[0].mlp.up.weight.mul_(1.01)
        model.decoder.blocks[1].mlp.up.weight.mul_(1.1)

    check = judged(original, stored_as("Q8_0", changed(change)))["weights"]
    assert check.is_passed is False
    assert check.found == "relative error up to 10 % (decoder.blocks.1.mlp.up.weight, Q8_0)"
    assert check.allowed == "2 %"
    assert judged(original, stored_as("Q4_0", changed(change)))["weights"].is_passed


@pytest.mark.parametrize("value", [0.0, float("nan")])
def test_zeros_and_what_is_no_number_are_compared(
    value: float, original: LocalSubject, changed
) -> None:
    def change(model) -> None:
        model.decoder.blocks[0].mlp.up.weight.fill_(value)

    other = stored_as("Q2_K", changed(change))
    original = stored_as("Q2_K", original)
    assert judged(original, other)["weights"].is_passed is False
    assert judged(other, original)["weights"].is_passed is False


def test_a_row_is_judged_by_itself(original: LocalSubject, changed) -> None:
    def change(model) -> None:
        model.decoder.blocks[0].mlp.up.weight[7] *= 1.1

    checks = judged(original, stored_as("Q8_0", changed(change)))
    assert checks["weights"].is_passed
    assert checks["rows of weights"].is_passed is False
    row = "decoder.blocks.0.mlp.up.weight, row 7, Q8_0"
    assert checks["rows of weights"].found == f"relative error up to 10 % ({row})"
    assert judged(original, stored_as("Q4_0", changed(change)))["rows of weights"].is_passed


def test_what_a_format_cannot_tell_from_nothing_is_no_error(original: LocalSubject, changed):
    def tiny(model) -> None:
        model.decoder.embedding.weight.data[5] = 1e-6

    def none(model) -> None:
        model.decoder.embedding.weight.data[5] = 0.0

    first = changed(tiny)
    assert judged(first, stored_as("Q8_0", changed(none)))["rows of weights"].is_passed
    assert judged(first, stored_as("fp16", changed(none)))["rows of weights"].is_passed is False


@pytest.mark.parametrize("scale", [1e-3, 1.0, 30.0])
@pytest.mark.parametrize("form", ["Q8_0", "Q4_0"])
def test_no_row_is_worse_than_its_format_explains(form: str, scale: float) -> None:
    generator = torch.Generator().manual_seed(3)
    # Even, with a few large ones, and mostly just under half a step.
    steps = {"Q8_0": 127, "Q4_0": 8}[form]
    half = torch.full((50, 64), 0.499 / steps)
    half[:, ::32] = -1.0
    outliers = torch.randn(200, 64, generator=generator).clamp(-3, 3) ** 7
    rows = scale * torch.cat([torch.randn(200, 64, generator=generator), outliers, half])
    source = TensorSource(tuple(rows.shape), form, rows.numpy)
    stored = torch.from_numpy(dequantize(encode("x", source, form), form))
    errors = (stored - rows).norm(dim=1) / rows.norm(dim=1)
    assert errors.max() < row_error_allowed(form)
    assert errors.max() > 0.8 * row_error_allowed(form)


@pytest.mark.parametrize(
    ("setting", "named"),
    [
        ({"rope": Rope(theta=500_000.0)}, "rotation"),
        ({"rope": Rope(scaling="linear", factor=2.0)}, "rotation"),
        ({"norm_eps": 1e-6}, "norm epsilon"),
        ({"max_positions": 256}, "context length"),
        ({"sliding_window": 8}, "windows"),
        ({"activation": "gelu"}, "activation"),
        ({"logit_softcap": 30.0}, "soft-caps"),
        ({"attention_scale": 0.5}, "scale of attention"),
    ],
)
def test_settings_without_weights_are_compared(
    setting: dict, named: str, original: LocalSubject, changed
) -> None:
    def change(model) -> None:
        model.config = replace(model.config, **setting)

    check = judged(original, changed(change))["configuration"]
    assert check.is_passed is False
    assert named in check.found


@pytest.mark.parametrize(
    "setting",
    [{"attention_scale": 0.25}, {"norm_eps": 1.0000001e-5}, {"rope": Rope(beta_fast=16.0)}],
)
def test_other_spellings_of_the_same_are_the_same(
    setting: dict, original: LocalSubject, changed
) -> None:
    def change(model) -> None:
        model.config = replace(model.config, **setting)

    assert judged(original, changed(change))["configuration"].is_passed


def test_other_shapes_fail_by_name(original: LocalSubject, changed) -> None:
    def change(model) -> None:
        model.decoder.norm = torch.nn.Identity()

    check = judged(original, changed(change))["weights"]
    assert check.is_passed is False
    assert check.found == "decoder.norm.weight: 64, against missing"
