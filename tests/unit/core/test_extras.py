"""Who lacks a library should read what to install, not a traceback."""

import re
import tomllib
from pathlib import Path

import pytest

from lmwright.core import extras
from lmwright.core.errors import RequestError

PROJECT = Path(__file__).parents[3] / "pyproject.toml"


def test_what_is_missing_is_said_in_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    extras.need("a thing", "torch", "scipy")
    monkeypatch.setitem(extras.EXTRAS, "no_such_module", "train")
    message = "a thing needs no_such_module, which is not installed: pip install 'lmwright[train]'"
    with pytest.raises(RequestError, match=re.escape(message)):
        extras.need("a thing", "torch", "no_such_module")


def test_only_modules_of_an_extra_are_explained() -> None:
    assert extras.absent(ModuleNotFoundError(name="torch.nn")) == "torch"
    assert extras.absent(ModuleNotFoundError(name="numpy")) is None
    assert extras.absent(ModuleNotFoundError()) is None


def test_each_module_belongs_to_the_extra_that_installs_it() -> None:
    project = tomllib.loads(PROJECT.read_text(encoding="utf-8"))["project"]
    for module, extra in extras.EXTRAS.items():
        assert any(each.startswith(module) for each in project["optional-dependencies"][extra])
        assert not any(each.startswith(module) for each in project["dependencies"])
