"""The kinds of tokenizers: what a folder's class or model type means for its files and roles."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import tokenizers

from lmwright.formats.settings import Settings
from lmwright.tokenizer.huggingface import pieces, vocabulary_files
from lmwright.tokenizer.huggingface.settings import TokenizerFolder, read_settings
from lmwright.tokenizer.translation import MBART50_LANGUAGES, MBART_LANGUAGES, CodePlace


@dataclass(frozen=True)
class TokenizerKind:
    """A class of tokenizers as Hugging Face names them."""

    # The files it can be built from where there is no tokenizer.json.
    files: tuple[str, ...]
    # None: Marian's, which is never one tokenizer.json.
    build: Callable[[TokenizerFolder], tokenizers.Tokenizer] | None
    # The special tokens of folders that name none.
    roles: Mapping[str, str]
    # The model types whose folders mean it where they name no class.
    model_types: tuple[str, ...] = ()
    # Whether its models want to know which of two texts a token is of.
    has_segments: bool = False
    # Of a translation model: where a language's code stands, and the codes.
    languages: tuple[CodePlace, tuple[str, ...]] | None = None

    @property
    def vocabulary(self) -> str:
        """The one of its files in which its tokens have their ids."""
        return "vocab.json" if "vocab.json" in self.files else self.files[0]


def _roles(**tokens: str) -> dict[str, str]:
    return {f"{role}_token": token for role, token in tokens.items()}


BERT_ROLES = _roles(unk="[UNK]", sep="[SEP]", pad="[PAD]", cls="[CLS]", mask="[MASK]")
GPT2_ROLES = _roles(bos="<|endoftext|>", eos="<|endoftext|>", unk="<|endoftext|>")
MBART50_ROLES = _roles(eos="</s>", sep="</s>", cls="<s>", unk="<unk>", pad="<pad>", mask="<mask>")
FAIRSEQ_ROLES = {"bos_token": "<s>", **MBART50_ROLES}
T5_ROLES = _roles(eos="</s>", unk="<unk>", pad="<pad>")
LLAMA_ROLES = _roles(bos="<s>", eos="</s>", unk="<unk>")
GEMMA_ROLES = _roles(bos="<bos>", eos="<eos>", unk="<unk>", pad="<pad>")

WORDS = ("vocab.txt",)
BYTES = ("vocab.json", "merges.txt")
FAIRSEQ = ("sentencepiece.bpe.model",)


def _mbart(
    place: CodePlace, languages: tuple[str, ...], roles: Mapping[str, str], *model_types: str
) -> TokenizerKind:
    build = partial(pieces.mbart, languages=languages)
    return TokenizerKind(FAIRSEQ, build, roles, model_types, languages=(place, languages))


KINDS = {
    "BertTokenizer": TokenizerKind(
        WORDS, vocabulary_files.word_piece, BERT_ROLES, ("bert",), has_segments=True
    ),
    "DistilBertTokenizer": TokenizerKind(
        WORDS, vocabulary_files.word_piece, BERT_ROLES, ("distilbert",)
    ),
    "GPT2Tokenizer": TokenizerKind(BYTES, vocabulary_files.gpt2, GPT2_ROLES, ("gpt2",)),
    "RobertaTokenizer": TokenizerKind(BYTES, vocabulary_files.roberta, FAIRSEQ_ROLES, ("roberta",)),
    "BartTokenizer": TokenizerKind(BYTES, vocabulary_files.roberta, FAIRSEQ_ROLES, ("bart",)),
    "T5Tokenizer": TokenizerKind(("spiece.model",), pieces.t5, T5_ROLES, ("t5", "mt5")),
    "XLMRobertaTokenizer": TokenizerKind(
        FAIRSEQ, pieces.xlm_roberta, FAIRSEQ_ROLES, ("xlm-roberta",)
    ),
    "MBartTokenizer": _mbart("behind", MBART_LANGUAGES, FAIRSEQ_ROLES, "mbart"),
    "MBart50Tokenizer": _mbart("before", MBART50_LANGUAGES, MBART50_ROLES),
    "LlamaTokenizer": TokenizerKind(
        ("tokenizer.model",), pieces.llama, LLAMA_ROLES, ("llama", "mistral")
    ),
    "GemmaTokenizer": TokenizerKind(
        ("tokenizer.model",), pieces.gemma, GEMMA_ROLES, ("gemma", "gemma2", "gemma3_text")
    ),
    "MarianTokenizer": TokenizerKind(
        ("source.spm", "target.spm", "vocab.json"), None, T5_ROLES, ("marian",)
    ),
}
# For folders that name no class. Those of a model type that is missing here must name one.
MODEL_TYPES = {type_: name for name, kind in KINDS.items() for type_ in kind.model_types}


def kind_name(folder: Path, settings: Settings) -> str | None:
    """Return the name in KINDS of a folder's tokenizer, or None where it is of no known kind."""
    config = read_settings(folder / "config.json")
    named = settings.text("tokenizer_class") or config.text("tokenizer_class")
    if named is None:
        named = MODEL_TYPES.get(config.text("model_type", ""), "")
    name = named.removesuffix("Fast")
    return name if name in KINDS else None
