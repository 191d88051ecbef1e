"""Pages that lag behind the code mislead: their tables, links and names are held against it."""

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

import lmwright
from lmwright.core.stage import Stage
from lmwright.evaluation.tasks import MEASUREMENTS
from lmwright.hosted.config import Hosted
from lmwright.model.families import FAMILIES
from lmwright.recipe.stages import STAGES
from lmwright.serving import limits
from lmwright.verification.tolerances import TOLERANCES, WORST_ROWS

ROOT = Path(__file__).parents[2]
SOURCE = Path(lmwright.__file__).parent
TABLE = "The `hosted` table"
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])


def rows(page: str, heading: str) -> list[list[str]]:
    """Return the cells of the first table below a heading, without its head."""
    text = (ROOT / page).read_text(encoding="utf-8")
    section = re.split(r"^## ", text.split(f"\n## {heading}\n", 1)[1], flags=re.MULTILINE)[0]
    table = re.search(r"(?:^\|.+\|\n)+", section, re.MULTILINE)
    assert table, f"{page}: no table below {heading}"
    lines = [line.strip("|") for line in table[0].splitlines()]
    return [[cell.strip() for cell in line.split(" | ")] for line in lines[2:]]


@pytest.mark.parametrize("stage", STAGES.values(), ids=STAGES)
def test_the_recipe_page_lists_every_key_with_its_default(stage: Stage) -> None:
    config = stage.config
    heading = f"`[{stage.name}]`" if stage.may_be_unnamed else f"`[{stage.name}.NAME]`"
    found = {row[0].strip("`"): row[1].strip("`") for row in rows("docs/recipe.md", heading)}
    assert sorted(found) == sorted(config.model_fields)
    for key, field in config.model_fields.items():
        if field.is_required():
            assert found[key] == "required"
        elif isinstance(field.default, str):
            assert found[key] == f'"{field.default}"'
        elif field.default is not None and key != "seed":
            assert float(found[key]) == field.default


def test_the_hosted_page_lists_every_key_with_its_default() -> None:
    found = {row[0].strip("`"): row[1].strip("`") for row in rows("docs/hosted.md", TABLE)}
    assert list(found) == list(Hosted.model_fields)
    for key, field in Hosted.model_fields.items():
        if isinstance(field.default, bool):
            assert found[key] == str(field.default).lower()
        elif isinstance(field.default, int | float):
            assert float(found[key]) == field.default


def test_the_evaluation_page_lists_every_metric_with_its_margin_and_items() -> None:
    found = {row[0].strip("`"): row[1:] for row in rows("docs/evaluation.md", "The metrics")}
    assert list(found) == list(MEASUREMENTS)
    for name, measurement in MEASUREMENTS.items():
        spec = measurement.spec
        margin = f"{100 * spec.margin:g} {'%' if spec.margin_is_relative else 'points'}"
        good = "higher" if spec.higher_is_better else "lower"
        assert found[name][:3] == [spec.unit, good, margin]
    quick = {name: measurement.n_items["quick"] for name, measurement in MEASUREMENTS.items()}
    # Of the gender gap each of 24 templates.
    quick["gender_gap"] = 24 * (quick["gender_gap"] or 0)
    assert {name: found[name][3] for name in quick} == {n: str(count) for n, count in quick.items()}


def test_the_serving_page_lists_the_real_limits() -> None:
    found = [row[1] for row in rows("docs/serving.md", "Limits")]
    numbers = (
        f"{limits.MAX_BODY_BYTES:,} bytes", limits.MAX_JSON_DEPTH, limits.MAX_JSON_PARTS,
        limits.MAX_JSON_VALUES,
        limits.MAX_MESSAGES,
        limits.MAX_PROMPTS, limits.MAX_N, limits.MAX_ANSWERS,
        f"{limits.MAX_STOPS}, of {limits.MAX_STOP_CHARACTERS} characters", limits.MAX_LOGPROBS,
        limits.MAX_SCORED_TOKENS, f"{limits.MAX_TEMPERATURE:g}", limits.MAX_WAITING,
        limits.MAX_LARGE, limits.MAX_CONNECTIONS,
    )  # fmt: skip
    assert found == [n if isinstance(n, str) else f"{n:,}" for n in numbers]
    assert [row[1] for row in rows("docs/serving.md", "Deadlines")] == [
        f"{limits.HEAD_TIMEOUT_S:.0f} s",
        f"{limits.BODY_TIMEOUT_S:.0f} s, and 1 s more for each {limits.MIN_BODY_RATE // 1024} KiB"
        " that have come",
        f"{limits.REST_TIMEOUT_S:.0f} s", f"{limits.WRITE_TIMEOUT_S:.0f} s",
        f"{limits.DRAIN_S:.0f} s",
    ]  # fmt: skip


