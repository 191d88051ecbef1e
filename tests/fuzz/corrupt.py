"""Damage one file of a model: in its structure, in what it says, and in its bytes."""

import copy
import json
import struct
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

from lmwright.formats.gguf import SCALARS, open_gguf

# Values that none of a model's settings is meant to have, or not where they are put.
HOSTILE: list[Any] = [
    None, True, False, 0, 1, -1, 2, 3.5, -0.0, 1e308, float("inf"), float("nan"), 2**31, 2**32 - 1,
    2**63, -(2**63), 2**64, 10**40, "", "x", "2", "\ud800", "\0", "a" * 100_000, "\ufffd", [], [[]],
    {}, [{}], [None], [1, "2", None], {"a": []}, {"content": 3}, {"__type": "AddedToken"}, [-1],
    [2, 2, 2], [[1, 2], [3]], ["x"] * 50, list(range(2000)), [[[[[[[[[[]]]]]]]]]], "re:(a+)+$",
    "../../etc/passwd", "/dev/zero", "float32", "{{ 1 / 0 }}", "nan", [0.5] * 4, 10**9, 1e-320,
]  # fmt: skip
# Keys that a reader looks for, whether or not the file had them.
KEYS = {
    "config.json": [
        "eos_token_id", "bos_token_id", "pad_token_id", "bad_words_ids", "decoder_start_token_id",
        "forced_bos_token_id", "quantization_config", "rope_scaling", "rope_parameters",
        "rope_theta", "layer_types", "id2label", "num_labels", "problem_type", "architectures",
        "model_type", "tokenizer_class", "auto_map", "sliding_window", "head_dim", "torch_dtype",
        "partial_rotary_factor", "attention_bias", "tie_word_embeddings", "hidden_act", "n_inner",
        "sliding_window_pattern", "max_window_layers", "use_sliding_window", "scale_embedding",
        "query_pre_attn_scalar", "rope_local_base_freq", "original_max_position_embeddings",
        "attn_logit_softcapping", "feed_forward_proj", "temperature", "hidden_size",
    ],
    "generation_config.json": [
        "eos_token_id", "bos_token_id", "pad_token_id", "bad_words_ids", "decoder_start_token_id",
        "forced_bos_token_id", "temperature", "top_p", "top_k", "repetition_penalty", "do_sample",
    ],
    "tokenizer_config.json": [
        "tokenizer_class", "chat_template", "added_tokens_decoder", "bos_token", "eos_token",
        "unk_token", "pad_token", "cls_token", "sep_token", "mask_token", "model_max_length",
        "model_input_names", "additional_special_tokens", "do_lower_case", "strip_accents",
        "tokenize_chinese_chars", "src_lang", "tgt_lang", "source_lang", "separate_vocabs",
        "add_prefix_space", "legacy", "add_bos_token", "add_eos_token", "extra_ids",
    ],
    "special_tokens_map.json": ["bos_token", "eos_token", "pad_token", "unk_token"],
    "tokenizer.json": [
        "truncation", "padding", "added_tokens", "normalizer", "pre_tokenizer", "post_processor",
        "decoder", "model", "version",
    ],
    "config_sentence_transformers.json": ["prompts", "default_prompt_name"],
    "sentence_bert_config.json": ["max_seq_length", "do_lower_case"],
}  # fmt: skip
GGUF_KEYS = [
    *(f"tokenizer.ggml.{role}_token_id" for role in ("bos", "eos", "eot", "eom", "unknown")),
    *("tokenizer.ggml.padding_token_id", "tokenizer.ggml.tokens", "tokenizer.ggml.token_type"),
    *("tokenizer.ggml.scores", "tokenizer.ggml.merges", "tokenizer.ggml.pre"),
    *("tokenizer.ggml.model", "tokenizer.ggml.add_bos_token", "tokenizer.ggml.add_eos_token"),
    *("tokenizer.ggml.add_space_prefix", "tokenizer.chat_template", "general.alignment"),
    *("general.name", "general.architecture", "general.file_type"),
    *("ARCH.rope.freq_base", "ARCH.rope.scaling.type", "ARCH.rope.scaling.factor"),
    *("ARCH.rope.scaling.original_context_length", "ARCH.rope.scaling.attn_factor"),
    *("ARCH.attention.sliding_window", "ARCH.attention.key_length", "ARCH.attention.head_count_kv"),
    *("ARCH.rope.dimension_count", "ARCH.attention.value_length", "ARCH.context_length"),
]
# Chat templates that eat time or memory, leave the sandbox, or speak of what is not there.
TEMPLATES = [
    "{{ '{:>6000000000}'.format(1) }}",
    "{{ '%6000000000d' % 1 }}",
    "{{ '{:.6000000000f}'.format(0.1) }}",
    "{{ '{0:{1}}'.format(1, 6000000000) }}",
    "{{ '{a:>{w}}'.format_map({'a': 1, 'w': 5000000000}) }}",
    "{{ 'x'.ljust(6000000000) }}", "{{ 'x'.center(6000000000) }}", "{{ 'x'.zfill(6000000000) }}",
    "{{ '\t' * 9000 | string }}{{ ('\t' * 90000).expandtabs(90000) }}",
    "{{ 'a' | center(6000000000) }}", "{{ 'a' | indent(6000000000) }}",
    "{{ 'x' * 9000000000 }}", "{{ [0] * 900000000 }}", "{{ 10 ** 10 ** 10 }}",
    "{{ (9 ** 9 ** 9) | string | length }}",
    "{% for i in range(90000) %}{% for j in range(90000) %}{% endfor %}{% endfor %}",
    "{% for i in range(90000) %}{% for j in range(90000) %}x{% endfor %}{% endfor %}",
    "{% set ns = namespace(s='ab') %}{% for i in range(60) %}{% set ns.s = ns.s + ns.s %}"
    "{% endfor %}{{ ns.s }}",
    "{% set ns = namespace(s='ab') %}{% for i in range(60) %}{% set ns.s = ns.s ~ ns.s %}"
    "{% endfor %}{{ ns.s }}",
    "{% set ns = namespace(s='ab') %}{% for i in range(60) %}{% set ns.s = ns.s.replace('a', "
    "ns.s) %}{% endfor %}{{ ns.s }}",
    "{% set ns = namespace(s='ab') %}{% for i in range(60) %}{% set ns.s = ns.s.join([ns.s] * 9) %}"
    "{% endfor %}{{ ns.s }}",
    "{% set ns = namespace(s=[1]) %}{% for i in range(60) %}{% set ns.s = ns.s + ns.s %}"
    "{% endfor %}",
    "{% set ns = namespace(n=9) %}{% for i in range(60) %}{% set ns.n = ns.n * ns.n %}{% endfor %}"
    "{{ ns.n }}",
    "{% macro f(n) %}{{ f(n + 1) }}{% endmacro %}{{ f(0) }}",
    "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(60) }}",
    "{% for i in messages recursive %}{{ loop(messages) }}{% endfor %}",
    "{{ range(99999) | list | batch(1) | list | tojson(indent=1000) }}",
    "{{ range(99999) | map('string') | join('x' * 90000) }}",
    "{{ range(900000000) | sum }}", "{{ lipsum(n=100000) }}", "{{ ('a' * 99999) | wordwrap(1) }}",
    "{{ ''.__class__.__mro__[1].__subclasses__() }}", "{{ self.__init__.__globals__ }}",
    "{{ messages.__class__ }}", "{% include 'x' %}", "{% import 'os' as os %}", "{{ 1 / 0 }}",
    "{% generation %}{{ messages[0].content }}{% endgeneration %}", "{% generation %}",
    "{{ cycler(*range(99999)) }}", "{{ joiner('x' * 900000000) }}", "{{ tools | length }}",
    "{{ messages | tojson(true, 2) }}", "{{ undefined_thing.x.y }}", "{{ messages[5].role }}",
    "{% for m in messages %}{{ m.content.x.y }}{% endfor %}", "{{ strftime_now('%Y' * 100000) }}",
    "{{ 'a' * 20000000 }}{{ 'a' * 20000000 }}", "{{ raise_exception('no') }}", "{{", "{% if %}", "",
    "{{ ('a' * 19999999) | urlize }}", "{{ ('a' * 9999999 ~ '!') | regex }}", "{{ '\ud800' }}",
    "{% set x %}{% for i in range(99999) %}{{ 'y' * 9999 }}{% endfor %}{% endset %}{{ x }}",
    "{% filter upper %}{% for i in range(99999) %}{{ 'y' * 9999 }}{% endfor %}{% endfilter %}",
    "{{ messages | map(attribute='content') | join | list | sort | groupby('x') }}",
    "{{ 'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa!' | striptags }}", "{{ dict(a=1) | xmlattr }}",
    "{{ ('<' * 200000) | striptags | length }}", "{{ ('<!--' * 99999) | striptags }}",
    "{{ range(99999) | list | tojson | length }}", "{{ '%s' * 9999 % (('a' * 9999,) * 9999) }}",
    "{{ ['a' * 9999999] * 9999999 }}", "{{ ['a' * 999999] * 9999 | join }}",
    "{{ 'a'.encode('x' * 999) }}", "{{ (['a' * 999999] * 9999) | join }}", "{{ 5 // 0 }}",
    "{{ 2 << 90000000000 }}", "{{ 'a' in 'b' * 19999999 }}", "{{ 1.5 | round(400) }}",
    "{{ '9' * 99999 | int }}", "{{ ('9' * 99999) | int }}", "{{ ('9' * 99999) | float }}",
]  # fmt: skip
TOKEN = "unk_token eos_token messages range namespace loop content ~ | + * % {{ }} {% %} - ( ) [ ]"


