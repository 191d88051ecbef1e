"""One id that differs is another text to the model: older folders must give transformers' ids."""

import io
import json
from itertools import pairwise

import pytest
import tokenizers
from tokenizers import models, normalizers, pre_tokenizers, trainers

import weights
from lmwright.tokenizer.huggingface.folder import load_tokenizer

transformers = pytest.importorskip("transformers")
sentencepiece = pytest.importorskip("sentencepiece")

CORPUS = [
    "The bank opens at nine in the morning and closes at five.",
    "What does a new card cost? A replacement card costs eight euros.",
    "The assistant answers questions about the account and the user listens.",
    "Das Institut \u00f6ffnet um neun Uhr; ein Fisch kostet 1234 Euro, na\u00efve Z\u00e4hne.",
    "\u4f60\u597d \u4e16\u754c, caf\u00e9 na\u00efve r\u00e9sum\u00e9 <a> [b] (c) /d/ 'e' \"f\"",
]
NFKC = "\ufb01sh \u2460 \uff21\uff22\uff23 \u00bd cafe\u0301"  # all of which NFKC rewrites
TEXTS = [
    *CORPUS,
    "",
    "a",
    "Hello, WORLD! It's 3.14 o'clock...",
    "two  spaces   here, and one behind ",
    NFKC,
    "\u4f60\u597d\u4e16\u754c \U0001f642 \U0001f468\u200d\U0001f469 \u0e01\u0e02",
    "don't stop-start under_score e-mail@host.org http://x.y/z?a=b#c",
    "line\nbreak\tand tab",
]
MARKED = (
    "the </s> bank [SEP] card <mask> <pad> <s>en_XX [MASK] </s> ro_RO <extra_id_3> <|endoftext|>"
)


def write(folder, name, data) -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(data, bytes):
        path.write_bytes(data)
    else:
        path.write_text(data if isinstance(data, str) else json.dumps(data), encoding="utf-8")


def pieces(kind: str, corpus: list[str] = CORPUS, **options) -> bytes:
    """Train a tiny SentencePiece model and return its file."""
    file = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(corpus * 3),
        model_writer=file,
        model_type=kind,
        hard_vocab_limit=False,
        num_threads=1,
        minloglevel=2,
        **{"vocab_size": 150 if kind == "unigram" else 480, **options},
    )
    return file.getvalue()


def bert(folder, **settings):
    backend = tokenizers.Tokenizer(models.WordPiece(unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer(
        lowercase=settings.get("do_lower_case", True), strip_accents=False
    )
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    backend.train_from_iterator(
        CORPUS, trainers.WordPieceTrainer(vocab_size=200, special_tokens=specials)
    )
    vocabulary = sorted(backend.get_vocab(), key=backend.get_vocab().__getitem__)
    write(folder, "vocab.txt", "\n".join(vocabulary) + "\n")
    write(folder, "tokenizer_config.json", settings)


def byte_level(folder, specials, **settings):
    backend = tokenizers.Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=340, special_tokens=specials, initial_alphabet=alphabet, show_progress=False
    )
    backend.train_from_iterator(CORPUS, trainer)
    backend.model.save(str(folder))
    write(folder, "tokenizer_config.json", settings)


FAIRSEQ = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]


def bert_uncased(folder):
    bert(folder)
    write(folder, "config.json", {"model_type": "bert"})


def bert_cased(folder):
    bert(folder, do_lower_case=False, tokenize_chinese_chars=False, strip_accents=False)
    write(folder, "config.json", {"model_type": "bert"})


def distilbert(folder):
    bert(folder, tokenizer_class="DistilBertTokenizer", do_lower_case=True, strip_accents=True)
    write(folder, "config.json", {"model_type": "distilbert"})


def gpt2(folder):
    byte_level(folder, ["<|endoftext|>"], tokenizer_class="GPT2Tokenizer")


def roberta(folder):
    byte_level(folder, FAIRSEQ, add_prefix_space=True)
    write(folder, "config.json", {"model_type": "roberta"})


def bart(folder):
    byte_level(folder, FAIRSEQ, tokenizer_class="BartTokenizer")


def t5(folder):
    file = pieces("unigram", pad_id=0, eos_id=1, unk_id=2, bos_id=-1)
    write(folder, "spiece.model", file)
    write(folder, "tokenizer_config.json", {"tokenizer_class": "T5Tokenizer", "extra_ids": 10})


