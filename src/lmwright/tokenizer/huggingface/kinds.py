"""The kinds of tokenizers: what a folder's class or model type means for its files and roles."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tokenizers

from lmwright.tokenizer.huggingface import pieces, vocabulary_files
from lmwright.tokenizer.settings import read_settings

Build = Callable[[Path, Mapping[str, Any], Mapping[str, str]], tokenizers.Tokenizer]


@dataclass(frozen=True)
class Kind:
    """A class of tokenizers as Hugging Face names them."""

    # The files it can be built from where there is no tokenizer.json.
    files: tuple[str, ...]
    # None: Marian's, which is never one tokenizer.json.
    build: Build | None
    # The special tokens of folders that name none.
    roles: Mapping[str, str]
    # Whether its models want to know which of two texts a token is of.
    has_segments: bool = False


BERT_ROLES = {
    "unk_token": "[UNK]",
    "sep_token": "[SEP]",
    "pad_token": "[PAD]",
    "cls_token": "[CLS]",
    "mask_token": "[MASK]",
}
GPT2_ROLES: dict[str, str] = dict.fromkeys(("bos_token", "eos_token", "unk_token"), "<|endoftext|>")
FAIRSEQ_ROLES = {
    "bos_token": "<s>",
    "eos_token": "</s>",
    "sep_token": "</s>",
    "cls_token": "<s>",
    "unk_token": "<unk>",
    "pad_token": "<pad>",
    "mask_token": "<mask>",
}
MBART50_ROLES = {role: token for role, token in FAIRSEQ_ROLES.items() if role != "bos_token"}
T5_ROLES = {"eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}
LLAMA_ROLES = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
GEMMA_ROLES = {
    "bos_token": "<bos>",
    "eos_token": "<eos>",
    "unk_token": "<unk>",
    "pad_token": "<pad>",
}

WORDS = ("vocab.txt",)
BYTES = ("vocab.json", "merges.txt")
FAIRSEQ = ("sentencepiece.bpe.model",)

KINDS = {
    "BertTokenizer": Kind(WORDS, vocabulary_files.word_piece, BERT_ROLES, has_segments=True),
    "DistilBertTokenizer": Kind(WORDS, vocabulary_files.word_piece, BERT_ROLES),
    "GPT2Tokenizer": Kind(BYTES, vocabulary_files.gpt2, GPT2_ROLES),
    "RobertaTokenizer": Kind(BYTES, vocabulary_files.roberta, FAIRSEQ_ROLES),
    "BartTokenizer": Kind(BYTES, vocabulary_files.roberta, FAIRSEQ_ROLES),
    "T5Tokenizer": Kind(("spiece.model",), pieces.t5, T5_ROLES),
    "XLMRobertaTokenizer": Kind(FAIRSEQ, pieces.xlm_roberta, FAIRSEQ_ROLES),
    "MBartTokenizer": Kind(FAIRSEQ, pieces.mbart, FAIRSEQ_ROLES),
    "MBart50Tokenizer": Kind(FAIRSEQ, pieces.mbart50, MBART50_ROLES),
    "LlamaTokenizer": Kind(("tokenizer.model",), pieces.llama, LLAMA_ROLES),
    "GemmaTokenizer": Kind(("tokenizer.model",), pieces.gemma, GEMMA_ROLES),
    "MarianTokenizer": Kind(("source.spm", "target.spm", "vocab.json"), None, T5_ROLES),
}
# For folders that name no class. Those of a model type that is missing here must name one.
MODEL_TYPES = {
    "bert": "BertTokenizer",
    "distilbert": "DistilBertTokenizer",
    "gpt2": "GPT2Tokenizer",
    "roberta": "RobertaTokenizer",
    "bart": "BartTokenizer",
    "t5": "T5Tokenizer",
    "mt5": "T5Tokenizer",
    "xlm-roberta": "XLMRobertaTokenizer",
    "mbart": "MBartTokenizer",
    "marian": "MarianTokenizer",
    "llama": "LlamaTokenizer",
    "mistral": "LlamaTokenizer",
    "gemma": "GemmaTokenizer",
    "gemma2": "GemmaTokenizer",
    "gemma3_text": "GemmaTokenizer",
}


def kind_name(folder: Path, settings: Mapping[str, Any]) -> str | None:
    """Return the name in KINDS of a folder's tokenizer, or None where it is of no known kind."""
    config = read_settings(folder / "config.json")
    named = settings.get("tokenizer_class") or config.get("tokenizer_class")
    if named is None:
        named = MODEL_TYPES.get(str(config.get("model_type")))
    name = str(named).removesuffix("Fast")
    return name if name in KINDS else None
