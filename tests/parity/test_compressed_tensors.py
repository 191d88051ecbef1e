"""Others must read from our int8 and int4 folders exactly the weights that we read, and we theirs.

The oracles are compressed-tensors (packing, rounding, its own reading) and transformers (which
opens the folder as anybody would).
"""

import json

import pytest
import torch

from lmwright.compression.config import Compress
from lmwright.compression.folder import compress_folder
from lmwright.compression.rtn import quantize_groups
from lmwright.formats.packed import Scheme, dequantize, describe, pack, pack_words, unpack
from lmwright.formats.safetensors_folder import read_weights, write_weights

transformers = pytest.importorskip("transformers", reason="needs the `dev` extra")
pytest.importorskip("compressed_tensors", reason="needs the `dev` extra")

# Its imports take seconds, so they come after the check that it is there.
from compressed_tensors.compressors import BaseCompressor  # noqa: E402
from compressed_tensors.compressors.pack_quantized.helpers import pack_to_int32  # noqa: E402
from compressed_tensors.quantization import (  # noqa: E402
    QuantizationConfig,
    QuantizationScheme,
)

METHODS = {"int8": 8, "int4": 4}
GROUP_SIZE = 32
NAME = "model.layers.0.mlp.up_proj.weight"


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=128,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        tie_word_embeddings=True,
        # Large weights, so that logits differ by much where weights differ by little.
        initializer_range=0.3,
    )
    return transformers.LlamaForCausalLM(config).eval()


@pytest.fixture(scope="module", params=["float32", "bfloat16"])
def dtype(request):
    return getattr(torch, request.param)


@pytest.fixture(scope="module", params=sorted(METHODS))
def folder(request, model, dtype, tmp_path_factory):
    source = tmp_path_factory.mktemp("source")
    model.to(dtype).save_pretrained(source)
    model.float()
    out = tmp_path_factory.mktemp("out") / "model"
    compress_folder(source, Compress(model="x", method=request.param, group_size=GROUP_SIZE), out)
    return out


def settings_of(folder):
    return json.loads((folder / "config.json").read_text())


def their_scheme(bits, group_size=GROUP_SIZE):
    quantization = describe(Scheme(bits, group_size), ignore=["lm_head"])
    return QuantizationScheme.model_validate(quantization["config_groups"]["group_0"])


def logits(model):
    tokens = torch.arange(48).view(3, 16)
    with torch.no_grad():
        return model(tokens).logits


def plain_copy(folder, target):
    """Write the folder again without quantisation: our reading of its weights, in its dtype."""
    settings = settings_of(folder)
    dtype = getattr(torch, settings["dtype"])
    tensors = unpack(read_weights(folder), settings.pop("quantization_config"), dtype=dtype)
    write_weights({name: tensor.to(dtype) for name, tensor in tensors.items()}, target)
    (target / "config.json").write_text(json.dumps(settings))
    return target


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("columns", [32, 96, 61, 3])
def test_our_words_are_theirs(bits, columns):
    generator = torch.Generator().manual_seed(columns)
    high = 2 ** (bits - 1)
    ints = torch.randint(-high, high, (7, columns), generator=generator, dtype=torch.int8)
    assert torch.equal(pack_words(ints, bits), pack_to_int32(ints, bits))


@pytest.mark.parametrize("bits", [4, 8])
def test_with_our_scales_they_round_to_our_integers_and_back(bits):
    weight = torch.randn(40, 96, generator=torch.Generator().manual_seed(0))
    ints, scales = quantize_groups(weight, bits=bits, group_size=GROUP_SIZE)
    compressor = BaseCompressor.get_value_from_registry("pack-quantized")
    scheme = their_scheme(bits)
    theirs = compressor.compress({"weight": weight, "weight_scale": scales.float()}, scheme)
    ours = pack(NAME, ints, scales, bits=bits)
    assert torch.equal(ours[f"{NAME}_packed"], theirs["weight_packed"])
    assert torch.equal(ours[f"{NAME}_shape"], theirs["weight_shape"])
    assert torch.equal(compressor.decompress(theirs, scheme)["weight"], dequantize(ints, scales))


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("group_size", [32, None])
@pytest.mark.parametrize("scale_dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_we_read_what_they_wrote(bits, group_size, scale_dtype):
    generator = torch.Generator().manual_seed(1)
    weight = torch.randn(24, 96, generator=generator)
    n_groups = 96 // (group_size or 96)
    largest = weight.unflatten(1, (n_groups, -1)).abs().amax(2)
    scales = (largest / (2 ** (bits - 1) - 0.5)).to(scale_dtype)
    compressor = BaseCompressor.get_value_from_registry("pack-quantized")
    scheme = their_scheme(bits, group_size)
    theirs = compressor.compress({"weight": weight.to(scale_dtype), "weight_scale": scales}, scheme)
    tensors = {f"{NAME.removesuffix('weight')}{key}": value for key, value in theirs.items()}
    quantization = QuantizationConfig(
        config_groups={"group_0": scheme},
        format="pack-quantized",
        quantization_status="compressed",
        ignore=["lm_head"],
    )
    ours = unpack(tensors, quantization.model_dump(mode="json"), dtype=scale_dtype)
    assert torch.equal(ours[NAME], compressor.decompress(theirs, scheme)["weight"])


def test_our_quantization_config_is_what_they_write(folder):
    ours = settings_of(folder)["quantization_config"]
    theirs = QuantizationConfig.model_validate(ours).model_dump(mode="json")
    # The version stands beside what they read; the rest they add is empty.
    assert ours.pop("version")
    assert {key: value for key, value in theirs.items() if key in ours} == ours
    assert not any(value for key, value in theirs.items() if key not in ours)


def test_transformers_opens_the_folder_with_our_weights_and_logits(folder, dtype, tmp_path):
    opened, info = transformers.AutoModelForCausalLM.from_pretrained(
        folder, output_loading_info=True
    )
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    theirs = logits(opened.eval())  # the first forward unpacks the weights
    plain = transformers.AutoModelForCausalLM.from_pretrained(plain_copy(folder, tmp_path / "p"))
    assert opened.dtype == plain.dtype == dtype
    weights = dict(plain.named_parameters())
    for name, weight in opened.named_parameters():
        if name.endswith("weight"):
            assert torch.equal(weight, weights[name]), name
    assert torch.equal(theirs, logits(plain.eval()))


@pytest.mark.filterwarnings("ignore:You passed `quantization_config`")
def test_transformers_dequantises_on_loading_to_our_weights(folder, dtype, tmp_path):
    opened = transformers.AutoModelForCausalLM.from_pretrained(
        folder, quantization_config=transformers.CompressedTensorsConfig(dequantize=True)
    )
    plain = transformers.AutoModelForCausalLM.from_pretrained(plain_copy(folder, tmp_path / "p"))
    weights = dict(opened.named_parameters())
    for name, weight in plain.named_parameters():
        # This way of loading multiplies in the dtype of the scales, also for a model in fp32.
        expected = weight.bfloat16().to(dtype) if "_proj" in name else weight
        assert torch.equal(weights[name], expected), name
