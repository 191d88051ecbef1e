"""What a sentence-embedding folder says of its vectors is read as it is meant, or refused."""

import json
from dataclasses import replace

import pytest

from lmwright.core.errors import ModelError
from lmwright.formats.sentence_transformers import Pooling, read_pooling, write_pooling

POOLING = Pooling(kinds=("mean",), is_normalized=True, max_tokens=256)


@pytest.mark.parametrize(
    "pooling",
    [
        POOLING,
        Pooling(("cls",), is_normalized=False, lowers_case=True),
        Pooling(("cls", "mean"), True, 8, prompt="query: ", prompts={"query": "query: ", "p": ""}),
    ],
)
def test_what_is_written_is_read(tmp_path, pooling):
    write_pooling(tmp_path, pooling, d_model=4)
    read = read_pooling(tmp_path)
    assert read == replace(pooling, prompts=pooling.prompts or {})
    assert (tmp_path / "modules.json").read_text().count("Normalize") == 2 * pooling.is_normalized


def test_a_prompt_without_a_name_gets_one(tmp_path):
    write_pooling(tmp_path, replace(POOLING, prompt="search: "), d_model=4)
    read = read_pooling(tmp_path)
    assert read is not None
    assert (read.prompt, read.prompts) == ("search: ", {"default": "search: "})


def test_other_folders_have_none(tmp_path):
    assert read_pooling(tmp_path) is None


def test_the_spellings_of_sentence_transformers_6_are_read(tmp_path):
    write_pooling(tmp_path, POOLING, d_model=4)
    write(tmp_path, "1_Pooling/config.json", {"pooling_mode": ["lasttoken", "mean"]})
    package = "sentence_transformers.sentence_transformer.modules"
    modules = json.loads((tmp_path / "modules.json").read_text())
    modules[1]["type"] = f"{package}.pooling.Pooling"
    write(tmp_path, "modules.json", modules[:2])
    write(tmp_path, "sentence_bert_config.json", {"transformer_task": "feature-extraction"})
    write(tmp_path, "tokenizer_config.json", {"model_max_length": 77})
    read = read_pooling(tmp_path)
    assert read == Pooling(("lasttoken", "mean"), is_normalized=False, max_tokens=77, prompts={})
    write(tmp_path, "tokenizer_config.json", {"model_max_length": 1e30})
    write(tmp_path, "1_Pooling/config.json", {"pooling_mode": "max"})
    assert read_pooling(tmp_path) == Pooling(("max",), is_normalized=False, prompts={})


def write(folder, name, data) -> None:
    (folder / name).write_text(data if isinstance(data, str) else json.dumps(data))


TRANSFORMER = {"path": "", "type": "sentence_transformers.models.Transformer"}
POOLED = {"path": "1_Pooling", "type": "sentence_transformers.models.Pooling"}
DENSE = {"path": "2_Dense", "type": "sentence_transformers.models.Dense"}
OWN = {"path": "", "type": "custom_st.Transformer"}
OUTSIDE = {"path": "../x", "type": "sentence_transformers.models.Pooling"}
PROMPTS = "config_sentence_transformers.json"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("modules.json", "[", "modules.json is not JSON"),
        ("modules.json", "{}", "expected an array, found dict"),
        ("modules.json", [1], "module 0 needs a type and a path"),
        ("modules.json", [{**POOLED, "path": ""}], "Pooling as module 0 is not known"),
        ("modules.json", [TRANSFORMER], "no Pooling among the modules"),
        ("modules.json", [TRANSFORMER, POOLED, DENSE], "Dense as module 2 is not known; known: a"),
        ("modules.json", [TRANSFORMER, POOLED, POOLED], "Pooling as module 2 is not known"),
        ("modules.json", [TRANSFORMER, TRANSFORMER], "Transformer as module 1 is not known"),
        ("modules.json", [OWN, POOLED], "custom_st.Transformer is the model's own code"),
        ("modules.json", [TRANSFORMER, OUTSIDE], "module 1 lies in '../x'"),
        ("modules.json", [{**TRANSFORMER, "path": "0_T"}], "module 0 lies in '0_T': not known"),
        ("1_Pooling/config.json", {"pooling_mode": "average"}, "pooling 'average' is not known"),
        ("1_Pooling/config.json", {"pooling_mode": 3}, "pooling_mode = 3: expected a name"),
        ("1_Pooling/config.json", {"pooling_mode_cls_token": "no"}, "cls_token = 'no': expected"),
        ("1_Pooling/config.json", {"pooling_mode_new": True}, "pooling_mode_new is not known"),
        ("sentence_bert_config.json", {"max_seq_length": 0}, "max_seq_length = 0: expected"),
        ("sentence_bert_config.json", {"max_seq_length": "9"}, "max_seq_length = '9'"),
        ("sentence_bert_config.json", {"do_lower_case": "false"}, "do_lower_case = 'false': exp"),
        (PROMPTS, {"prompts": {"q": 3}}, "q = 3: expected a text"),
        (PROMPTS, {"prompts": {"q": "a"}, "default_prompt_name": ["q"]}, "is not one of the"),
        (PROMPTS, {"default_prompt_name": "q"}, "default_prompt_name = 'q' is not one of"),
        (PROMPTS, {"prompts": ["q"]}, "is not one of the prompts"),
    ],
)
def test_what_is_not_known_is_refused(tmp_path, name, content, message):
    write_pooling(tmp_path, POOLING, d_model=4)
    write(tmp_path, name, content)
    with pytest.raises(ModelError, match=message):
        read_pooling(tmp_path)


@pytest.mark.parametrize("length", ["9", True, 0, 7.5, float("inf")])
def test_a_length_that_is_left_to_the_tokenizer_must_be_one(tmp_path, length):
    write_pooling(tmp_path, replace(POOLING, max_tokens=None), d_model=4)
    write(tmp_path, "tokenizer_config.json", {"model_max_length": length})
    with pytest.raises(ModelError, match=f"model_max_length = {length!r}: expected a number"):
        read_pooling(tmp_path)


def test_a_folder_in_place_of_a_file_is_not_passed_over(tmp_path):
    (tmp_path / "modules.json").mkdir()
    with pytest.raises(ModelError, match=r"modules.json cannot be read: Is a directory"):
        read_pooling(tmp_path)


def test_a_prompt_that_does_not_count_is_refused(tmp_path):
    write_pooling(tmp_path, replace(POOLING, prompt="q: "), d_model=4)
    write(tmp_path, "1_Pooling/config.json", {"include_prompt": False})
    with pytest.raises(ModelError, match="include_prompt = false"):
        read_pooling(tmp_path)
    (tmp_path / "1_Pooling" / "config.json").unlink()
    with pytest.raises(ModelError, match=r"1_Pooling/config.json is missing"):
        read_pooling(tmp_path)


def test_an_order_that_the_file_cannot_say_is_not_written(tmp_path):
    with pytest.raises(ModelError, match="flags cannot say this order"):
        write_pooling(tmp_path, Pooling(("mean", "cls"), is_normalized=False), d_model=4)
    with pytest.raises(ModelError, match="at least one kind"):
        Pooling((), is_normalized=False)
