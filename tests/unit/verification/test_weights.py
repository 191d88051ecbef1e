"""In four bits a small fault looks like rounding; the weights and settings themselves tell."""

from dataclasses import replace

import pytest
import torch

from lmwright.model.config import Rope
from lmwright.verification.result import Check
from lmwright.verification.subject import LocalSubject
from lmwright.verification.tolerances import BY_NAME, EXACT, Tolerance
from lmwright.verification.weights import compare_weights


def judged(a: LocalSubject, b: LocalSubject, bound: Tolerance = EXACT) -> dict[str, Check]:
    findings = compare_weights(a, b)
    assert findings is not None
    return {check.name: check for check in findings.checks(bound)}


def test_the_same_weights_are_the_same(original: LocalSubject, changed) -> None:
    findings = compare_weights(original, changed())
    assert findings is not None
    assert findings.are_same
    assert all(check.is_passed for check in findings.checks(EXACT))


def test_the_tensor_that_changed_most_is_named(original: LocalSubject, changed) -> None:
    def change(model) -> None:
        model.decoder.blocks[0].mlp.up.weight.mul_(1.01)
        model.decoder.blocks[1].mlp.up.weight.mul_(1.1)

    check = judged(original, changed(change), BY_NAME["8 bits"])["weights"]
    assert check.is_passed is False
    assert check.found == "relative error up to 10 % (decoder.blocks.1.mlp.up.weight)"
    assert check.allowed == "2 %"
    assert judged(original, changed(change), BY_NAME["4 bits"])["weights"].is_passed


@pytest.mark.parametrize("value", [0.0, float("nan")])
def test_zeros_and_what_is_no_number_are_compared(
    value: float, original: LocalSubject, changed
) -> None:
    def change(model) -> None:
        model.decoder.blocks[0].mlp.up.weight.fill_(value)

    other = changed(change)
    assert judged(original, other, BY_NAME["2 bits"])["weights"].is_passed is False
    assert judged(other, original, BY_NAME["2 bits"])["weights"].is_passed is False


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
