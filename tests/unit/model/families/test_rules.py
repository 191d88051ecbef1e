"""Families stay data: code that asks for a family's name is a second model inside the first."""

import ast
import re
from pathlib import Path

import pytest

import lmwright.model
from lmwright.model.families import FAMILIES

ROOT = Path(lmwright.model.__file__).parent
SHARED = {"__init__", "family", "config_json", "gguf_keys", "rope", "windows"}


def forwards():
    for path in sorted(ROOT.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef) and node.name == "forward":
                # Comments are gone, and the docstring may name the checkpoint that needs a thing.
                has_docstring = ast.get_docstring(node) is not None
                body = [ast.unparse(line) for line in node.body[has_docstring:]]
                yield f"{path.name}:{node.lineno}", "\n".join(body)


def test_no_forward_names_a_family_or_reads_the_configuration():
    # "t5" as it is: its letters alone would be found everywhere.
    names = {name if len(name) < 3 else re.sub(r"[\d_].*", "", name) for name in FAMILIES}
    names |= {"family", "hasattr", "config"}
    found = list(forwards())
    assert len(found) > 15
    for where, body in found:
        assert not re.search("|".join(names), body, re.IGNORECASE), where


FILES = sorted(p for p in (ROOT / "families").glob("*.py") if p.stem not in SHARED)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_family_takes_less_than_a_hundred_lines(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) < 100
