"""A full disk must be said before minutes are spent on writing."""

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from lmwright.core.errors import LmwrightError
from lmwright.formats.space import check_space


def test_what_fits_is_let_through_and_what_does_not_is_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    check_space(tmp_path / "x", 1000)
    with pytest.raises(LmwrightError, match=r"x: its weights need 1,001 bytes, only 1,000 are"):
        check_space(tmp_path / "x", 1001)