def test_the_models_page_lists_every_family_with_its_heads_and_its_parity() -> None:
    found = {row[0].strip("`"): row[2:] for row in rows("docs/models.md", "Families")}
    assert found == {
        name: [", ".join(family.architectures), family.gguf.architecture if family.gguf else ""]
        for name, family in FAMILIES.items()
    }
    measured = rows("docs/models.md", "Parity")
    assert [row[0].strip("`") for row in measured] == list(FAMILIES)
    assert {row[-1] for row in measured} == {"PASS"}


def test_the_example_of_a_family_is_the_real_file() -> None:
    page = (ROOT / "docs" / "models.md").read_text(encoding="utf-8")
    [shown] = re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    source = (SOURCE / "model" / "families" / "olmo.py").read_text(encoding="utf-8")
    assert shown == source.split('"""\n\n', 1)[1].replace("  # noqa: E501", "")


def test_the_convert_page_lists_the_real_bounds() -> None:
    found = [row[1:] for row in rows("docs/convert.md", "What is allowed")]
    assert len(found) == len(TOLERANCES)
    for bound, cells in zip(TOLERANCES, found, strict=True):
        largest, error, divergence, agreement, tensor, row = cells
        assert largest.split(" ")[0] == ("-" if bound.largest is None else f"{bound.largest:g}")
        assert divergence == ("-" if bound.mean_kl is None else f"{bound.mean_kl:g}")
        assert error == percent(bound.relative_error)
        assert agreement == percent(bound.agreement)
        assert tensor == percent(bound.weight_error)
        plain, _, blocks = row.partition(" (")
        assert plain == percent(bound.row_error)
        if blocks:
            form, _, share = blocks.removesuffix(")").partition(": ")
            assert share == percent(WORST_ROWS[form])


def percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:g} %"


def test_contributing_shows_the_layers_that_are_checked() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    layers = project["tool"]["importlinter"]["contracts"][0]["layers"]
    page = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    [shown] = re.findall(r"^```text\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    assert shown.splitlines() == [layer.replace("lmwright.", "") for layer in layers]


def test_contributing_names_places_that_exist() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    section = text.split("\n## Where does X go?\n", 1)[1].split("\n## ", 1)[0]
    table = [line.strip("|").split("|", 1) for line in section.splitlines() if line[:2] == "| "]
    table = [(wanted, place) for wanted, place in table if not wanted.startswith(" to ")]
    assert len(table) > 10
    for wanted, place in table:
        paths = [ROOT / path for path in re.findall(r"`((?:src|docs)/[^`]+)`", place)]
        assert paths or re.search(r"`\w+\.py`", place), wanted
        files = [file for path in paths for file in ([path] if path.is_file() else path.rglob("*"))]
        text = "".join(f.read_text(encoding="utf-8") for f in files if f.suffix in (".py", ".md"))
        for name in re.findall(r"`([A-Z_]{3,})`", place):
            assert re.search(rf"^{name}\b", text, re.MULTILINE), f"{wanted}: no {name}"


def test_data_page_counts_what_is_there() -> None:
    page = (ROOT / "docs" / "data.md").read_text(encoding="utf-8")
    folder = SOURCE / "data" / "starter"

    def records(name: str) -> list[dict[str, Any]]:
        lines = (folder / name).read_text(encoding="utf-8").splitlines()
        return [json.loads(line) for line in lines]

    facts = [*records("bank-support/facts-a.jsonl"), *records("bank-support/facts-b.jsonl")]
    assert {(len(fact["questions"]), len(fact["heldout"])) for fact in facts} == {(8, 2)}
    kinds = [item["kind"] for item in records("safety.jsonl")]
    for text in (
        f"{len(facts)} facts, each asked in 8 ways for training and in 2 others held out",
        f"{len(records('bank-support/declines.jsonl'))} topics that are out of scope",
        f"{len(records('bank-support/dialogues.jsonl'))} dialogues",
        f"{len(records('multiple-choice.jsonl'))} general questions",
        f"{len(records('neutral-text.jsonl'))} short texts",
        f"and {len(records('occupation-templates.jsonl'))} sentences",
        f"{kinds.count('harmful')} harmful requests",
        f"and {kinds.count('harmless')} harmless ones",
    ):
        assert text in page, text


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_files_exist(page: Path) -> None:
    text = re.sub(r"<!--.*?-->", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        path, _, anchor = target.partition("#")
        if not path.startswith("https://"):
            there = (page.parent / path).resolve() if path else page
            assert there.exists(), target
            assert not anchor or anchor in anchors(there), target
    for name in re.findall(r"`((?:src|docs|tests|\.ci)/[^`\s]*|[\w/]+\.py)`", text):
        is_bare = "/" not in name
        assert (
            any(SOURCE.rglob(name))
            if is_bare
            else any((base / name).exists() for base in (ROOT, SOURCE))
        ), name


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", h.lower()).strip().replace(" ", "-") for h in headings}


def test_pages_are_reached_from_the_readme_and_plain_ascii() -> None:
    index = (ROOT / "README.md").read_text(encoding="utf-8")
    for page in PAGES:
        name = page.relative_to(ROOT).as_posix()
        assert name == "README.md" or f"]({name})" in index, name
        assert page.read_text(encoding="utf-8").isascii(), name