def damage(folder: Path, model: Path, random: Random) -> tuple[Path, str]:
    """Copy a model into a folder with one file damaged; return it, and what was done."""
    copied = folder / model.name
    if model.is_file():
        data = gguf(model, random) if random.random() < 0.8 else raw(model.read_bytes(), random)
        copied.write_bytes(data[0])
        return copied, data[1]
    files = sorted(path for path in model.rglob("*") if path.is_file())
    weights = [3 if path.suffix in (".json", ".jinja") else 1 for path in files]
    (victim,) = random.choices(files, weights)
    for path in files:
        place = copied / path.relative_to(model)
        place.parent.mkdir(parents=True, exist_ok=True)
        if path != victim:
            place.hardlink_to(path)
    place = copied / victim.relative_to(model)
    done = remove(place, random) if random.random() < 0.02 else None
    if done is None:
        data, done = ways(victim)(victim, random)
        place.write_bytes(data)
    return copied, f"{victim.relative_to(model)}: {done}"


def ways(victim: Path) -> Callable[[Path, Random], tuple[bytes, str]]:
    if victim.suffix == ".jinja":
        return template
    if victim.suffix == ".json":
        return json_file
    if victim.suffix == ".safetensors":
        return safetensors
    return lambda path, random: raw(path.read_bytes(), random)


