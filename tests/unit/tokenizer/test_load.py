"""Whatever lies in a model folder must give the right tokenizer or a message with its name."""

import json
import shutil

import pytest

from lmwright.core.errors import ModelError
from lmwright.tokenizer.load import load_tokenizer

DIALOGUE = [{"role": "user", "content": "What does a card cost?"}]


@pytest.fixture
def folder(tiny_folder, tmp_path):
    return shutil.copytree(tiny_folder, tmp_path / "model")


def change(path, **values) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def test_saved_and_read_it_is_the_same(tiny_tokenizer, tiny_folder):
    read = load_tokenizer(tiny_folder)
    assert read.chat(DIALOGUE) == tiny_tokenizer.chat(DIALOGUE)
    assert read.special_tokens == tiny_tokenizer.special_tokens
    assert read.eos_ids == tiny_tokenizer.eos_ids == (2,)
    assert read.vocab_size == tiny_tokenizer.vocab_size == 300
    assert read.encode("<|im_end|>") == tiny_tokenizer.encode("<|im_end|>")


def test_older_spellings_are_read(folder):
    (folder / "chat_template.jinja").unlink()
    settings = folder / "tokenizer_config.json"
    change(settings, eos_token={"content": "<|endoftext|>"}, chat_template="{{ 'plain' }}")
    change(folder / "generation_config.json", eos_token_id=[0, 2])
    read = load_tokenizer(folder)
    assert read.eos_ids == (0, 2)
    assert read.decode(read.chat(DIALOGUE)) == "plain"
    named = [{"name": "tool_use", "template": "no"}, {"name": "default", "template": "yes"}]
    change(settings, chat_template=named)
    assert load_tokenizer(folder).decode(load_tokenizer(folder).chat(DIALOGUE)) == "yes"
    change(settings, chat_template=[{"name": "tool_use", "template": "no"}, 3])
    assert load_tokenizer(folder).chat_template is None


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("tokenizer.json", None, "tokenizer.json is missing; convert"),
        ("tokenizer.json", "{}", "tokenizer.json cannot be read as a tokenizer"),
        ("tokenizer.json", '{"version": "1.0", "trunc', "cannot be read as a tokenizer"),
        ("tokenizer_config.json", "[1]", "tokenizer_config.json: expected an object, found list"),
        ("tokenizer_config.json", "{", "tokenizer_config.json is not JSON"),
        ("tokenizer_config.json", '{"eos_token": "<end>"}', "'<end>' is not in the vocabulary"),
        ("generation_config.json", "\x00", "generation_config.json is not JSON"),
        ("chat_template.jinja", "{% if %}", "chat template, line 1"),
    ],
)
def test_a_damaged_file_is_named(folder, name, content, expected):
    if content is None:
        (folder / name).unlink()
    else:
        (folder / name).write_text(content)
    with pytest.raises(ModelError, match=expected):
        load_tokenizer(folder)


def test_a_template_that_is_no_text_is_refused(folder):
    (folder / "chat_template.jinja").unlink()
    change(folder / "tokenizer_config.json", chat_template={"default": "x"})
    with pytest.raises(ModelError, match="chat_template is no text"):
        load_tokenizer(folder)
