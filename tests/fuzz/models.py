"""The whole models that the fuzz test damages: one for each way in which files can be read."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import sentencepiece
import torch
from safetensors.torch import load_file

from conftest import CORPUS, build_tokenizer
from families import ROPES, VARIANTS
from lmwright.compression.config import Compress
from lmwright.compression.folder import compress_folder
from lmwright.formats.safetensors_folder import write_weights
from lmwright.formats.sentence_transformers import Pooling, write_pooling
from lmwright.model.checkpoint import save, save_gguf
from lmwright.model.families import family
from lmwright.model.families.config_json import model_config
from lmwright.model.transformer import DecoderLM
from lmwright.tokenizer.gguf.writer import gguf_metadata

TEMPLATE = (
    "{% for m in messages %}{% if m.role == 'system' and loop.index > 1 %}"
    "{{ raise_exception('a system message comes first') }}{% endif %}"
    "{{ '<|im_start|>' ~ m['role'] ~ '\\n' ~ m['content'] | trim ~ '<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def build(folder: Path) -> None:
    """Write all of them below a folder, each under its name."""
    torch.manual_seed(0)
    for name, make in MODELS.items():
        make(folder / name)


def variant(name: str, path: Path, *, dtype: torch.dtype = torch.float32, **changes: Any) -> Any:
    """Write a model of tests/families.py with random weights; return it."""
    kind = family(VARIANTS[name].family)
    settings = {**VARIANTS[name].settings, **changes}
    if "num_labels" in settings:
        settings["id2label"] = {str(i): text for i, text in settings["id2label"].items()}
    heads = {row: head for head, row in kind.architectures.items()}
    wanted = VARIANTS[name].shows.get("head", next(iter(heads.values())))
    settings.setdefault("architectures", [kind.architectures[wanted]])
    model = kind.assembly(model_config(kind, settings))
    path.mkdir(parents=True, exist_ok=True)
    save(model, path, dtype)
    return model


def bytes_json(path: Path) -> None:
    """Add a byte-level tokenizer.json with a chat template."""
    tokenizer = build_tokenizer()
    tokenizer.save(path)
    (path / "chat_template.jinja").write_text(TEMPLATE)
    roles = {"bos_token": "<|im_start|>", "eos_token": {"content": "<|im_end|>"}}
    put(path / "special_tokens_map.json", roles)
    ends = {"eos_token_id": [2, 0], "bos_token_id": 1, "temperature": 0.7, "top_k": 50}
    put(path / "generation_config.json", ends)


def bytes_files(path: Path) -> None:
    """Add GPT-2's two files, and what is told of added tokens."""
    whole = build_tokenizer()
    with whole._as_saved() as backend:
        backend.model.save(str(path))
    put(path / "added_tokens.json", {"<one>": 300})
    decoder = {"300": {"content": "<one>", "special": True}, "0": {"content": "<|endoftext|>"}}
    templates = [{"name": "default", "template": TEMPLATE}, {"name": "tool_use", "template": ""}]
    settings = {
        "tokenizer_class": "GPT2Tokenizer", "added_tokens_decoder": decoder,
        "chat_template": templates, "additional_special_tokens": ["<one>"],
        "model_max_length": 1024,
    }  # fmt: skip
    put(path / "tokenizer_config.json", settings)


def pieces(path: Path, name: str, kind: str, *, size: int = 300, **options: Any) -> None:
    """Add a SentencePiece file that the library trained."""
    sentencepiece.set_min_log_level(2)
    with (path / name).open("wb") as file:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(CORPUS * 20), model_writer=file, model_type=kind,
            vocab_size=size, hard_vocab_limit=False, **options,
        )  # fmt: skip


def put(path: Path, value: object) -> None:
    path.write_text(json.dumps(value))


def llama(path: Path) -> None:
    variant("llama-llama3", path, dtype=torch.bfloat16)
    bytes_json(path)


def qwen3_shards(path: Path) -> None:
    variant("qwen3-windows", path)
    tensors = load_file(path / "model.safetensors")
    write_weights(tensors, path, max_shard_bytes=150_000)
    bytes_json(path)


def packed(path: Path) -> None:
    source = path.with_name("source")
    variant("llama-tied", source, hidden_size=64, intermediate_size=64)
    bytes_json(source)
    compress_folder(source, Compress(model="x", method="int4", group_size=32), path)


def gpt2(path: Path) -> None:
    variant("gpt2", path, vocab_size=301)
    bytes_files(path)


def gemma3(path: Path) -> None:
    variant("gemma3-linear", path, vocab_size=400, pad_token_id=0, eos_token_id=[1, 2])
    names = {"pad_id": 0, "eos_id": 1, "bos_id": 2, "unk_id": 3, "pad_piece": "<pad>"}
    names |= {"eos_piece": "<eos>", "bos_piece": "<bos>"}
    pieces(path, "tokenizer.model", "bpe", size=350, byte_fallback=True, **names)
    settings = {"tokenizer_class": "GemmaTokenizer", "chat_template": "{{ bos_token }}" + TEMPLATE}
    put(path / "tokenizer_config.json", settings)


