"""People decide by the estimate whether to start; it must follow what makes work longer."""

from pathlib import Path

from lmwright.core.stage import Estimate
from lmwright.recipe.plan import describe, plan
from lmwright.recipe.read import parse
from lmwright.summary.inventory import folder_inventory

RECIPE = """
name = "x"
[data.d]
source = "starter:bank-support"
[finetune.t]
data = "d"
[compress.c]
model = "t"
method = "int8"
[evaluate.e]
models = ["starter", "t", "c"]
"""


def estimates(*overrides: str) -> dict[str, Estimate]:
    planned = plan(parse(RECIPE, overrides=overrides))
    return {each.step.name: each.estimate for each in planned.steps}


def of(name: str, *overrides: str) -> Estimate:
    return estimates(*overrides)[name]


def test_more_work_takes_longer() -> None:
    assert of("t", "finetune.t.epochs=6").seconds > 1.5 * of("t").seconds
    assert of("t", "finetune.t.method=full").seconds > of("t").seconds
    assert of("t", "data.d.limit=50").seconds < of("t").seconds
    assert of("e", "evaluate.e.suite=full").seconds > of("e").seconds
    assert of("e", "evaluate.e.models=['starter']").seconds < of("e").seconds


def test_more_state_and_larger_parts_take_more_memory() -> None:
    assert of("t", "finetune.t.method=full").memory_bytes > of("t").memory_bytes
    assert of("t", "finetune.t.micro_batch_tokens=512").memory_bytes < of("t").memory_bytes


def test_the_starter_on_starter_data_is_fully_known() -> None:
    assert all(each.is_complete for each in estimates().values())


def test_what_lies_on_a_hub_is_said_to_be_unknown() -> None:
    assert not of("t", "data.d.source=hub:org/data").is_complete
    assert not of("c", "finetune.t.model=hub:org/model").is_complete
    assert "sizes partly unknown" in describe(of("c", "finetune.t.model=hub:org/model"))


def test_a_hosted_model_takes_nothing_here_and_nobody_knows_how_long() -> None:
    alone = of("e", "evaluate.e.models=['openai:m']")
    assert (alone.seconds, alone.is_complete) == (0, False)
    assert alone.memory_bytes < of("e", "evaluate.e.models=['starter']").memory_bytes
    both = of("e", "evaluate.e.models=['starter', 'openai:m@https://host/v1']")
    assert both.seconds == of("e", "evaluate.e.models=['starter']").seconds
    assert not both.is_complete


def test_a_larger_model_takes_longer(tiny_folder: Path) -> None:
    small = of("c", f"compress.c.model={tiny_folder}", "compress.c.group_size=16")
    assert small.seconds < of("c").seconds
    assert small.memory_bytes < of("c").memory_bytes
    assert (small.is_complete, small.n_params) == (True, n_params(tiny_folder))


def n_params(folder: Path) -> int:
    return folder_inventory(folder).n_params


def test_a_wider_update_takes_more_memory() -> None:
    wide = of("t", "finetune.t.rank=512").memory_bytes - of("t").memory_bytes
    # 16 bytes for each of 496 rows and columns of all matrices of SmolLM2-135M.
    assert wide == 496 * 16 * 30 * (4 * 576 + 2 * (576 + 192) - 2 * 576 + 3 * (576 + 1536) + 1152)
