"""Tokenizers of each kind that llama.cpp has, learnt in process, and texts for their rules."""

import re

import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

from lmwright.tokenizer.encode import Tokenizer
from lmwright.tokenizer.gguf.reader import SplitRules, gguf_tokenizer

SPECIALS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
PHI3 = ["<|endoftext|>", "<|user|>", "<|end|>"]
CHATML = (
    "{{ bos_token }}{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + "
    "message['content'] + '<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
PIECES = [
    "Hello", " world", "don't", " We'LL", "\u00fcber", " na\u00efve", "\u4f60\u597d",
    " \u043f\u0440\u0438", "\u0645\u0631\u062d\u0628\u0627", " 3", "42", "1234567", " 3.14",
    "\u0664\u0662", "\u00bd", "\u2167", " ", "  ", "   ", "\n", "\n\n", "\t", "\r\n", " \n ",
    "\u00a0", "\u3000", "\u200b", "def f(x):\n    return x**2\n", "{'k': [1, 2]}", "\U0001f642",
    "\U0001f469\u200d\U0001f4bb", "!?", "...", " --", "\u2014", "/path/to", "http://x.org/a?b=1",
    "<not special>", "a" * 30, "_snake_case", "CamelCase", "ABC",
]  # fmt: skip
# What llama.cpp does not do for each tokenizer: join combining characters to letters, and take
# capitals beyond A to Z for what they are.
MARKS = ["e\u0301", " cafe\u0301s", "\u0939\u093f\u0928\u094d\u0926\u0940"]
CAPITALS = ["\u00c9COLE \u00c0 la"]
TEXTS = [
    *PIECES,
    *("".join(pair) for pair in zip(PIECES, PIECES[7:] + PIECES[:7], strict=True)),
    *("".join(pair) for pair in zip(PIECES, PIECES[::-1], strict=True)),
    " ".join(PIECES),
    *(f"{special}{piece}{special}" for special in SPECIALS for piece in ("x", " y", "\n")),
]


def byte_level(rules: SplitRules, *, n_tokens: int = 700) -> Tokenizer:
    """BPE learnt without splitting, so that merges reach over the places where rules split."""
    backend = tokenizers.Tokenizer(models.BPE(ignore_merges=rules.ignores_merges))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    trainer = trainers.BpeTrainer(
        vocab_size=n_tokens,
        special_tokens=SPECIALS,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    backend.train_from_iterator([*PIECES, *MARKS, *CAPITALS, " ".join(PIECES)], trainer)
    backend.pre_tokenizer = rules.split()
    backend.decoder = decoders.ByteLevel()
    if rules.composes:
        backend.normalizer = tokenizers.normalizers.NFC()
    # Not a control token: llama.cpp, too, finds it in all text.
    backend.add_tokens([tokenizers.AddedToken("<think>", normalized=False)])
    roles = {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>"}
    return Tokenizer(backend, special_tokens=roles, chat_template=CHATML)


def sentencepiece(*, has_prefix: bool, is_phi3: bool = False) -> Tokenizer:
    """Llama 2's, Gemma's or Phi-3's kind, from a vocabulary with scores in the order of merges."""
    backend = tokenizers.Tokenizer(models.BPE())
    scheme = "always" if has_prefix else "never"
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme, split=False)
    trainer = trainers.BpeTrainer(vocab_size=500, show_progress=False)
    backend.train_from_iterator([re.sub(r"[\n\t]", " ", text) for text in TEXTS[:-9]], trainer)
    learnt = sorted(backend.get_vocab().items(), key=lambda item: item[1])
    heads = ["<unk>", "<s>", "</s>", *(PHI3 if is_phi3 else ["\n\n", "  ", "<b>"])]
    tokens = [*heads, *(f"<0x{i:02X}>" for i in range(256)), *(t for t, _ in learnt)]
    tokens = list(dict.fromkeys(tokens))
    metadata = {
        "model": "llama",
        "tokens": tokens,
        "token_type": [2, 3, 3, *([3] * 3 if is_phi3 else [4] * 3)]
        + [6] * 256
        + [1] * (len(tokens) - 262),
        "scores": [0.0] * 262 + [-float(i) for i in range(len(tokens) - 262)],
        "unknown_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "add_space_prefix": has_prefix,
    }
    metadata = {f"tokenizer.ggml.{name}": value for name, value in metadata.items()}
    return gguf_tokenizer({**metadata, "general.name": "Phi-3" if is_phi3 else "x"})
