"""Tiny random models prove the arithmetic; real files prove that we read what people have."""

import pytest
import torch

import weights
from lmwright.engine.request import Sampling
from lmwright.formats.gguf import open_gguf
from lmwright.lm import local_model
from lmwright.model import checkpoint
from lmwright.tokenizer.gguf.reader import gguf_tokenizer
from lmwright.verification.inputs import built_in

transformers = pytest.importorskip("transformers", reason="needs the `dev` extra")

N_NEW = 24
FILES = {"SmolLM2": weights.smollm2, "Gemma 3 270M": weights.gemma3_270m}


def texts():
    return [
        prompt if isinstance(prompt, str) else " ".join(turn["content"] for turn in prompt)
        for prompt in built_in()
    ]


@pytest.mark.slow
@pytest.mark.weights
@pytest.mark.parametrize("name", FILES)
def test_twenty_prompts_are_continued_as_transformers_does_from_the_same_file(name):
    path = FILES[name]()
    file = open_gguf(path)
    ours = local_model(
        checkpoint.load_gguf(file, torch.float32), gguf_tokenizer(file.metadata), name=name
    )
    theirs = transformers.AutoModelForCausalLM.from_pretrained(
        path.parent, gguf_file=path.name, dtype=torch.float32
    ).eval()
    ids = [ours.tokenizer.encode(text) for text in texts()]
    assert len(ids) == 20
    sampling = Sampling(max_tokens=N_NEW, ignore_eos=True)
    found = [completion.token_ids for completion in ours.generate(ids, sampling)]
    expected = []
    for prompt in ids:
        tokens = theirs.generate(
            torch.tensor([prompt]),
            max_new_tokens=N_NEW,
            min_new_tokens=N_NEW,
            do_sample=False,
            eos_token_id=None,
            pad_token_id=0,
        )
        expected.append(tuple(tokens[0, len(prompt) :].tolist()))
    assert found == expected