def xlm_roberta(folder):
    write(folder, "sentencepiece.bpe.model", pieces("unigram"))
    write(folder, "tokenizer_config.json", {"tokenizer_class": "XLMRobertaTokenizer"})


def mbart(folder):
    write(folder, "sentencepiece.bpe.model", pieces("unigram"))
    settings = {"tokenizer_class": "MBartTokenizer", "src_lang": "en_XX", "tgt_lang": "ro_RO"}
    write(folder, "tokenizer_config.json", settings)


def mbart50(folder):
    write(folder, "sentencepiece.bpe.model", pieces("unigram"))
    settings = {"tokenizer_class": "MBart50Tokenizer", "src_lang": "en_XX", "tgt_lang": "ro_RO"}
    write(folder, "tokenizer_config.json", settings)


LLAMA_PIECES = {
    "byte_fallback": True,
    "normalization_rule_name": "identity",
    "remove_extra_whitespaces": False,
    "allow_whitespace_only_pieces": True,
    "split_digits": True,
}


def llama(folder):
    write(folder, "tokenizer.model", pieces("bpe", **LLAMA_PIECES))
    settings = {"tokenizer_class": "LlamaTokenizer", "legacy": False, "add_bos_token": True}
    write(folder, "tokenizer_config.json", settings)


def llama_legacy(folder):
    write(folder, "tokenizer.model", pieces("bpe", **LLAMA_PIECES))
    settings = {"tokenizer_class": "LlamaTokenizer", "legacy": True, "add_bos_token": True}
    write(folder, "tokenizer_config.json", settings)


def gemma(folder):
    file = pieces(
        "bpe", pad_id=0, eos_id=1, bos_id=2, unk_id=3, pad_piece="<pad>", eos_piece="<eos>",
        bos_piece="<bos>", unk_piece="<unk>", add_dummy_prefix=False,
        user_defined_symbols=["<mask>", "<start_of_turn>", "<end_of_turn>", "\n\n"], **LLAMA_PIECES,
    )  # fmt: skip
    write(folder, "tokenizer.model", file)
    settings = {"tokenizer_class": "GemmaTokenizer", "add_bos_token": True}
    write(folder, "tokenizer_config.json", settings)


FOLDERS = {
    function.__name__: function
    for function in (bert_uncased, bert_cased, distilbert, gpt2, roberta, bart, t5, xlm_roberta,
                     mbart, mbart50, llama, llama_legacy, gemma)
}  # fmt: skip


# Texts that transformers 5 cuts otherwise than SentencePiece does, and so than in training: it
# does not rewrite their characters, or keeps a space at the end.
LEFT_OUT = {"mbart": {NFKC}, "mbart50": {"two  spaces   here, and one behind "}}


@pytest.fixture(scope="module", params=FOLDERS)
def kind(request, tmp_path_factory):
    """A name of FOLDERS, its folder, our tokenizer and that of transformers."""
    folder = tmp_path_factory.mktemp(request.param)
    FOLDERS[request.param](folder)
    oracle = transformers.AutoTokenizer.from_pretrained(folder)
    return request.param, folder, load_tokenizer(folder), oracle


def test_older_folders_give_the_ids_of_transformers(kind):
    name, _, ours, oracle = kind
    for text in TEXTS:
        if text not in LEFT_OUT.get(name, ()):
            ids = oracle(text).input_ids
            assert ours.encode_input(text).ids == ids, text
            # It drops the first space of some texts, which were written with it.
            told = oracle.decode(ids, skip_special_tokens=True)
            assert ours.decode(ids).strip() == told.strip(), text


def test_what_is_saved_opens_in_transformers_with_the_same_ids(kind, tmp_path):
    name, _, ours, oracle = kind
    ours.save(tmp_path)
    again, theirs = load_tokenizer(tmp_path), transformers.AutoTokenizer.from_pretrained(tmp_path)
    for text in TEXTS:
        assert again.encode_input(text) == ours.encode_input(text)
        if text not in LEFT_OUT.get(name, ()):
            assert theirs(text).input_ids == ours.encode_input(text).ids, text
    assert theirs.model_input_names == oracle.model_input_names
    for role, token in ours.special_tokens.items():
        assert getattr(theirs, role) == getattr(oracle, role) == token
    assert again.special_tokens == ours.special_tokens


