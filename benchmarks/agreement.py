"""How many continuations of our GGUF files are the same in llama.cpp, and in llama.cpp twice.

    python benchmarks/agreement.py

The starter is written as F16 and as Q8_0, and 20 prompts are continued by 16 tokens. "lmwright"
is what `convert` compares by itself: both programs read the same file. "llama.cpp" is told the
tokens that it has just written, all but the last of them with the prompt, and chooses the last
again. A third file has one wrong rotary permutation, in the first of 30 layers; it must be refused.
"""

import argparse
import itertools
import sys
import tempfile
from pathlib import Path
from typing import Any
from unittest import mock

import trial
from trial import Contestant

FORMATS = ("f16", "q8_0")
N_TOKENS = 16


def main() -> int:
    """Print the tables; 1 where a wrong file passes."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="three prompts for llama.cpp alone")
    parser.add_argument("--out", type=Path, default=Path("runs/benchmarks/agreement.json"))
    options = parser.parse_args()
    machine = trial.machine()
    with tempfile.TemporaryDirectory() as folder:
        paths = {name: str(Path(folder) / f"{name}.gguf") for name in FORMATS}
        found: dict[str, dict[str, Any]] = {}
        for name, path in paths.items():
            settings = {"path": path, "number_format": name}
            found[name] = {
                "lmwright": trial.run(Contestant(exported, settings)),
                "llama.cpp": trial.run(
                    Contestant(repeated, {"path": path, "is_quick": options.quick})
                ),
            }
        broken = trial.run(Contestant(refused, {"folder": folder, "right": paths["f16"]}))
    data = {"machine": machine, "formats": found, "one_wrong_permutation": broken}
    trial.write(options.out, {"benchmark": "agreement", **data})
    rows = [["file", "beside llama.cpp", "the same continuations", "largest difference"]]
    for name, peers in found.items():
        for peer, numbers in peers.items():
            same = f"{numbers['n_same_prompts']} of {numbers['n_prompts']}"
            rows.append([name, peer, same, f"{numbers['largest_difference']:.3f} nats"])
    print(trial.table(rows))
    rows = [["one wrong permutation", "result", "relative error", "divergence"]]
    for name, numbers in broken["readers"].items():
        result = "PASS" if numbers["is_passed"] else "FAIL"
        error, kl = f"{numbers['relative_error']:.1%}", f"{numbers['mean_kl']:.3f} nats"
        rows.append([f"read by {name}", result, error, kl])
    print(f"\n{trial.table(rows)}")
    return int(any(numbers["is_passed"] for numbers in broken["readers"].values()))


def exported(path: str, number_format: str) -> dict[str, Any]:
    """Write the starter and return what was found between the file here and in llama.cpp."""
    from lmwright.conversion.convert import convert

    conversion = convert("starter", Path(path), to="gguf", number_format=number_format)
    if conversion.notes:  # there is no llama.cpp
        raise SystemExit("\n".join(conversion.notes))
    result = conversion.results[-1]
    return {**result.numbers, "n_prompts": result.n_prompts}


def repeated(path: str, is_quick: bool) -> dict[str, Any]:
    """Return how far llama.cpp is from itself when its tokens are told to it with the prompt."""
    from lmwright.verification.inputs import built_in
    from lmwright.verification.llama_cpp import LlamaCpp
    from lmwright.verification.subject import open_path

    reader = open_path(Path(path))
    prompts = [reader.encode(prompt).ids for prompt in built_in()[: 3 if is_quick else None]]
    n_same, largest = 0, 0.0
    with LlamaCpp(path) as model:
        for ids in prompts:
            assert ids is not None
            answer = model.greedy(ids, N_TOKENS)
            again = [
                model.greedy([*ids, *answer.token_ids[:n]], 1) for n in range(len(answer.token_ids))
            ]
            n_same += answer.token_ids == tuple(one.token_ids[0] for one in again)
            for told, one in zip(answer.top, again, strict=True):
                first, second = dict(told), dict(one.top[0])
                gaps = [abs(first[id_] - second[id_]) for id_ in first.keys() & second.keys()]
                largest = max(largest, *gaps)
    return {"n_prompts": len(prompts), "n_same_prompts": n_same, "largest_difference": largest}


def refused(folder: str, right: str) -> dict[str, Any]:
    """Write a file with one wrong permutation; return what `convert` and `verify` say of it."""
    from lmwright.conversion.check import VerificationError
    from lmwright.conversion.convert import convert
    from lmwright.model import checkpoint
    from lmwright.verification.remote import open_pair
    from lmwright.verification.verify import verify

    permute, n_calls = checkpoint.permute, itertools.count()

    def wrong(weight: Any, n_heads: int) -> Any:
        return weight if next(n_calls) == 0 else permute(weight, n_heads)

    out = Path(folder) / "wrong.gguf"
    with mock.patch.object(checkpoint, "permute", wrong):
        try:
            convert("starter", out, to="gguf", number_format="f16", keeps_failed=True)
        except VerificationError as error:
            (kept,) = Path(folder).glob("wrong.failed*")
            results = {"lmwright": error.results[-1]}
        else:
            raise SystemExit("a file with a wrong permutation was written as if it were right")
    results["llama.cpp"] = verify(*open_pair(right, f"llama.cpp:{kept}"))
    readers = {
        name: {**result.numbers, "is_passed": result.is_passed} for name, result in results.items()
    }
    return {"readers": readers}


if __name__ == "__main__":
    sys.exit(main())
