"""A new algorithm must be one function and one record, also one that looks at activations."""

from pathlib import Path

import pytest
import torch

from lmwright.compression.algorithms import ALGORITHMS, Algorithm, GroupedIntegers, LinearLayer
from lmwright.compression.config import Compress
from lmwright.compression.folder import compress_folder
from lmwright.conversion.check import check_folder
from lmwright.core.errors import RequestError
from lmwright.formats.packed import Scheme, dequantize
from lmwright.formats.safetensors_folder import read_weights
from lmwright.lm import load_local, modules

TEXTS = [[5, 6, 7, 8, 9, 10, 11], list(range(20, 40))]
CLIPS = (1.0, 0.95, 0.9, 0.85, 0.8, 0.75, 0.7)


def activation_aware(layer: LinearLayer, scheme: Scheme) -> GroupedIntegers:
    """Clip each group where its output, not its weights, loses least."""
    importance = torch.zeros(layer.weight.shape[1])
    for inputs in layer.inputs:
        importance += inputs.square().sum(0)
    groups = layer.weight.float().unflatten(1, (-1, scheme.group_size))  # (N, G, S)
    costs = importance.unflatten(0, (-1, scheme.group_size))  # (G, S)
    top = 2 ** (scheme.bits - 1) - 1
    best = None
    for clip in CLIPS:
        scales = (clip * groups.abs().amax(2) / top).clamp(min=1e-30).bfloat16()
        step = scales.float().unsqueeze(2)
        ints = (groups / step).round().clamp(-top - 1, top)
        loss = ((ints * step - groups).square() * costs).sum(2)
        if best is None:
            best = ints, scales, loss
        is_better = loss < best[2]
        best = (
            torch.where(is_better.unsqueeze(2), ints, best[0]),
            torch.where(is_better, scales, best[1]),
            torch.where(is_better, loss, best[2]),
        )
    assert best is not None
    return GroupedIntegers(best[0].to(torch.int8).flatten(1), best[1])


AWARE = Algorithm("aware", activation_aware, needs_inputs=True)


@pytest.fixture
def config(monkeypatch: pytest.MonkeyPatch) -> Compress:
    monkeypatch.setitem(ALGORITHMS, "aware", AWARE)
    return Compress(model="x", method="aware", bits=4, group_size=16)


def test_an_algorithm_that_looks_at_activations_makes_a_folder_that_verifies(
    config: Compress, tiny_folder: Path, tmp_path: Path
) -> None:
    result = compress_folder(tiny_folder, config, tmp_path / "out", calibration=TEXTS)
    assert (result["method"], result["bits"]) == ("aware", 4)
    assert check_folder(tiny_folder, tmp_path / "out")["weight_error"] < 0.25
    assert load_local(tmp_path / "out").info.n_params == result["n_params"]


def test_a_layer_is_given_what_enters_it_in_the_model_compressed_so_far(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: dict[str, list[torch.Tensor]] = {}

    def watch(layer: LinearLayer, scheme: Scheme) -> GroupedIntegers:
        given[layer.name] = list(layer.inputs)
        assert all(map(torch.equal, given[layer.name], layer.inputs))  # it can be read again
        return activation_aware(layer, scheme)

    monkeypatch.setitem(ALGORITHMS, "watch", Algorithm("watch", watch, needs_inputs=True))
    config = Compress(model="x", method="watch", bits=4, group_size=16)
    compress_folder(tiny_folder, config, tmp_path / "out", calibration=TEXTS)
    small = modules(load_local(tmp_path / "out", precision="fp32"))
    last = small.decoder.blocks[-1]
    seen: list[torch.Tensor] = []
    last.attention.q.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    # The last block's queries come behind blocks that are compressed, all of them.
    with torch.no_grad():
        for text in TEXTS:
            small(torch.tensor([text]))
    name = f"model.layers.{len(small.decoder.blocks) - 1}.self_attn.q_proj.weight"
    for inputs, expected in zip(given[name], seen, strict=True):
        # The embedding becomes bf16 in the file.
        assert torch.allclose(inputs, expected[0], atol=0.05)


def test_looking_at_activations_pays_where_they_are_large(
    config: Compress, tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses: dict[str, float] = {}

    def both(layer: LinearLayer, scheme: Scheme) -> GroupedIntegers:
        found = {"aware": activation_aware(layer, scheme)}
        found["rtn"] = ALGORITHMS["rtn"].quantize(layer, scheme)
        for name, integers in found.items():
            errors = dequantize(integers.ints, integers.scales) - layer.weight.float()
            squares = sum(inputs.square().sum(0) for inputs in layer.inputs)
            losses[name] = losses.get(name, 0.0) + float((errors.square() * squares).sum())
        return found["aware"]

    monkeypatch.setitem(ALGORITHMS, "aware", Algorithm("aware", both, needs_inputs=True))
    compress_folder(tiny_folder, config, tmp_path / "out", calibration=TEXTS)
    assert losses["aware"] < losses["rtn"]


def test_the_order_in_the_file_is_that_of_the_model(
    config: Compress, tiny_folder: Path, tmp_path: Path
) -> None:
    compress_folder(tiny_folder, config, tmp_path / "aware", calibration=TEXTS)
    plain = Compress(model="x", method="int4", group_size=16)
    compress_folder(tiny_folder, plain, tmp_path / "rtn")
    shapes = [
        {name: entry.shape for name, entry in read_weights(tmp_path / name).entries.items()}
        for name in ("aware", "rtn")
    ]
    assert shapes[0] == shapes[1]


def test_without_calibration_texts_it_is_refused(
    config: Compress, tiny_folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(RequestError, match=r"aware.*calibration"):
        compress_folder(tiny_folder, config, tmp_path / "out")
    assert not (tmp_path / "out").exists()