def test_special_tokens_of_a_text_stay_text(kind):
    name, _, ours, oracle = kind
    specials = set(ours._special_ids.values())
    if name != "gpt2":  # elsewhere, what no piece can write is unknown
        specials -= {ours.role_id("unk")}
    around = [id_ for id_ in ours.encode_input("a").ids if id_ in specials]
    for text in (MARKED, "</s>", "<s>", "[CLS]", "<|endoftext|>", "\uff1c/s\uff1e"):
        ids = ours.encode_input(text).ids
        assert [id_ for id_ in ids if id_ in specials] == around, text
        assert not specials & set(ours.encode(text, add_bos=False)), text
    assert len(set(oracle(MARKED).input_ids) & specials) > len(set(around))


@pytest.mark.parametrize("name", ["bert_uncased", "distilbert", "roberta", "t5", "xlm_roberta"])
def test_two_texts_are_framed_like_in_transformers(name, tmp_path):
    FOLDERS[name](tmp_path)
    ours = load_tokenizer(tmp_path)
    oracle = transformers.AutoTokenizer.from_pretrained(tmp_path)
    for text, pair in pairwise(TEXTS):
        if not pair:  # no text to transformers, an empty one to us
            continue
        framed, expected = (
            ours.encode_input(text, pair),
            oracle(text, pair, return_token_type_ids=True),
        )
        assert framed.ids == expected.input_ids
        assert framed.segments == expected.token_type_ids
        assert (1 in framed.segments) == ("bert" in name and name[0] not in "rx")


@pytest.mark.parametrize("name", ["bert_cased", "roberta", "xlm_roberta"])
def test_masks_are_read_where_asked(name, tmp_path):
    FOLDERS[name](tmp_path)
    ours = load_tokenizer(tmp_path)
    oracle = transformers.AutoTokenizer.from_pretrained(tmp_path)
    mask = ours.special_tokens["mask_token"]
    text = f"The {mask} opens at{mask}."
    ids = ours.encode_input(text, reads_masks=True).ids
    assert ids.count(ours.role_id("mask")) == 2
    assert ours.encode_input(text).ids.count(ours.role_id("mask")) == 0
    # The space before a mask belongs to it in the checkpoints on the hub, and is lost here.
    assert [i for i in ids if i != 4] == [i for i in oracle(text).input_ids if i != 4]


PIECES = [name for name in FOLDERS if name in
          ("t5", "xlm_roberta", "mbart", "mbart50", "llama_legacy", "gemma")]  # fmt: skip


@pytest.mark.parametrize("name", PIECES)
def test_text_is_cut_as_sentencepiece_itself_cuts_it(name, tmp_path):
    FOLDERS[name](tmp_path)
    ours = load_tokenizer(tmp_path)
    (path,) = tmp_path.glob("*.model")
    oracle = sentencepiece.SentencePieceProcessor(model_file=str(path))
    spaces = [" in front", "   in front", "a \u2581b", "\u00a0x\u2028y\u3000z"]
    for text in [*TEXTS, *spaces]:
        ids = (ours._backend.token_to_id(piece) for piece in oracle.encode(text, out_type=str))
        unknown = ours.role_id("unk")
        expected = [unknown if id_ is None else id_ for id_ in ids]
        assert ours.encode(text, add_bos=False) == expected, text
        if unknown not in expected:
            assert ours.decode(expected) == oracle.decode(oracle.encode(text)), text


@pytest.mark.parametrize("name", ["mbart", "mbart50"])
def test_languages_are_told_like_in_transformers(name, tmp_path):
    FOLDERS[name](tmp_path)
    ours = load_tokenizer(tmp_path)
    oracle = transformers.AutoTokenizer.from_pretrained(tmp_path)
    text = CORPUS[0]
    both = oracle(text, text_target=text)
    assert ours.encode_input(text).ids == both.input_ids
    assert ours.encode_target(text) == both.labels
    oracle.src_lang, oracle.tgt_lang = "de_DE", "fr_XX"
    both = oracle(text, text_target=text)
    assert ours.encode_input(text, source_lang="de_DE").ids == both.input_ids
    assert ours.encode_target(text, target_lang="fr_XX") == both.labels
    assert ours.language_id("fr_XX") == oracle.convert_tokens_to_ids("fr_XX")
    ours.set_languages(source="de_DE", target="fr_XX")
    ours.save(tmp_path / "saved")
    saved = transformers.AutoTokenizer.from_pretrained(tmp_path / "saved")
    again = load_tokenizer(tmp_path / "saved")
    assert saved(text, text_target=text).labels == again.encode_target(text) == both.labels
    assert saved(text).input_ids == again.encode_input(text).ids == both.input_ids


