"""Loading a model: the starter's GGUF and a Hugging Face folder, against transformers.

    python benchmarks/load.py

Model and tokenizer are loaded in bf16, and every weight is read once, so that none is left on
disk. Each run is a process of its own; files are in the system's cache for all of them.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import trial
from trial import Contestant

if TYPE_CHECKING:
    import torch


def main() -> int:
    """Print the table; 1 where the two libraries hold different weights."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="one repeat")
    parser.add_argument("--repeats", type=int, default=5, help="runs of each contestant")
    parser.add_argument(
        "--peer-python", default=sys.executable, help="the Python that has transformers"
    )
    parser.add_argument("--out", type=Path, default=Path("runs/benchmarks/load.json"))
    options = parser.parse_args()
    machine = trial.machine()
    with tempfile.TemporaryDirectory() as folder:
        paths = trial.run(Contestant(prepare, {"folder": folder}))
        contestants = {}
        for kind in ("gguf", "folder"):
            settings = {"path": paths[kind]}
            contestants[f"lmwright, {kind}"] = Contestant(load_lmwright, settings)
            contestants[f"transformers, {kind}"] = Contestant(
                load_transformers, settings, options.peer_python
            )
        runs = trial.interleaved(contestants, 1 if options.quick else options.repeats)

    rows = [["", "", "load s", "process s", "peak memory GB", "mean weight size"]]
    is_same = True
    for kind in ("gguf", "folder"):
        ours, peer = runs[f"lmwright, {kind}"], runs[f"transformers, {kind}"]
        for name, results in (("lmwright", ours), ("transformers", peer)):
            columns = [
                trial.spread([result["load_s"] for result in results]),
                trial.spread([result["process_s"] for result in results]),
                trial.spread([trial.gigabytes(result["peak_bytes"]) for result in results]),
            ]
            cells = [trial.shown(column, 2) for column in columns]
            rows.append([kind, name, *cells, f"{results[0]['mean_size']:.3e}"])
        ratios = [
            trial.spread([a[key] / b[key] for a, b in zip(ours, peer, strict=True)])
            for key in ("load_s", "process_s", "peak_bytes")
        ]
        cells = [trial.shown(ratio, 2) for ratio in ratios]
        difference = abs(ours[0]["mean_size"] - peer[0]["mean_size"])
        is_same = is_same and difference <= 0.01 * abs(peer[0]["mean_size"])
        rows.append([kind, "ours / transformers", *cells, ""])
    trial.write(
        options.out, {"benchmark": "load", "machine": machine, "runs": runs, "is_same": is_same}
    )
    print(trial.table(rows))
    return 0 if is_same else 1


def prepare(folder: str) -> dict[str, Any]:
    """Write the starter as a Hugging Face folder; return where that and its GGUF are."""
    from lmwright.hub import resolve
    from lmwright.lm import load

    load("starter", precision="bf16").save(folder)
    return {"gguf": str(resolve("starter")), "folder": folder}


def load_lmwright(path: str) -> dict[str, Any]:
    """Time lmwright.load."""
    # Imported beforehand, as transformers is below: `load` itself imports them late.
    import lmwright.model.checkpoint
    import lmwright.tokenizer.load  # noqa: F401
    from lmwright.lm import load

    started = time.perf_counter()
    loaded = load(path, precision="bf16")
    mean = mean_size(list(loaded.model.parameters()))
    return {"load_s": time.perf_counter() - started, "mean_size": mean}


def load_transformers(path: str) -> dict[str, Any]:
    """Time from_pretrained of model and tokenizer."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    file = Path(path)
    folder, name = (file.parent, file.name) if file.is_file() else (file, None)
    started = time.perf_counter()
    model = AutoModelForCausalLM.from_pretrained(folder, gguf_file=name, dtype=torch.bfloat16)
    AutoTokenizer.from_pretrained(folder, gguf_file=name)
    mean = mean_size(list(model.parameters()))
    return {"load_s": time.perf_counter() - started, "mean_size": mean}


def mean_size(parameters: "list[torch.Tensor]") -> float:
    """Read all weights; return their mean absolute value, by which the same model is known."""
    total = sum(float(parameter.detach().abs().sum()) for parameter in parameters)
    return total / sum(parameter.numel() for parameter in parameters)


if __name__ == "__main__":
    sys.exit(main())
