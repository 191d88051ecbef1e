"""A wrong number of parameters is believed: transformers counts the same in every family."""

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from lmwright.summary.inventory import folder_inventory

DECODER = {
    "vocab_size": 300, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64,
    "pad_token_id": 0,
}  # fmt: skip
ENCODER = {
    "vocab_size": 300, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3,
    "num_attention_heads": 4, "max_position_embeddings": 64, "pad_token_id": 0,
}  # fmt: skip
DISTILBERT = {"vocab_size": 300, "dim": 32, "hidden_dim": 48, "n_layers": 3, "n_heads": 4}
GPT2 = {"vocab_size": 300, "n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 64}
BART = {
    "vocab_size": 300, "d_model": 32, "encoder_layers": 3, "decoder_layers": 2,
    "encoder_ffn_dim": 48, "decoder_ffn_dim": 48, "encoder_attention_heads": 4,
    "decoder_attention_heads": 4, "max_position_embeddings": 64,
}  # fmt: skip
T5 = {
    "vocab_size": 300, "d_model": 32, "d_kv": 12, "d_ff": 48, "num_layers": 3,
    "num_decoder_layers": 2, "num_heads": 4,
}  # fmt: skip
WINDOW = {"head_dim": 16, "sliding_window": 5}
MODELS = {
    "GPT2LMHeadModel": GPT2,
    "LlamaForCausalLM": DECODER,
    "Qwen2ForCausalLM": DECODER,
    "Qwen3ForCausalLM": {**DECODER, "head_dim": 16},
    "Gemma2ForCausalLM": {**DECODER, **WINDOW},
    "Gemma3ForCausalLM": {**DECODER, **WINDOW},
    "Phi3ForCausalLM": DECODER,
    "Olmo2ForCausalLM": DECODER,
    "BertForMaskedLM": ENCODER,
    "BertForSequenceClassification": ENCODER,
    "BertModel": ENCODER,
    "RobertaForTokenClassification": {**ENCODER, "pad_token_id": 1},
    "DistilBertForMaskedLM": DISTILBERT,
    "T5ForConditionalGeneration": T5,
    "BartForConditionalGeneration": BART,
    "MBartForConditionalGeneration": BART,
    "MarianMTModel": {**BART, "pad_token_id": 299, "decoder_start_token_id": 299},
}
TOWERS = ("BartForConditionalGeneration", "MBartForConditionalGeneration", "MarianMTModel")


def saved(name: str, settings: dict[str, Any], folder: Path) -> Any:
    model_class: Any = getattr(transformers, name)
    model = model_class(model_class.config_class(**settings))
    model.save_pretrained(folder)
    return model


@pytest.mark.parametrize("name", MODELS)
def test_parameters_are_counted_as_transformers_counts_them(name: str, tmp_path: Path) -> None:
    theirs = saved(name, MODELS[name], tmp_path)
    found = folder_inventory(tmp_path)
    expected = theirs.num_parameters()
    if name in TOWERS:
        expected += theirs.config.vocab_size  # there a buffer: final_logits_bias
    if name == "MarianMTModel":  # there parameters that are never trained: tables of sinusoids
        expected -= 2 * theirs.config.max_position_embeddings * theirs.config.d_model
    assert found.n_params == expected


def test_each_part_holds_what_its_name_says(tmp_path: Path) -> None:
    theirs = saved("LlamaForCausalLM", MODELS["LlamaForCausalLM"], tmp_path)
    counts = {part.name: part.n_params for part in folder_inventory(tmp_path).parts}
    words = {
        "embedding": "embed_tokens", "attention": "self_attn", "feed-forward": "mlp",
        "norms": "norm", "head": "lm_head",
    }  # fmt: skip
    assert counts == {
        part: sum(p.numel() for name, p in theirs.named_parameters() if word in name)
        for part, word in words.items()
    }


def test_bytes_and_formats_are_those_of_the_file(tmp_path: Path) -> None:
    theirs = saved("T5ForConditionalGeneration", T5, tmp_path)
    theirs.to(torch.float16).save_pretrained(tmp_path)
    found = folder_inventory(tmp_path)
    assert found.size_bytes == 2 * theirs.num_parameters()
    assert {part.formats for part in found.parts} == {("F16",)}
    counts = {part.name: part.n_params for part in found.parts}
    assert counts["positions"] == 2 * 32 * 4  # a bias a bucket and head, in either tower
    assert counts["cross-attention"] == 2 * 4 * 32 * 48
    assert "head" not in counts  # T5's is the embedding
