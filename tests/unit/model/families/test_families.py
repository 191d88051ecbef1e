"""A family is found by its name alone, and no module but the loader asks for one."""

import ast
from pathlib import Path

import pytest

from lmwright.core.errors import ModelError
from lmwright.model import checkpoint
from lmwright.model.families import FAMILIES, GGUF_FAMILIES, family, gguf_family

MODEL = Path(checkpoint.__file__).parent
LONGEST = 100


@pytest.mark.parametrize("name", ["mamba2", "", None, 3, ["llama"], {"a": 1}])
@pytest.mark.parametrize(
    ("find", "key", "known"),
    [(family, "model_type", FAMILIES), (gguf_family, "general.architecture", GGUF_FAMILIES)],
)
def test_an_unknown_one_ends_in_what_is_known_and_what_can_still_be_done(find, key, known, name):
    with pytest.raises(ModelError) as error:
        find(name)
    text = str(error.value)
    assert text.startswith(f"{key} {name!r} ")
    assert f"Known: {', '.join(known)}." in text
    assert text.count("gemma2") == 1  # the list is there once
    assert "openai:MODEL@URL" in text


def test_each_is_found_by_its_own_names():
    assert all(family(name).name == name for name in FAMILIES)
    assert all(gguf_family(name).gguf.architecture == name for name in GGUF_FAMILIES)


def test_what_gguf_calls_llama_is_read_as_llama():
    assert family("mistral").gguf.architecture == "llama"
    assert gguf_family("llama") is family("llama")


# What pooling.py names is a file of sentence-transformers.
MODULES = sorted(path for path in MODEL.glob("*.py") if path.name != "pooling.py")


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.name)
def test_no_module_asks_for_a_family(path):
    """Choices are fields of the configuration, taken once: no `forward` knows a family."""
    nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    texts = {node.value for node in nodes if isinstance(node, ast.Constant)}
    names = {*FAMILIES, *(kind.name.split("_")[0] for kind in FAMILIES.values())}
    assert not texts & names
    asks = [node for node in nodes if isinstance(node, ast.Attribute) and node.attr == "family"]
    assert not asks or path.name == "checkpoint.py"


def test_a_familys_file_is_short():
    lines = {
        path.name: len(path.read_text(encoding="utf-8").splitlines())
        for path in (MODEL / "families").glob("*.py")
        if "Family(" in path.read_text(encoding="utf-8") and path.name != "family.py"
    }
    assert len(lines) >= 4
    assert {name: n for name, n in lines.items() if n >= LONGEST} == {}
