"""A group size that fits no matrix must be found before an hour of training, not after it."""

from pathlib import Path

import pytest

from lmwright.core.errors import RecipeError
from lmwright.recipe.plan import plan
from lmwright.recipe.read import parse

RECIPE = """
name = "x"
[data.d]
source = "starter:bank-support"
[finetune.t]
model = "MODEL"
data = "d"
[compress.c]
model = "t"
method = "int8"
group_size = 40
"""


def test_a_group_size_is_held_against_the_model_that_is_tuned_before(tiny_folder: Path) -> None:
    with pytest.raises(RecipeError, match=r"^compress\.c\.group_size = 40: .* width 576 .*: 8, 12"):
        plan(parse(RECIPE.replace("MODEL", "starter")))
    text = RECIPE.replace("MODEL", tiny_folder.as_posix())
    with pytest.raises(RecipeError, match=r"^compress\.c\.group_size = 40: does not divide"):
        plan(parse(text, overrides=["finetune.t.rank=4"]))
    plan(parse(text, overrides=["finetune.t.rank=4", "compress.c.group_size=16"]))
