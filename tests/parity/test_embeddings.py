"""A vector database filled by sentence-transformers must be searchable with our vectors."""

import numpy as np
import pytest
import torch

import weights
from lmwright import lm
from lmwright.core.errors import RequestError

transformers = pytest.importorskip("transformers", reason="needs the `dev` extra")

SUBJECTS = ("The bank", "A new card", "Our garden", "Het weer", "Die Rechnung", "This sentence",
            "Nobody", "The old lighthouse keeper", "She", "An unbelievably long word")  # fmt: skip
ENDS = (
    "opens at nine.", "costs eight euros!", "?", "was not where we had left it, yet nobody cared.",
    "runs", "schmeckt nach Äpfeln und Zimt.", "(see page 12, table 3) is out of date",
    "と言いました。", "replied: \"no, thanks\" and left the room without another word about " * 3,
    "is 3.14159 metres long",
)  # fmt: skip
SENTENCES = [f"{subject} {end}" for subject in SUBJECTS for end in ENDS]


@torch.no_grad()
def expected(folder) -> np.ndarray:
    """What the model's card says: mean pooling over the tokens, then length 1."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
    batch = tokenizer(SENTENCES, padding=True, return_tensors="pt")
    hidden = model(**batch).last_hidden_state
    mask = batch["attention_mask"][:, :, None]
    vectors = (hidden * mask).sum(dim=1) / mask.sum(dim=1)
    return torch.nn.functional.normalize(vectors, dim=1).numpy()


@pytest.mark.weights
def test_minilm_gives_the_vectors_of_transformers_for_100_sentences():
    folder = weights.minilm()
    model = lm.load(folder, precision="fp32")
    vectors = model.embed(SENTENCES)
    assert len(SENTENCES) == len(set(SENTENCES)) == 100
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=0, atol=1e-5)
    cosines = (vectors * expected(folder)).sum(axis=1)
    assert cosines.min() >= 0.9999
    # Sentences are told apart: the comparison is not one of a constant.
    assert (vectors @ vectors.T)[~np.eye(100, dtype=bool)].mean() < 0.7


@pytest.mark.weights
def test_minilm_refuses_what_it_would_have_to_cut():
    model = lm.load(weights.minilm(), precision="fp32")
    assert model.info.context_length == 256
    with pytest.raises(RequestError, match=r"texts\[1\]: 302 tokens; .* takes 1 to 256"):
        model.embed(["short", "word " * 300])
