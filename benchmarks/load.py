"""Loading a model: the starter's GGUF and a Hugging Face folder of 538 MB, against transformers.

    python benchmarks/load.py

Model and tokenizer are loaded, the GGUF in bf16 and the folder in the fp32 that it holds, and
every weight is read once, so that none is left on disk. Memory is what loading adds at its peak
to a process that has imported everything, over the bytes of the weights. Each run is a process of
its own; files are in the system's cache for all of them.
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

    from lmwright.core.device import Precision


# What is loaded, and in which format.
KINDS = {"gguf": "bf16", "folder": "fp32"}


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
        for kind in KINDS:
            settings = {"path": paths[kind], "precision": KINDS[kind]}
            contestants[f"lmwright, {kind}"] = Contestant(load_lmwright, settings)
            contestants[f"transformers, {kind}"] = Contestant(
                load_transformers, settings, options.peer_python
            )
        runs = trial.interleaved(contestants, 1 if options.quick else options.repeats)

    rows = [["", "", "load s", "process s", "peak memory / weights", "mean weight size"]]
    is_same = True
    for kind in KINDS:
        ours, peer = runs[f"lmwright, {kind}"], runs[f"transformers, {kind}"]
        for name, results in (("lmwright", ours), ("transformers", peer)):
            columns = [
                trial.spread([result["load_s"] for result in results]),
                trial.spread([result["process_s"] for result in results]),
                trial.spread(
                    [result["added_bytes"] / result["weight_bytes"] for result in results]
                ),
            ]
            cells = [trial.shown(column, 2) for column in columns]
            rows.append([kind, name, *cells, f"{results[0]['mean_size']:.3e}"])
        ratios = [
            trial.spread([a[key] / b[key] for a, b in zip(ours, peer, strict=True)])
            for key in ("load_s", "process_s", "added_bytes")
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
    from lmwright.lm import load_local

    load_local("starter", precision="fp32").save(folder)
    return {"gguf": str(resolve("starter")), "folder": folder}


def load_lmwright(path: str, precision: "Precision") -> dict[str, Any]:
    """Time lmwright.load."""
    # Imported beforehand, as transformers is below: `load` itself imports them late.
    import lmwright.model.checkpoint
    import lmwright.tokenizer.gguf.reader  # noqa: F401
    from lmwright.lm import load_local, modules

    with Measured() as measured:
        loaded = load_local(path, precision=precision)
    return measured.result(list(modules(loaded).parameters()))


def load_transformers(path: str, precision: "Precision") -> dict[str, Any]:
    """Time from_pretrained of model and tokenizer."""
    import torch

    # transformers imports a model's code when it is asked for.
    import transformers.models.llama.modeling_llama  # noqa: F401
    from transformers import AutoModelForCausalLM, AutoTokenizer

    dtype = {"bf16": torch.bfloat16, "fp32": torch.float32}[precision]
    file = Path(path)
    folder, name = (file.parent, file.name) if file.is_file() else (file, None)
    with Measured() as measured:
        model = AutoModelForCausalLM.from_pretrained(folder, gguf_file=name, dtype=dtype)
        AutoTokenizer.from_pretrained(folder, gguf_file=name)
    return measured.result(list(model.parameters()))


class Measured:
    """The time of a block, and the memory that it adds at its peak (Linux)."""

    def __enter__(self) -> "Measured":
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
        self.before = resident("VmRSS")
        self.started = time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        self.load_s = time.perf_counter() - self.started

    def result(self, parameters: "list[torch.Tensor]") -> dict[str, Any]:
        """Return the numbers of a run; mapped weights are read first, and the time counts."""
        started = time.perf_counter()
        for parameter in parameters:
            parameter.flatten()[::64].float().sum()  # touches every page
        read_s = time.perf_counter() - started
        return {
            "load_s": self.load_s + read_s,
            "added_bytes": resident("VmHWM") - self.before,
            "weight_bytes": sum(p.numel() * p.element_size() for p in parameters),
            "mean_size": mean_size(parameters),
        }


def resident(key: str) -> int:
    """Return the bytes of this process in memory, now (VmRSS) or at their peak (VmHWM)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    [line] = [line for line in lines if line.startswith(f"{key}:")]
    return int(line.split()[1]) * 1024


def mean_size(parameters: "list[torch.Tensor]") -> float:
    """Return the mean absolute value of all weights, by which the same model is known."""
    total = sum(float(parameter.detach().abs().sum()) for parameter in parameters)
    return total / sum(parameter.numel() for parameter in parameters)


if __name__ == "__main__":
    sys.exit(main())