def remove(place: Path, random: Random) -> str:
    """Leave the file out, or put something else than a file in its place."""
    kind = random.choice(["missing", "a folder", "a broken link", "a link to itself"])
    if kind == "a folder":
        place.mkdir()
    elif kind != "missing":
        place.symlink_to("nowhere" if kind == "a broken link" else place.name)
    return kind


def json_file(path: Path, random: Random) -> tuple[bytes, str]:
    """Damage what a JSON file says, or how it says it."""
    data = path.read_bytes()
    kind = random.random()
    if kind < 0.12:
        return raw(data, random)
    value = json.loads(data)
    if kind < 0.4 and isinstance(value, dict) and path.name in KEYS:
        key, value = inserted(value, KEYS[path.name], random)
        return dumped(value), key
    if kind < 0.45 and isinstance(value, dict):
        return twice(value, random)
    told = []
    for _ in range(random.choice([1, 1, 1, 2, 4])):
        value, what = changed(value, random)
        told.append(what)
    return dumped(value), "; ".join(told)


def inserted(value: dict, keys: list[str], random: Random) -> tuple[str, dict]:
    key, new = random.choice(keys), random.choice(HOSTILE)
    if key == "chat_template" and random.random() < 0.7:
        new = random.choice(TEMPLATES)
    return f"{key} = {str(new)[:80]}", {**value, key: new}


def twice(value: dict, random: Random) -> tuple[bytes, str]:
    """Write a key twice, with two values."""
    key = random.choice(list(value) or ["x"])
    more = dumped(random.choice(HOSTILE)).decode("utf-8", "surrogatepass")
    text = f"{{{json.dumps(key)}: {more}, " + dumped(value).decode("utf-8", "surrogatepass")[1:]
    return text.encode("utf-8", "surrogatepass"), f"{key} twice"


def dumped(value: Any) -> bytes:
    return json.dumps(value).encode()


