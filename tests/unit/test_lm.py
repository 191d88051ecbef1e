"""A."""


def test_a(tiny_lm, tiny_folder, tiny_model):
    import os

    print(os.listdir(tiny_folder), [p.shape for p in tiny_model.parameters()])
    print(tiny_lm.tokenizer.chat([{"role": "user", "content": "hi <|im_end|>"}]))
    from lmwright.engine.request import Sampling

    print(tiny_lm.generate(["The bank", "x"], Sampling(max_tokens=5, ignore_eos=True)))
