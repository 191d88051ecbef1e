"""A recipe that is wrong must be refused before hours are spent on it, and say what was meant."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from lmwright.core.errors import RecipeError
from lmwright.evaluation.config import Evaluate
from lmwright.finetuning.config import Finetune
from lmwright.recipe.order import order
from lmwright.recipe.read import parse, read
from lmwright.recipe.recipe import Recipe

SUPPORT = """
name = "support"
seed = 7

[report.report]
evaluation = "card"

[evaluate.card]
models = ["starter", "tuned", "int8"]

[compress.int8]
model = "tuned"
method = "int8"

[finetune.tuned]
data = "dialogues"
seed = 3

[data.dialogues]
source = "starter:bank-support"

[gate]
evaluation = "card"
model = "int8"
require = ["qa_accuracy >= 80%"]
"""


def steps_of(text: str) -> dict[str, object]:
    return {step.name: step.config for step in order(parse(text))}


def test_order_follows_from_references_not_from_the_file() -> None:
    names = [step.name for step in order(parse(SUPPORT))]
    assert names == ["dialogues", "tuned", "int8", "card", "gate", "report"]


def test_a_finetune_of_a_compressed_model_comes_after_it() -> None:
    text = """
name = "again"
[data.d]
source = "starter:bank-support"
[finetune.a]
model = "b"
data = "d"
[compress.b]
model = "starter"
method = "int8"
"""
    assert [step.name for step in order(parse(text))] == ["d", "b", "a"]


def test_steps_inherit_the_seed_unless_they_set_their_own() -> None:
    seeds = {step.name: getattr(step.config, "seed", None) for step in order(parse(SUPPORT))}
    assert {name: seed for name, seed in seeds.items() if seed is not None} == {
        "dialogues": 7, "tuned": 3, "card": 7
    }  # fmt: skip


def test_an_evaluation_takes_the_only_data_step() -> None:
    card = steps_of(SUPPORT)["card"]
    assert isinstance(card, Evaluate)
    assert card.data == "dialogues"


def test_an_evaluation_must_choose_among_several_data_steps() -> None:
    text = SUPPORT + '\n[data.other]\nsource = "starter:bank-support"\n'
    with pytest.raises(RecipeError, match=r"evaluate\.card\.data: missing.*dialogues, other"):
        parse(text)


def test_parents_are_the_models_that_a_step_is_made_from() -> None:
    parents = {step.name: step.parents for step in order(parse(SUPPORT)) if step.parents}
    assert parents == {"tuned": ("starter",), "int8": ("tuned",)}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("method =", "methd ="), "compress.int8.methd: unknown key; did you mean 'method'?"),
        (("[finetune.", "[fintune."), "fintune: unknown key; did you mean 'finetune'?"),
        (("[finetune.tuned]", "[finetune]"), "finetune.data = 'dialogues': a step needs a name"),
        (('method = "int8"', 'method = "int3"'), "compress.int8.method = 'int3'"),
        (('data = "dialogues"', 'data = "dialogue"'), "did you mean 'dialogues'?"),
        (('data = "dialogues"', 'data = "x.jsonl"'), "no such data"),
        (('data = "dialogues"', 'data = "hub:a/b"'), "write [data.NAME] with source = 'hub:a/b'"),
        (('model = "tuned"\nm', 'model = "tund"\nm'), "int8.model = 'tund': no such model; did"),
        (('model = "tuned"\nm', 'model = "card"\nm'), "[evaluate.card] makes no model"),
        (('model = "tuned"\nm', 'model = "dialogues"\nm'), "[data.dialogues] makes no model"),
        (('model = "tuned"\nm', 'model = "no/such"\nm'), "no/such: no such model"),
        (('model = "tuned"\nm', 'model = "x.gguf"\nm'), "x.gguf: no such model"),
        (('model = "tuned"\nm', 'model = "openai:gpt"\nm'), "can only be evaluated"),
        (('model = "tuned"\nm', 'model = "open:gpt"\nm'), "unknown kind of model"),
        (('model = "tuned"\nm', 'model = ""\nm'), "no such model"),
        (('"starter", "tuned", "int8"]', '"tuned", "tuned", "int8"]'), "names a model twice"),
        (('evaluation = "card"', 'evaluation = "tuned"'), "[finetune.tuned] makes no evaluation"),
        (("[compress.int8]", "[compress.dialogues]"), "[data.dialogues] already has this name"),
        (("[compress.int8]", "[compress.Tuned]"), "[finetune.tuned] already has this name"),
        (("[compress.int8]", "[compress.starter]"), "`starter` is the built-in model"),
        (("[compress.int8]", '[compress."a/b"]'), "a name has only letters, digits, - and _"),
        (('name = "support"', 'name = "../up"'), "name = '../up'"),
        (('name = "support"', "seed2 = 1"), "name: missing"),
        (('model = "int8"\nr', 'model = "in"\nr'), "'in': not in evaluate.card.models"),
        (('[gate]\nevaluation = "card"', '[gate]\nevaluation = "crd"'), "did you mean 'card'?"),
        (("qa_accuracy >= 80%", "qa_accuracy is ok"), "not a rule"),
        (("qa_accuracy >= 80%", "qa_accuracy is ok"), "my.toml: gate.require 'qa_accuracy is ok'"),
        (("[gate]", '[gate.ship]\nrequire = ["x"]\nmodel = "t"\nevaluation = "card"\n[gate.b]'),
         "gate.ship.model = 't': not in evaluate.card.models"),
        (("[gate]", "[gate.ship]\n[gate]"), "gate.ship: unknown key"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named_with_a_remedy(change: tuple[str, str], message: str) -> None:
    assert change[0] in SUPPORT
    with pytest.raises(RecipeError) as caught:
        parse(SUPPORT.replace(*change, 1), where="my.toml")
    assert message in str(caught.value)
    assert str(caught.value).startswith("my.toml: ")
    assert caught.value.exit_code == 2


def test_a_cycle_is_printed() -> None:
    text = """
