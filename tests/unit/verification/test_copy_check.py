"""Every compression runs this: it must find a wrong file, and accept a right one of any model."""

import json

import pytest
import torch

from lmwright.compression.config import Compress
from lmwright.compression.quantize import compress_folder
from lmwright.conversion.check import VerificationError, check_folder
from lmwright.core.artifact import write_json
from lmwright.lm import local_model
from lmwright.model.transformer import DecoderLM


@pytest.mark.parametrize("method", ["int8", "int4"])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_model_that_knows_nothing_passes(
    method: str, seed: int, config, tiny_tokenizer, tmp_path
) -> None:
    # Nearly uniform, or chaotic: what it says changes with every rounding.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = DecoderLM(config).eval().requires_grad_(False)
    for name, weight in model.named_parameters():
        if "norm" not in name:
            weight.mul_(12.0 if seed == 3 else 1.0)
    local_model(model, tiny_tokenizer, name="x").save(tmp_path / "plain")
    compress_folder(tmp_path / "plain", Compress(model="x", method=method), tmp_path / "small")
    found = check_folder(tmp_path / "plain", tmp_path / "small")
    assert found["n_prompts"] == 3
    assert found["weight_error"] < 0.1


def test_another_setting_or_template_is_found(written) -> None:
    plain, small = written("fp32"), written("int4")
    check_folder(plain, small)
    (small / "chat_template.jinja").write_text("{{ messages[0]['content'] }}")
    with pytest.raises(VerificationError, match=r"tokens of texts: .*dialogue Which is larger"):
        check_folder(plain, small)


def test_an_error_lists_every_check_that_failed(written, break_rope) -> None:
    plain, small = written("fp32"), written("int8", break_rope)
    settings = json.loads((small / "config.json").read_text())
    write_json(small / "config.json", {**settings, "rms_norm_eps": 1e-3})
    with pytest.raises(VerificationError) as error:
        check_folder(plain, small)
    lines = str(error.value).split("\n")
    assert lines[0] == f"{small}: is not the model that it was made from"
    assert "configuration: norm epsilon 1e-05, against 0.001" in lines[1]
    assert "weights: relative error up to" in lines[2]
    assert error.value.exit_code == 1
    assert not error.value.verdicts[0].is_passed