def changed(value: Any, random: Random) -> tuple[Any, str]:
    """Change a value somewhere inside, less often the deeper it lies."""
    at, place = "", copy.deepcopy({"": value})
    root, key = place, ""
    while True:
        inner = place[key]
        if not isinstance(inner, dict | list) or not inner or random.random() < 0.25:
            break
        keys = list(inner) if isinstance(inner, dict) else range(len(inner))
        place, key = inner, random.choice(keys)
        at += f".{str(key)[:30]}"
    what = operation(place, key, random)
    return root[""], f"{at or '.'} {what}"


def operation(place: Any, key: Any, random: Random) -> str:
    """Do one thing to place[key]; return what."""
    old = place[key]
    kind = random.choice(["hostile", "hostile", "near", "near", "delete", "wrap", "swap", "repeat"])
    if kind == "delete" and key != "":
        del place[key]
        return "deleted"
    if kind == "wrap":
        place[key] = random.choice([[old], {"x": old}, [[old]], str(old)[:1000]])
        return "wrapped"
    if kind == "swap" and key != "":
        other = random.choice(list(place) if isinstance(place, dict) else range(len(place)))
        place[key], place[other] = place[other], old
        return f"swapped with {str(other)[:30]}"
    if kind == "repeat" and isinstance(old, list | str) and len(old) < 100_000:
        place[key] = old + old
        return "repeated"
    if kind == "near":
        place[key] = near(old, random)
        return f"= {str(place[key])[:60]}"
    place[key] = copy.deepcopy(random.choice(HOSTILE))
    return f"= {str(place[key])[:60]}"