name = "round"
[compress.a]
model = "c"
method = "int8"
[compress.b]
model = "a"
method = "int8"
[compress.c]
model = "b"
method = "int8"
"""
    with pytest.raises(RecipeError, match="a -> c -> b -> a: these steps wait for each other"):
        parse(text)


def test_a_recipe_without_steps_is_refused() -> None:
    with pytest.raises(RecipeError, match="no steps"):
        parse('name = "empty"')


def test_a_syntax_error_names_file_and_line(tmp_path: Path) -> None:
    path = tmp_path / "broken.toml"
    path.write_text('name = "x"\n\n[data.d\n', encoding="utf-8")
    with pytest.raises(RecipeError, match=r"broken\.toml: not valid TOML: .*line 3"):
        read(path)


def test_a_file_that_is_not_there_or_not_text_is_named(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"none\.toml: no such recipe; `lmwright new none`"):
        read(tmp_path / "none.toml")
    (tmp_path / "bytes.toml").write_bytes(b'name = "\xff"')
    with pytest.raises(RecipeError, match=r"bytes\.toml: not UTF-8 \(byte 8\)"):
        read(tmp_path / "bytes.toml")
    with pytest.raises(RecipeError, match="cannot be read"):
        read(tmp_path)


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    text = f'name = "x"\n[compress.a]\nmodel = "{tmp_path.as_posix()}"\nmethod = "int8"\n'
    with pytest.raises(RecipeError, match=r"no config\.json"):
        parse(text)


def test_overrides_are_toml_values_and_bare_words_strings() -> None:
    changes = [
        "finetune.tuned.rank=8",
        "finetune.tuned.method = full",
        "finetune.tuned.lr=6e-4",
        'evaluate.card.tasks=["qa_accuracy"]',
        "seed=11",
        "name=other",
    ]
    recipe = parse(SUPPORT, overrides=changes)
    tuned = recipe.tables["finetune"]["tuned"]
    assert isinstance(tuned, Finetune)
    assert (tuned.rank, tuned.method, tuned.lr) == (8, "full", 6e-4)
    card = recipe.tables["evaluate"]["card"]
    assert isinstance(card, Evaluate)
    assert card.tasks == ["qa_accuracy"]
    assert (recipe.seed, recipe.name) == (11, "other")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("finetune.tunde.rank=8", "no table [finetune.tunde]; did you mean 'tuned'?"),
        ("finetune.tuned.rank", "expected KEY=VALUE"),
        ("=8", "expected KEY=VALUE"),
        ("finetune..rank=8", "expected KEY=VALUE"),
        ("finetune.tuned.rnk=8", "finetune.tuned.rnk: unknown key; did you mean 'rank'?"),
        ("finetune.tuned.rank=many", "finetune.tuned.rank = 'many'"),
        ("finetune.tuned.rank=8\nepochs = 9", "finetune.tuned.rank = '8\\nepochs = 9'"),
        ("evaluate.card.tasks=[facts", "not a TOML value"),
    ],
)
def test_a_wrong_override_is_refused(override: str, message: str) -> None:
    with pytest.raises(RecipeError) as caught:
        parse(SUPPORT, overrides=[override])
    assert message in str(caught.value)


def test_an_unchanged_recipe_is_written_as_it_was_read() -> None:
    assert parse(SUPPORT).to_toml() == SUPPORT


def test_a_changed_recipe_is_written_so_that_it_reads_the_same() -> None:
    system = 'Say "hi"\\ \u007f\n\ttwice, caf\u00e9'
    recipe = parse(SUPPORT, overrides=["finetune.tuned.rank=8"])
    dialogues = recipe.tables["data"]["dialogues"].model_copy(update={"system": system})
    recipe = replace(recipe, tables={**recipe.tables, "data": {"dialogues": dialogues}})
    again = parse(recipe.to_toml())
    assert again.tables == recipe.tables
    assert again.tables["data"]["dialogues"].model_dump()["system"] == system
    assert again.tables["finetune"]["tuned"].model_dump()["rank"] == 8
    assert order(again) == order(recipe)


def test_a_recipe_made_in_python_is_checked_the_same() -> None:
    recipe = Recipe(name="mine", seed=5, tables={"finetune": {"tuned": Finetune(data="nothing")}})
    with pytest.raises(RecipeError, match=r"finetune\.tuned\.data = 'nothing': no such data"):
        order(recipe)


def test_the_recipes_that_come_with_the_package_are_valid() -> None:
    import lmwright

    paths = sorted((Path(lmwright.__file__).parent / "recipes").glob("*.toml"))
    assert [path.stem for path in paths] == ["own", "support"]
    for path in paths:
        assert read(path).name == path.stem


HOSTED = """
name = "x"
[evaluate.card]
models = ["starter", "openai:gpt-4o", "openai:m@http://127.0.0.1:8000/v1"]
[evaluate.card.hosted]
n_parallel = 8
[evaluate.card.hosted.prices]
"openai:gpt-4o" = [2.5, 10]
"""


def test_a_hosted_model_may_be_evaluated_and_is_written_so_that_it_reads_the_same() -> None:
    recipe = parse(HOSTED)
    card = recipe.tables["evaluate"]["card"]
    assert isinstance(card, Evaluate)
    hosted = card.hosted
    assert hosted is not None
    assert (hosted.n_parallel, hosted.prices) == (8, {"openai:gpt-4o": (2.5, 10.0)})
    changed = parse(HOSTED, overrides=["evaluate.card.hosted.n_parallel=2"])
    assert parse(changed.to_toml()).tables == changed.tables


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("openai:m@http://127.0.0.1:8000/v1", "openai:m@127.0.0.1:8000"), "is no URL"),
        (('"openai:gpt-4o" =', '"openai:gpt-4" ='), "'openai:gpt-4' is not among the hosted"),
        (("n_parallel = 8", "n_paralel = 8"), "card.hosted.n_paralel: unknown key; did you mean"),
    ],
)
def test_what_is_wrong_with_a_hosted_model_is_named(change: tuple[str, str], message: str) -> None:
    assert change[0] in HOSTED
    with pytest.raises(RecipeError, match=re.escape(message)):
        parse(HOSTED.replace(*change))


DEEP = 900


@pytest.mark.parametrize(
    "text",
    [
        f"name = {'[' * DEEP}{']' * DEEP}",
        f"name = {'{a = ' * DEEP}1{'}' * DEEP}",
        f'name = "x"\n{".".join(["a"] * DEEP)} = 1',
        f'name = "x"\n[{".".join(["a"] * DEEP)}]',
    ],
    ids=["lists", "inline tables", "dotted keys", "headings"],
)
def test_tables_deeper_than_any_recipe_needs_are_refused(text: str) -> None:
    with pytest.raises(RecipeError, match="inside each other deeper than 16 levels"):
        parse(text)


def test_a_number_of_thousands_of_digits_is_refused() -> None:
    with pytest.raises(RecipeError, match=r"recipe: not valid TOML: .*digits"):
        parse(f'name = "x"\nseed = {"1" * 5000}')


def chain(n_steps: int, end: str) -> str:
    steps = [
        f'[compress.c{i}]\nmodel = "{f"c{i + 1}" if i + 1 < n_steps else end}"\nmethod = "int8"\n'
        for i in range(n_steps)
    ]
    return 'name = "x"\n' + "".join(steps)


def test_thousands_of_steps_in_a_row_are_ordered() -> None:
    names = [step.name for step in order(parse(chain(3000, "starter")))]
    assert names == [f"c{i}" for i in reversed(range(3000))]


def test_a_cycle_is_shown_and_a_long_one_shortened() -> None:
    with pytest.raises(RecipeError, match="c0 -> c1 -> c2 -> c0: these steps wait"):
        parse(chain(3, "c0"))
    with pytest.raises(RecipeError, match=r"c0 -> c1 .* c7 -> \.\.\. -> c0: these steps wait"):
        parse(chain(3000, "c0"))
