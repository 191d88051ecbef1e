"""Older folders hold plain lists of tokens: a line too many shifts the ids of all that follow."""

import json

import pytest

from lmwright.core.errors import ModelError
from lmwright.tokenizer.huggingface.folder import load_tokenizer

WORDS = [
    *("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"),
    *("the", "bank", "##s", "\u4f60", "Bank", "\u00e4", "a"),
]


@pytest.fixture
def bert(tmp_path):
    (tmp_path / "vocab.txt").write_text("\n".join(WORDS) + "\n", encoding="utf-8")
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    return tmp_path


@pytest.fixture
def gpt2(tmp_path):
    tokens = ["<|endoftext|>", "a", "b", "ab", "\u0120", "\u0120ab", "c"]
    (tmp_path / "vocab.json").write_text(json.dumps({t: i for i, t in enumerate(tokens)}))
    (tmp_path / "merges.txt").write_text(
        "#version: 0.2\na b\n\u0120 ab\n", encoding="utf-8", newline="\r\n"
    )
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
    return tmp_path


def configure(folder, **settings) -> None:
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


def words(folder, text: str) -> list[str]:
    return [WORDS[id_] for id_ in load_tokenizer(folder).encode_input(text).ids[1:-1]]


def test_the_settings_of_bert_are_heeded(bert):
    assert words(bert, "The BANKS \u00c4\u4f60") == ["the", "bank", "##s", "a", "\u4f60"]
    configure(bert, do_lower_case=True, strip_accents=False)
    assert words(bert, "\u00c4") == ["\u00e4"]
    configure(bert, do_lower_case=False)
    assert words(bert, "Bank THE \u00e4") == ["Bank", "[UNK]", "\u00e4"]
    configure(bert, do_lower_case=False, tokenize_chinese_chars=False)
    assert words(bert, "a\u4f60") == ["[UNK]"]


def test_bert_frames_one_text_and_two(bert):
    tokenizer = load_tokenizer(bert)
    framed = tokenizer.encode_input("the bank", "banks")
    assert [WORDS[i] for i in framed.ids] == [
        "[CLS]",
        "the",
        "bank",
        "[SEP]",
        "bank",
        "##s",
        "[SEP]",
    ]
    assert framed.segments == [0, 0, 0, 0, 1, 1, 1]
    assert tokenizer.encode_input("").ids == [2, 3]
    assert (tokenizer.role_id("cls"), tokenizer.role_id("sep")) == (2, 3)
    assert (tokenizer.role_id("mask"), tokenizer.role_id("pad")) == (4, 0)
    assert tokenizer.eos_ids == ()


def test_merges_are_read_with_any_line_ends(gpt2):
    tokenizer = load_tokenizer(gpt2)
    assert tokenizer.encode("ab abc") == [3, 5, 6]
    assert tokenizer.decode([3, 5, 6]) == "ab abc"
    assert tokenizer.bos_id is None
    assert tokenizer.eos_ids == (0,)
    configure(gpt2, add_prefix_space=True)
    assert load_tokenizer(gpt2).encode("ab") == [5]
    configure(gpt2, add_bos_token=True)
    assert load_tokenizer(gpt2).encode("ab") == [0, 3]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("vocab.txt", "[UNK]\na\na\n", "vocab.txt: a token occurs twice"),
        (
            "vocab.txt",
            "[UNK]\n[SEP]\na\n",
            r"vocab.txt has no piece '\[CLS\]', the cls_token; name",
        ),
        ("vocab.txt", b"\xff\xfe", "vocab.txt is not UTF-8"),
        (
            "tokenizer_config.json",
            '{"do_lower_case": 1}',
            "do_lower_case = 1: expected true or false",
        ),
        (
            "tokenizer_config.json",
            '{"strip_accents": "no"}',
            "strip_accents = 'no': expected true or false",
        ),
        ("tokenizer_config.json", '{"do_basic_tokenize": false}', "do_basic_tokenize = false"),
    ],
)
def test_a_faulty_word_list_is_refused(bert, name, content, message):
    data = content if isinstance(content, bytes) else content.encode()
    (bert / name).write_bytes(data)
    with pytest.raises(ModelError, match=message):
        load_tokenizer(bert)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("vocab.json", '{"a": 0, "b": 2}', "with the ids 0 to 1"),
        ("vocab.json", '{"a": true, "b": 0}', "expected whole numbers as ids"),
        ("vocab.json", "{}", "with the ids 0 to -1"),
        ("vocab.json", '["a"]', "expected an object, found list"),
        ("merges.txt", "a b\na c\n", "merges.txt, line 2: 'a c' does not merge two tokens"),
        ("merges.txt", "a b\nab\n", "merges.txt, line 2: 'ab' does not merge two tokens"),
        ("merges.txt", None, "merges.txt is missing: GPT2Tokenizer needs vocab.json and merges"),
    ],
)
def test_a_faulty_byte_vocabulary_is_refused(gpt2, name, content, message):
    if content is None:
        (gpt2 / name).unlink()
    else:
        (gpt2 / name).write_text(content)
    with pytest.raises(ModelError, match=message):
        load_tokenizer(gpt2)
