"""Whatever lies in a model folder must give the right tokenizer or a message with its name."""

import json
import shutil

import pytest
import tokenizers

from lmwright.core.errors import ModelError
from lmwright.tokenizer.huggingface.folder import load_tokenizer

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


def test_a_text_is_neither_cut_nor_filled_up_as_the_file_would(folder):
    backend = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    backend.enable_truncation(4)
    backend.enable_padding(length=9, pad_id=0, pad_token="<|endoftext|>")
    backend.save(str(folder / "tokenizer.json"))
    assert backend.encode("a").ids[1:] == [0] * 8
    read = load_tokenizer(folder)
    assert len(read.encode("a" * 50)) == len(read.encode_input("a" * 50).ids) > 9
    assert len(read.encode("a")) == 1


def test_roles_come_from_the_older_map_and_from_the_kind(folder):
    change(folder / "tokenizer_config.json", eos_token=None, tokenizer_class="GPT2Tokenizer")
    settings = {"pad_token": "<|im_end|>", "bos_token": "<|im_end|>"}
    (folder / "special_tokens_map.json").write_text(json.dumps(settings))
    roles = load_tokenizer(folder).special_tokens
    assert roles["bos_token"] == "<|im_start|>"  # of tokenizer_config.json
    assert roles["pad_token"] == "<|im_end|>"
    assert roles["eos_token"] == roles["unk_token"] == "<|endoftext|>"
    assert load_tokenizer(folder).role_id("pad") == 2
    # A kind's usual tokens count only where they exist.
    change(folder / "tokenizer_config.json", tokenizer_class="RobertaTokenizerFast")
    read = load_tokenizer(folder)
    assert "mask_token" not in read.special_tokens
    assert read.role_id("mask") is None


@pytest.fixture
def older(folder):
    """The same without its tokenizer.json."""
    whole = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    whole.model.save(str(folder))
    (folder / "tokenizer.json").unlink()
    change(folder / "tokenizer_config.json", tokenizer_class="GPT2Tokenizer", unk_token=None)
    return folder


def test_a_folder_without_tokenizer_json_is_built_from_what_it_has(older, tiny_tokenizer):
    change(
        older / "tokenizer_config.json",
        added_tokens_decoder={
            "301": {"content": "<two>", "special": False, "lstrip": True},
            "0": {"content": "<|endoftext|>", "special": True},
        },
        additional_special_tokens=["<one>", {"content": "<|im_start|>"}],
    )
    (older / "added_tokens.json").write_text('{"<one>": 300}')
    read = load_tokenizer(older)
    assert read.vocab_size == 302
    assert read.chat(DIALOGUE) == tiny_tokenizer.chat(DIALOGUE)
    assert read.encode("a<two>") == [*tiny_tokenizer.encode("a"), 301]
    assert read.encode("<one>") == tiny_tokenizer.encode("<one>")  # special, and so text
    read.save(older / "saved")
    assert load_tokenizer(older / "saved").encode("a <two>") == read.encode("a <two>")


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"5": {"content": "<new>"}}, "'<new>' should have the id 5 and has 300"),
        ({"x": {"content": "<new>"}}, "'x' is no token id"),
        ({"300": "<new>"}, "300 = '<new>': expected an object"),
        ({"300": {"content": "<new>", "lstrip": "no"}}, "lstrip = 'no': expected true or false"),
        ([], "added_tokens_decoder = ..: expected an object"),
    ],
)
def test_added_tokens_get_the_ids_that_the_checkpoint_knows(older, settings, expected):
    change(older / "tokenizer_config.json", added_tokens_decoder=settings)
    with pytest.raises(ModelError, match=expected):
        load_tokenizer(older)


def test_an_unknown_kind_is_refused_with_those_that_are_known(older):
    change(older / "tokenizer_config.json", tokenizer_class="XLNetTokenizer")
    with pytest.raises(ModelError, match=r"tokenizer.json is missing; convert.* known: Bart"):
        load_tokenizer(older)


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
    with pytest.raises(ModelError, match="expected a text"):
        load_tokenizer(folder)


def test_without_generation_config_the_ends_are_those_of_the_configuration(folder):
    (folder / "generation_config.json").unlink()
    change(folder / "config.json", eos_token_id=[2, 0])
    assert load_tokenizer(folder).eos_ids == (2, 0)
    # Also where the tokenizer itself has none.
    change(folder / "tokenizer_config.json", eos_token=None)
    assert load_tokenizer(folder).eos_ids == (2, 0)
    # transformers asks the configuration only where the other file is not there.
    (folder / "generation_config.json").write_text('{"eos_token_id": 1}')
    assert load_tokenizer(folder).eos_ids == (1,)


@pytest.mark.parametrize("name", ["generation_config.json", "config.json"])
@pytest.mark.parametrize("value", [[[]], {}, "2", True, -1, 2.0, [2, "3"], {"content": 2}], ids=str)
def test_ends_that_are_no_tokens_are_refused(folder, name, value):
    (folder / "generation_config.json").unlink()
    (folder / name).touch()
    change_or_write(folder / name, eos_token_id=value)
    with pytest.raises(ModelError, match=rf"{name}: eos_token_id = .*: expected the id of a token"):
        load_tokenizer(folder)


def change_or_write(path, **values) -> None:
    old = json.loads(path.read_text() or "{}")
    path.write_text(json.dumps({**old, **values}))


def test_half_characters_are_refused(folder):
    (folder / "special_tokens_map.json").write_text('{"pad_token": "\\ud800"}')
    with pytest.raises(ModelError, match=r"special_tokens_map\.json is not JSON"):
        load_tokenizer(folder)
    (folder / "special_tokens_map.json").write_text('{"pad_token": "\\ud83d\\ude42"}')
    assert load_tokenizer(folder).special_tokens["pad_token"] == "\U0001f642"