GERMAN = ["Die Bank öffnet um neun Uhr.", "Was kostet eine neue Karte? Acht Euro.", CORPUS[3]]


def marian(folder, *codes: str) -> None:
    source, target = pieces("unigram", CORPUS, vocab_size=90), pieces("unigram", GERMAN)
    write(folder, "source.spm", source)
    write(folder, "target.spm", target)
    texts = dict.fromkeys(["</s>", "<unk>"])
    for file in (target, source):  # in an order of its own, as the checkpoints have it
        reader = sentencepiece.SentencePieceProcessor(model_proto=file)
        texts |= dict.fromkeys(reader.id_to_piece(i) for i in range(3, len(reader)))
    # A piece of the source that the vocabulary lacks, and one that only it has.
    del texts[next(text for text in reversed(texts) if len(text) > 1)]
    tokens = [*texts, "你好", *(f">>{code}<<" for code in codes), "<pad>"]
    write(folder, "vocab.json", {token: i for i, token in enumerate(tokens)})
    settings = {"source_lang": "en", "target_lang": "de"}
    write(folder, "tokenizer_config.json", settings)
    write(folder, "config.json", {"model_type": "marian"})


@pytest.mark.filterwarnings("ignore:Recommended. pip install sacremoses")
@pytest.mark.parametrize("codes", [(), ("deu", "fra")])
def test_marian_reads_with_one_file_and_writes_with_the_other(codes, tmp_path):
    marian(tmp_path, *codes)
    ours = load_tokenizer(tmp_path)
    ours.save(tmp_path / "saved")
    again = load_tokenizer(tmp_path / "saved")
    write(tmp_path / "saved", "config.json", {"model_type": "marian"})
    front = ">>fra<<" if codes else ""
    for folder in (tmp_path, tmp_path / "saved"):
        oracle = transformers.AutoTokenizer.from_pretrained(folder)
        assert type(oracle).__name__ == "MarianTokenizer"
        for text in [*TEXTS, *GERMAN]:
            both = oracle(front + text, text_target=text)
            for tokenizer in (ours, again):
                assert tokenizer.encode_input(front + text).ids == both.input_ids, text
                assert tokenizer.encode_target(text) == both.labels, text
                told = oracle.decode(both.labels, skip_special_tokens=True)
                assert tokenizer.decode(both.labels).strip() == told, text
    if codes:
        assert ours.encode_input("a", target_lang="fra") == ours.encode_input(">>fra<<a")
        assert ours.language_id("fra") == ours.encode_input(">>fra<<a").ids[0]


def test_special_tokens_of_a_text_stay_text_for_marian(tmp_path):
    marian(tmp_path)
    ours = load_tokenizer(tmp_path)
    assert ours.encode_input("a </s> b <unk> <pad>").ids.count(0) == 1
    assert ours.decode(ours.encode_target("a </s> b")) == "a </s> b"


# Varied in length, script, case, numbers, punctuation and spaces.
SENTENCES = [f"{a} {i} {b}" for i, (a, b) in enumerate(
    (a, b) for a in TEXTS[:10] for b in (*TEXTS[4:13], "x" * 120)
)]  # fmt: skip


@pytest.mark.weights
def test_minilm_reads_what_it_reads_in_transformers():
    folder = weights.minilm()
    ours = load_tokenizer(folder)
    oracle = transformers.AutoTokenizer.from_pretrained(folder)
    assert len(SENTENCES) == 100
    for text, pair in zip(SENTENCES, reversed(SENTENCES), strict=True):
        # The file asks to cut texts at 128 tokens and to fill up shorter ones: neither is done.
        for texts in ((text,), (text, pair)):
            expected = oracle(*texts, return_token_type_ids=True)
            assert ours.encode_input(*texts).ids == expected.input_ids
            assert ours.encode_input(*texts).segments == expected.token_type_ids
    long = "the bank opens " * 300
    assert len(ours.encode_input(long).ids) == 902
    assert (
        ours.role_id("cls"),
        ours.role_id("sep"),
        ours.role_id("mask"),
        ours.role_id("pad"),
    ) == (101, 102, 103, 0)