def near(old: Any, random: Random) -> Any:
    """Return what is almost the old value."""
    if isinstance(old, bool) or old is None:
        return random.choice([not old, str(old), int(bool(old))])
    if isinstance(old, int):
        return random.choice([old + 1, old - 1, -old, old * 2, old // 2, float(old), str(old)])
    if isinstance(old, float):
        return random.choice([-old, old * 10, 0.0, str(old)])
    if isinstance(old, str):
        cut = random.randrange(len(old) + 1)
        return random.choice([old[:cut], old + old[:cut], old.upper(), old + "\0", old[::-1]])
    if isinstance(old, list):
        cut = random.randrange(len(old) + 1)
        return random.choice([old[:cut], old[::-1], [*old, *old[:1]], dict(enumerate(old))])
    keys = list(old)
    random.shuffle(keys)
    return random.choice([keys, list(old.values()), {k: old[k] for k in keys[: len(keys) // 2]}])


def raw(data: bytes, random: Random) -> tuple[bytes, str]:
    """Damage bytes, mostly near the front, where headers are."""
    kind = random.choice(
        ["cut", "flip", "flip", "grow", "empty", "zeros", "text", "deep", "utf-16"]
    )
    if kind == "cut":
        cut = int(len(data) * random.random() ** 2)
        return data[:cut], f"cut at byte {cut}"
    if kind == "grow":
        more = data[: random.randrange(1, 5000)]
        return data + more, f"{len(more)} bytes more"
    if kind == "flip":
        changed, places = bytearray(data), []
        for _ in range(random.choice([1, 1, 2, 8, 64])):
            place = int(len(data) * random.random() ** 3)
            if place < len(changed):
                changed[place] = random.choice([0, 255, 1, 0x80, random.randrange(256)])
                places.append(place)
        return bytes(changed), f"bytes {places[:4]} changed"
    others = {
        "empty": b"", "zeros": bytes(len(data)), "text": b"<html>404 Not Found</html>",
        "deep": b"[" * 100_000, "utf-16": data.decode("utf-8", "replace").encode("utf-16"),
    }  # fmt: skip
    return others[kind], kind


def template(path: Path, random: Random) -> tuple[bytes, str]:
    """Put a hostile chat template in its place, or change words of the old one."""
    text = path.read_text()
    if random.random() < 0.75:
        text = random.choice(TEMPLATES)
        return text.encode("utf-8", "surrogatepass"), text[:90]
    for _ in range(random.choice([1, 2, 5])):
        place = random.randrange(len(text))
        text = text[:place] + random.choice(TOKEN.split()) + text[place + random.randrange(4) :]
    return text.encode(), f"words changed: {text[:90]}"


def safetensors(path: Path, random: Random) -> tuple[bytes, str]:
    """Damage the header as JSON, its length, or the bytes."""
    data = path.read_bytes()
    kind = random.random()
    if kind < 0.3:
        return raw(data, random)
    n = int.from_bytes(data[:8], "little")
    if kind < 0.4:
        length = random.choice([0, 1, n - 1, n + 1, 2**63, 2**64 - 1, len(data), 10**8, 10**9])
        return length.to_bytes(8, "little") + data[8:], f"header of {length}"
    header, what = json.loads(data[8 : 8 + n]), "weights"
    if kind < 0.9:
        header, what = changed(header, random)
        text = dumped(header)
    else:
        text, what = twice(header, random)
    return len(text).to_bytes(8, "little") + text + data[8 + n :], what


def gguf(path: Path, random: Random) -> tuple[bytes, str]:
    """Damage the metadata or the table of tensors of a GGUF, and write it whole again."""
    with open_gguf(path) as file:
        metadata = dict(file.metadata)
        tensors = [
            [t.name, list(reversed(t.shape)), t.type_name, t.offset] for t in file.tensors.values()
        ]
        start = min(t.offset for t in file.tensors.values())
        data = bytes(file.data[start:])
    for tensor in tensors:
        tensor[3] -= start
    arch, told = metadata["general.architecture"], []
    for _ in range(random.choice([1, 1, 1, 2, 3])):
        kind = random.random()
        if kind < 0.3:
            key = random.choice(GGUF_KEYS).replace("ARCH", arch)
            metadata[key] = random.choice([value for value in HOSTILE if encodable(value)])
            if key.endswith("chat_template") and random.random() < 0.7:
                metadata[key] = random.choice(TEMPLATES[:-1])
            told.append(f"{key} = {str(metadata[key])[:80]}")
        elif kind < 0.75:
            found, what = changed(metadata, random)
            if isinstance(found, dict):
                metadata = found
                told.append(what)
        else:
            found, what = changed(tensors, random)
            if isinstance(found, list):
                tensors = found
                told.append(f"tensors{what}")
    try:
        return write_gguf(metadata, tensors, data), "; ".join(told)
    except (TypeError, ValueError, AttributeError, struct.error, LookupError, OverflowError):
        return gguf(path, random)  # what cannot be written is no damaged file


def encodable(value: Any) -> bool:
    return value is not None and value != {} and not isinstance(value, dict)


def write_gguf(metadata: Any, tensors: Any, data: bytes) -> bytes:
    """Return a GGUF of version 3; each value gets the type that holds it."""
    parts = [b"GGUF", struct.pack("<IQQ", 3, len(tensors), len(metadata))]
    for key, value in metadata.items():
        parts += [text(key), struct.pack("<I", type_id(value)), encoded(value)]
    ids = {"F32": 0, "F16": 1, "Q4_0": 2, "Q8_0": 8}
    for name, dims, kind, offset in tensors:
        parts += [text(name), struct.pack("<I", len(dims))]
        parts += [struct.pack("<Q", dim) for dim in dims]
        parts.append(struct.pack("<IQ", ids.get(kind, kind), offset))
    header = b"".join(parts)
    return header + bytes(-len(header) % 32) + data


def text(value: str) -> bytes:
    found = value.encode("utf-8", "surrogatepass")
    return struct.pack("<Q", len(found)) + found


def type_id(value: Any) -> int:
    if isinstance(value, bool):
        return 7
    if isinstance(value, int):
        return 4 if 0 <= value < 2**32 else 11 if value < 0 else 10
    if isinstance(value, float):
        return 6 if abs(value) < 1e38 else 12
    return {str: 8, list: 9}[type(value)]


def encoded(value: Any) -> bytes:
    kind = type_id(value)
    if kind == 8:
        return text(value)
    if kind != 9:
        return SCALARS[kind].pack(value)
    kinds = {type_id(item) for item in value} or {8}
    if kinds <= {4, 10, 11}:
        kinds = {max(kinds)}
    if kinds <= {4, 6, 12, 10, 11} and len(kinds) > 1:
        kinds = {12}
    if len(kinds) > 1:  # mixed: as texts
        value, kinds = [str(item) for item in value], {8}
    (kind,) = kinds
    items = [SCALARS[kind].pack(item) if kind in SCALARS else encoded(item) for item in value]
    return struct.pack("<IQ", kind, len(value)) + b"".join(items)
