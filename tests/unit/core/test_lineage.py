"""A result whose origin is unknown cannot be judged or repeated."""

import json
import platform
from datetime import datetime
from pathlib import Path

import lmwright
from lmwright.core.lineage import gpus, lineage, n_cores


def test_lineage_is_plain_data_that_says_where_a_result_comes_from() -> None:
    found = json.loads(json.dumps(lineage(seed=3)))
    assert found["seed"] == 3
    assert found["versions"]["python"] == platform.python_version()
    assert found["versions"]["lmwright"] == lmwright.__version__
    assert found["hardware"]["n_cores"] == n_cores() >= 1
    assert found["hardware"]["memory_bytes"] > 0
    assert found["hardware"]["cpu"]
    assert datetime.fromisoformat(found["time"]).utcoffset() is not None


def test_gpus_are_read_from_the_drivers_files(tmp_path: Path) -> None:
    assert gpus(tmp_path / "none") == []
    for number, name in enumerate(["NVIDIA H100", "NVIDIA L4"]):
        folder = tmp_path / f"0000:0{number}:00.0"
        folder.mkdir()
        (folder / "information").write_text(f"Model: \t {name}\nIRQ: 1\n", encoding="utf-8")
    assert gpus(tmp_path) == ["NVIDIA H100", "NVIDIA L4"]
