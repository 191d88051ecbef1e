"""Ids of SentencePiece files are renumbered family by family: a wrong file must not pass."""

import io
import json
from pathlib import Path

import pytest
import sentencepiece

from lmwright.core.errors import ModelError, RequestError
from lmwright.tokenizer.huggingface.folder import load_tokenizer

CORPUS = ["the bank opens at nine and closes at five", "a card costs eight euros at the bank"] * 3


def trained(kind: str, **options) -> bytes:
    file = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(CORPUS), model_writer=file, model_type=kind, vocab_size=60,
        hard_vocab_limit=False, num_threads=1, minloglevel=2, **options,
    )  # fmt: skip
    return file.getvalue()


@pytest.fixture(scope="module")
def unigram() -> bytes:
    return trained("unigram")


@pytest.fixture(scope="module")
def bpe() -> bytes:
    return trained("bpe")


def folder(path: Path, kind: str, name: str, data: bytes, **settings) -> Path:
    (path / name).write_bytes(data)
    settings = {"tokenizer_class": kind, **settings}
    (path / "tokenizer_config.json").write_text(json.dumps(settings))
    return path


FILES = {
    "T5Tokenizer": "spiece.model",
    "XLMRobertaTokenizer": "sentencepiece.bpe.model",
    "MBartTokenizer": "sentencepiece.bpe.model",
    "MBart50Tokenizer": "sentencepiece.bpe.model",
    "LlamaTokenizer": "tokenizer.model",
    "GemmaTokenizer": "tokenizer.model",
}


@pytest.mark.parametrize("kind", FILES)
def test_a_file_of_the_other_algorithm_is_refused(kind, unigram, bpe, tmp_path):
    is_bpe = FILES[kind] == "tokenizer.model"
    folder(tmp_path, kind, FILES[kind], unigram if is_bpe else bpe)
    with pytest.raises(ModelError, match=f"expected a {'bpe' if is_bpe else 'unigram'} model"):
        load_tokenizer(tmp_path)
    (tmp_path / FILES[kind]).unlink()
    with pytest.raises(ModelError, match=f"{FILES[kind]} is missing: {kind} needs {FILES[kind]}"):
        load_tokenizer(tmp_path)


def test_pieces_that_the_family_needs_are_missed(unigram, bpe, tmp_path):
    # The default of the trainer has no <pad>.
    with pytest.raises(ModelError, match=r"spiece.model has no piece '<pad>'"):
        load_tokenizer(folder(tmp_path, "T5Tokenizer", "spiece.model", unigram))
    with pytest.raises(ModelError, match=r"tokenizer.model has no piece '<bos>'"):
        load_tokenizer(folder(tmp_path, "GemmaTokenizer", "tokenizer.model", bpe))
    odd = trained("unigram", pad_id=0, eos_id=1, unk_id=2, bos_id=3)
    with pytest.raises(ModelError, match="expected <unk>, <s> and </s> as the first three"):
        load_tokenizer(folder(tmp_path, "XLMRobertaTokenizer", "sentencepiece.bpe.model", odd))


def test_fairseq_numbers_and_language_codes(unigram, tmp_path):
    folder(tmp_path, "MBartTokenizer", "sentencepiece.bpe.model", unigram)
    tokenizer = load_tokenizer(tmp_path)
    n_pieces = tokenizer.vocab_size - 4 - 25 - 1
    assert [tokenizer.token(i) for i in range(4)] == ["<s>", "<pad>", "</s>", "<unk>"]
    assert tokenizer.language_id("ar_AR") == 4 + n_pieces
    assert tokenizer.language_id("zh_CN") == 4 + n_pieces + 24
    assert tokenizer.role_id("mask") == tokenizer.vocab_size - 1
    with pytest.raises(RequestError, match="needs the source_lang of a text"):
        tokenizer.encode_input("a")
    with pytest.raises(RequestError, match="one text"):
        tokenizer.encode_input("a", "b", source_lang="de_DE")
    with pytest.raises(RequestError, match="did you mean 'de_DE'"):
        tokenizer.encode_input("a", source_lang="de_DD")
    assert tokenizer.encode_input("a", source_lang="de_DE").ids[-2:] == [
        2,
        tokenizer.language_id("de_DE"),
    ]


