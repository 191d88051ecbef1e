"""The page and the cards are what people see of a run: complete, closed and safe to open."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from lmwright.core.errors import DataError, StateError
from lmwright.core.results import Row, write_rows
from lmwright.core.stage import StepContext
from lmwright.hosted.usage import Usage
from lmwright.reporting.config import Report
from lmwright.reporting.run import run

HOSTILE = "<script>alert('x')</script><img src=x onerror=alert(1)>"


@pytest.fixture
def run_folder(finished_run: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    return Path(shutil.copytree(finished_run, tmp_path / "support"))


def report(folder: Path, *gates: str) -> tuple[str, dict[str, Any]]:
    inputs = {name: folder / name for name in ("card", *gates)}
    config = Report(evaluation="card", gates=list(gates))
    result = run(config, folder / "report", StepContext(inputs, {}, folder, seed=0))
    return (folder / "report" / "report.html").read_text(encoding="utf-8"), result


def change(path: Path, **values: Any) -> None:
    data = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(data | values), encoding="utf-8")


def test_the_page_has_every_part(run_folder: Path) -> None:
    page, _ = report(run_folder, "gate")
    parts = ["side-by-side", "gate", "trade-off", "changes", "samples", "training", "lineage"]
    assert re.findall(r'<section id="([\w-]+)">', page) == parts


def test_the_page_loads_nothing(run_folder: Path) -> None:
    page, _ = report(run_folder)
    assert "default-src 'none'" in page
    for reference in re.findall(r"""(?:src|href)\s*=\s*["']([^"']*)""", page):
        assert reference.startswith("#"), reference
    assert not re.search(r"url\(|@import|<script|<link|<iframe|<object", page)
    assert not re.findall(r"https?://", page)


def test_each_value_stands_with_interval_n_and_verdict(run_folder: Path) -> None:
    evaluation = json.loads((run_folder / "card" / "result.json").read_text(encoding="utf-8"))
    facts = evaluation["metrics"]["int8"]["qa_accuracy"]
    page, _ = report(run_folder)
    cell = re.search(r'data-model="int8">(.*?)</td>', page, re.DOTALL)
    assert cell is not None
    assert f'<div class="value">{100 * facts["value"]:.1f}</div>' in cell[1]
    assert f"{100 * facts['low']:.1f} to {100 * facts['high']:.1f}" in cell[1]
    assert '>better</b> <span class="against">vs starter</span>' in cell[1]
    assert "n = 60 items" in page.replace("\u00a0", " ")
    assert "needs about" in page


def test_hostile_text_stays_text(run_folder: Path) -> None:
    rows = [Row(f"q{i}", (float(i % 2), 1.0), cluster="c", detail=HOSTILE) for i in range(4)]
    for model in ("starter", "tuned", "int8", "int4"):
        write_rows(run_folder / "card" / "rows" / model / "qa_accuracy.parquet", rows)
    audit = {"example": [{"text": HOSTILE, "trained": True}]}
    (run_folder / "tuned" / "audit.json").write_text(json.dumps(audit), encoding="utf-8")
    path = run_folder / "card" / "result.json"
    result = json.loads(path.read_text(encoding="utf-8"))
    result["specs"][0] |= {"title": HOSTILE, "caveat": HOSTILE + '" onmouseover="x'}
    result["asked"]["qa_accuracy"] = {"q0": {"question": HOSTILE, "expected": HOSTILE}}
    change(path, **{**result, "not_measured": {"toxicity": HOSTILE}})
    (run_folder / "recipe.toml").write_text(f'name = "{HOSTILE}"', encoding="utf-8")
    change(run_folder / "recipe.lock.json", name=HOSTILE)
    page, _ = report(run_folder)
    assert page.count("&lt;script&gt;alert") > 10
    assert "<script" not in page
    assert "<img" not in page
    assert not re.search(r'"\s+onmouseover="', page)
    card = (run_folder / "int8" / "model" / "README.md").read_text(encoding="utf-8")
    body = card.split("\n---\n", maxsplit=1)[1]
    assert "<script" not in body
    assert "&lt;script" in body


def test_flips_are_shown_before_agreement(run_folder: Path) -> None:
    said = {"starter": "no", "tuned": "yes", "int8": "yes", "int4": "yes"}
    for model, word in said.items():
        rows = [Row(f"agreed{i}", (1.0, 1.0), detail="yes") for i in range(20)]
        rows.append(Row("flipped", (float(word == "yes"), 1.0), detail=word))
        write_rows(run_folder / "card" / "rows" / model / "qa_accuracy.parquet", rows)
    page, _ = report(run_folder)
    questions = re.findall(r'<div class="question">(.*?)</div>', page)
    assert questions[0] == "flipped"
    assert "the models disagree on 1." in page


def test_a_closed_gate_is_shown_with_its_evidence(run_folder: Path) -> None:
    path = run_folder / "gate" / "result.json"
    gate = json.loads(path.read_text(encoding="utf-8"))
    gate["rules"][0] |= {"passed": False, "outcome": "failed"}
    change(path, passed=False, rules=gate["rules"])
    page, _ = report(run_folder, "gate")
    assert "The gate said no to int8" in page
    assert "int8 may not ship: 1 of 4 rules does not hold, &#34;qa_accuracy &gt;= 80%&#34;" in page
    # A non-breaking space stands between a number and its unit.
    assert gate["rules"][1]["evidence"].split(" (")[0] in page.replace("\u00a0", " ")


def test_a_gate_that_the_report_does_not_name_is_not_shown(run_folder: Path) -> None:
    page, result = report(run_folder)
    assert 'id="gate"' not in page
    assert result["card_of"] == "int4"


def test_several_gates_are_shown_one_after_another(run_folder: Path) -> None:
    shutil.copytree(run_folder / "gate", run_folder / "strict")
    change(run_folder / "strict" / "result.json", passed=False, model="int4")
    page, result = report(run_folder, "gate", "strict")
    assert re.findall(r'<section id="(gate\d*)">', page) == ["gate", "gate2"]
    assert result["card_of"] == "int8"
    assert "## Gate" in (run_folder / "int4" / "model" / "README.md").read_text(encoding="utf-8")


def test_an_evaluation_alone_is_enough(run_folder: Path, tmp_path: Path) -> None:
    """`lmwright evaluate` without a recipe: one model, no gate, no training, no comparisons."""
    path = run_folder / "card" / "result.json"
    result = json.loads(path.read_text(encoding="utf-8"))
    metrics = {"starter": {"bits_per_byte": result["metrics"]["starter"]["bits_per_byte"]}}
    specs = [spec for spec in result["specs"] if spec["name"] == "bits_per_byte"]
    left = {"comparisons": [], "parents": {}, "asked": {}, "not_measured": {"speed": "left out"}}
    change(path, models=["starter"], metrics=metrics, specs=specs, **left)
    alone = tmp_path / "alone"
    shutil.copytree(run_folder / "card", alone / "card")
    page, result = report(alone)
    assert "starter was measured alone: bits per byte" in page
    assert "Not measured: speed (left out)" in page
    assert 'id="gate"' not in page
    assert result["cards"] == []
    assert "license: apache-2.0" in (alone / "report" / "README.md").read_text(encoding="utf-8")


def test_a_hosted_model_has_reasons_in_place_of_numbers(run_folder: Path) -> None:
    path = run_folder / "card" / "result.json"
    result = json.loads(path.read_text(encoding="utf-8"))
    reason, usage = "its weights are not on this machine", Usage(5, 2, 1000, 100, 0, 0.25)
    result["gaps"] = {"int4": {"decode_tokens_per_s": reason, "size_bytes": reason}}
    del result["metrics"]["int4"]["decode_tokens_per_s"]
    result["comparisons"] = [
        pair
        for pair in result["comparisons"]
        if (pair["model"], pair["metric"]) != ("int4", "decode_tokens_per_s")
    ]
    result["facts_of_models"]["int4"] = {}
    result["usage"] = {"int4": str(usage)}
    path.write_text(json.dumps(result), encoding="utf-8")
    page, _ = report(run_folder)
    assert page.count(reason) == 2
    assert str(usage) in page


def test_an_unfinished_evaluation_is_named(run_folder: Path) -> None:
    (run_folder / "card" / "result.json").unlink()
    with pytest.raises(DataError, match=r"card/result\.json: no finished evaluation"):
        report(run_folder)


def test_a_broken_metrics_line_is_named(run_folder: Path) -> None:
    path = run_folder / "tuned" / "metrics.jsonl"
    path.write_text('{"step": 1, "loss": 2.0}\n{"step"', encoding="utf-8")
    with pytest.raises(StateError, match=r"metrics\.jsonl: is damaged \(line 2.*--from tuned"):
        report(run_folder)


JSON_FILES = (
    "card/result.json", "gate/result.json", "tuned/result.json", "recipe.lock.json",
    "tuned/audit.json",
)  # fmt: skip
DAMAGED = [
    *((file, damage) for file in JSON_FILES for damage in (b"\xff\xfe", b"{", b"[]")),
    *((file, b'{"steps": 1, "example": 5}') for file in JSON_FILES),
    ("recipe.toml", b"\xff\xfe"),
    ("tuned/metrics.jsonl", b'{"loss": 1}'),
    ("tuned/metrics.jsonl", b"[]"),
    ("tuned/metrics.jsonl", b'{"loss": "much", "step": 1}'),
    ("card/rows/int8/qa_accuracy.parquet", b"PAR1"),
    ("card/rows/int8/qa_accuracy.parquet", b""),
]


@pytest.mark.parametrize(("file", "damage"), DAMAGED)
def test_a_damaged_file_is_named_with_what_to_do(
    run_folder: Path, file: str, damage: bytes
) -> None:
    (run_folder / file).write_bytes(damage)
    with pytest.raises(StateError, match=rf"{re.escape(file)}.*(again|--from)"):
        report(run_folder, "gate")


def test_the_verdict_comes_first_and_its_numbers_stand_beside_the_bars(run_folder: Path) -> None:
    page, _ = report(run_folder, "gate")
    order = ["<h1>", 'class="verdict', 'class="summary"', 'id="side-by-side"']
    assert [page.index(each) for each in order] == sorted(page.index(each) for each in order)
    gate = json.loads((run_folder / "gate" / "result.json").read_text(encoding="utf-8"))
    numbers = re.findall(r'<div class="numbers"><b>(.*?)</b> <span>(.*?)</span>', page)
    assert len(numbers) == len(gate["rules"])
    first = gate["rules"][0]
    shown = (
        f"{100 * first['value']:.1f} %",
        f"{100 * first['low']:.1f} to {100 * first['high']:.1f}",
    )
    assert tuple(text.replace("\u00a0", " ") for text in numbers[0]) == shown


def test_without_a_gate_that_is_said(run_folder: Path) -> None:
    page, _ = report(run_folder)
    assert "the recipe has no gate" in page


def test_every_wrong_answer_is_listed(run_folder: Path) -> None:
    page, _ = report(run_folder, "gate")
    found = re.search(r"Answer accuracy, held-out questions: (\d+) of 60 wrong", page)
    assert found is not None
    assert int(found[1]) == 4
    listed = page[found.end() : page.index("</details>", found.end())]
    assert listed.count("I can only help with the bank.") == 4
    assert "What int8 answers wrong" in page


def test_lineage_follows_the_work_and_tells_the_learning_rate(run_folder: Path) -> None:
    page, _ = report(run_folder, "gate")
    lineage = page[page.index('id="lineage"') :]
    names = re.findall(r"<td><b>([\w-]+)</b>", lineage)
    assert names == ["dialogues", "tuned", "int8", "int4", "card", "gate"]
    assert "lr = 0.001" in lineage
    training = page[page.index('id="training"') : page.index('id="lineage"')]
    assert "lr = 0.001" in training
    assert "You are the clerk." in training


def test_notes_of_steps_are_told_at_the_top(run_folder: Path) -> None:
    page, _ = report(run_folder)
    head = page[: page.index('id="side-by-side"')]
    assert "<b>tuned</b>: trained for 180 optimiser steps; that is enough." in head


def test_nobody_is_sent_to_a_release_that_does_not_exist(run_folder: Path) -> None:
    page, _ = report(run_folder)
    assert "lmwright==" not in page
    assert "pip install '.[train,evaluate]'" in page


def test_the_same_run_gives_the_same_page(run_folder: Path) -> None:
    first, _ = report(run_folder)
    second, _ = report(run_folder)
    assert first == second