def phi3(path: Path) -> None:
    changes = {"rope_scaling": {"type": "su", **ROPES["longrope"]}, "rope_parameters": None}
    del changes["rope_scaling"]["rope_type"]
    variant("phi3-longrope", path, **changes)
    bytes_json(path)


def words(path: Path) -> None:
    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    found = sorted({word.strip(".,?").lower() for text in CORPUS for word in text.split()})
    letters = [c for letter in "abcdefghijklmnopqrstuvwxyz.,?" for c in (letter, f"##{letter}")]
    tokens = dict.fromkeys([*specials, *found, *letters])
    (path / "vocab.txt").write_text("\n".join(tokens) + "\n")
    put(path / "tokenizer_config.json", {"do_lower_case": True, "tokenizer_class": "BertTokenizer"})


def bert_embeds(path: Path) -> None:
    model = variant("bert-none", path)
    words(path)
    pooling = Pooling(("mean",), is_normalized=True, max_tokens=32, prompt="query: ")
    write_pooling(path, pooling, d_model=model.config.d_model)


def bert_classifies(path: Path) -> None:
    variant("bert-sequence", path)
    words(path)


def distilbert(path: Path) -> None:
    variant("distilbert-tokens", path)
    words(path)


def t5(path: Path) -> None:
    variant("t5-v1.1", path, tie_word_embeddings=True)
    names = {"pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1, "pad_piece": "<pad>"}
    pieces(path, "spiece.model", "unigram", size=120, **names)
    put(path / "tokenizer_config.json", {"tokenizer_class": "T5Tokenizer", "extra_ids": 0})


def bart(path: Path) -> None:
    variant("bart", path, vocab_size=301, decoder_start_token_id=2, forced_bos_token_id=0)
    bytes_files(path)
    roles = {"eos_token": "<|im_end|>", "bos_token": "<|im_start|>", "unk_token": "<|endoftext|>"}
    roles |= {"sep_token": "<|im_end|>", "cls_token": "<|im_start|>", "pad_token": "<one>"}
    roles |= {"mask_token": "<|endoftext|>", "tokenizer_class": "BartTokenizer"}
    put(path / "tokenizer_config.json", roles)


def marian(path: Path) -> None:
    variant("marian", path)
    names = {"eos_id": 0, "unk_id": 1, "bos_id": -1, "pad_id": -1}
    tokens = {"</s>": 0, "<unk>": 1, ">>deu<<": 2}
    for name in ("source.spm", "target.spm"):
        pieces(path, name, "unigram", size=80, **names)
        model = sentencepiece.SentencePieceProcessor(str(path / name))
        for i in range(model.get_piece_size()):
            tokens.setdefault(model.id_to_piece(i), len(tokens))
    tokens |= {f"<unused{i}>": i for i in range(len(tokens), 299)}
    put(path / "vocab.json", {**tokens, "<pad>": 299})
    put(path / "tokenizer_config.json", {"source_lang": "eng", "target_lang": "deu"})


def bytes_gguf(path: Path) -> None:
    model = variant("llama-3.1", path.with_name("for-gguf"))
    tokenizer = build_tokenizer()
    metadata = gguf_metadata(tokenizer) | {"tokenizer.chat_template": TEMPLATE}
    save_gguf(model, path, type_name="Q8_0", tokenizer_metadata=metadata, name="tiny")


def pieces_gguf(path: Path) -> None:
    folder = path.with_name("for-gguf-pieces")
    # Written by hand: the kind of file that converters of llama.cpp make, with scores.
    model = variant("gemma3", folder, vocab_size=271)
    texts = ["<pad>", "<eos>", "<bos>", "<unk>", *(f"<0x{byte:02X}>" for byte in range(256))]
    texts += ["\u2581", *"abcdef", "\u2581a", "ab", "<end_of_turn>", "\u2581b"]
    fields = {
        "model": "llama", "tokens": texts, "bos_token_id": 2, "eos_token_id": 1,
        "scores": [0.0] * 260 + [-float(i) for i in range(len(texts) - 260)],
        "token_type": [3, 3, 3, 2] + [6] * 256 + [1] * 9 + [3, 1], "add_bos_token": True,
        "unknown_token_id": 3, "padding_token_id": 0, "add_space_prefix": False,
    }  # fmt: skip
    metadata = {f"tokenizer.ggml.{key}": value for key, value in fields.items()}
    metadata["tokenizer.chat_template"] = "{{ bos_token }}" + TEMPLATE
    assert isinstance(model, DecoderLM)
    save_gguf(model, path, type_name="F16", tokenizer_metadata=metadata, name="tiny")


MODELS: dict[str, Callable[[Path], None]] = {
    "llama": llama,
    "qwen3": qwen3_shards,
    "packed": packed,
    "gpt2": gpt2,
    "gemma3": gemma3,
    "phi3": phi3,
    "bert-embeds": bert_embeds,
    "bert-classifies": bert_classifies,
    "distilbert": distilbert,
    "t5": t5,
    "bart": bart,
    "marian": marian,
    "bytes.gguf": bytes_gguf,
    "pieces.gguf": pieces_gguf,
}