def test_llama_adds_what_the_folder_says_and_no_text_spells_a_control_token(bpe, tmp_path):
    def load(**settings):
        return load_tokenizer(
            folder(tmp_path, "LlamaTokenizer", "tokenizer.model", bpe, **settings)
        )

    plain = load().encode("the bank")
    assert plain[0] == load().bos_id == 1
    assert load(add_bos_token=False).encode("the bank") == plain[1:]
    assert load(add_eos_token=True).encode_input("the bank").ids == [*plain, 2]
    assert load(add_prefix_space=False).encode("the bank") != plain
    # A folder without the setting is an older one: each part gets a space in front.
    dialogue = [{"role": "user", "content": "bank"}]
    template = "{{ messages[0].content }}</s>{{ messages[0].content }}"
    old, new = load(chat_template=template), load(chat_template=template, legacy=False)
    assert old.chat(dialogue).count(old.encode("bank")[1]) == 2
    assert new.chat(dialogue) != old.chat(dialogue)
    assert not {1, 2} & set(old.encode("</s><s> </s>", add_bos=False))


def marian(path: Path, source: bytes, target: bytes, vocabulary: list[str], **settings) -> Path:
    (path / "source.spm").write_bytes(source)
    ids = {token: i for i, token in enumerate(vocabulary)}
    (path / "vocab.json").write_text(json.dumps(ids))
    return folder(path, "MarianTokenizer", "target.spm", target, **settings)


def test_marian_needs_its_three_files_and_one_vocabulary(unigram, bpe, tmp_path):
    vocabulary = ["</s>", "<unk>", "\u2581bank", "<pad>"]
    tokenizer = load_tokenizer(marian(tmp_path, unigram, unigram, vocabulary))
    ids = tokenizer.encode_input("the bank").ids
    assert (ids[0], ids[-2:]) == (1, [2, 0])  # pieces that the vocabulary lacks are unknown
    assert tokenizer.encode("bank") == [2]
    assert tokenizer.decode([2, 2, 0]) == "bank bank"
    with pytest.raises(RequestError, match="surrogate"):
        tokenizer.encode_input("a\ud83d")
    with pytest.raises(ModelError, match=r"vocab.json has no piece '<pad>', the pad_token"):
        load_tokenizer(marian(tmp_path, unigram, unigram, vocabulary[:3]))
    with pytest.raises(ModelError, match="separate_vocabs"):
        load_tokenizer(marian(tmp_path, unigram, unigram, vocabulary, separate_vocabs=True))
    with pytest.raises(ModelError, match=r"target.spm: expected a unigram model"):
        load_tokenizer(marian(tmp_path, unigram, bpe, vocabulary))
    (tmp_path / "source.spm").unlink()
    with pytest.raises(ModelError, match=r"source.spm is missing: MarianTokenizer needs source"):
        load_tokenizer(tmp_path)


def test_a_saved_marian_is_its_own_files(unigram, tmp_path):
    vocabulary = ["</s>", "<unk>", "\u2581bank", "<pad>", ">>deu<<"]
    first = marian(tmp_path, unigram, unigram, vocabulary)
    tokenizer = load_tokenizer(first)
    tokenizer.set_languages(target="deu")
    tokenizer.save(tmp_path / "saved")
    names = {path.name for path in (tmp_path / "saved").iterdir()}
    assert names == {"source.spm", "target.spm", "vocab.json", "tokenizer_config.json"}
    assert load_tokenizer(tmp_path / "saved").encode_input("bank").ids == [4, 2, 0]
