"""A sentence-transformers model small enough to be made, and taught, in a test. Needs the `train` extra."""

from __future__ import annotations

import string
from pathlib import Path
from typing import Any

from tests.fakes.corpora import small_corpus

LAYERS, WIDTH = 2, 32


def tiny_bert(folder: Path) -> Path:
    """A folder with a model of LAYERS layers that was taught nothing; it knows the words of the small corpus, and letters."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
    from transformers import BertConfig, BertModel, BertTokenizer

    torch.manual_seed(0)
    torch.set_num_threads(1)  # several would spend their time waiting for each other
    words = sorted({word for row in small_corpus() for word in row.text.lower().replace("?", "").split()})
    letters = string.ascii_lowercase + string.digits + string.punctuation
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{c}" for c in letters)]
    vocabulary += [word for word in words if word not in vocabulary]
    config = BertConfig(
        vocab_size=len(vocabulary), hidden_size=WIDTH, num_hidden_layers=LAYERS, num_attention_heads=2,
        intermediate_size=2 * WIDTH, max_position_embeddings=256,
    )  # fmt: skip
    bert = folder / "bert"
    BertModel(config).save_pretrained(str(bert))
    (bert / "vocab.txt").write_text("\n".join(vocabulary) + "\n", "utf-8")
    BertTokenizer(str(bert / "vocab.txt"), do_lower_case=True).save_pretrained(str(bert))
    transformer = Transformer(str(bert), max_seq_length=128)
    SentenceTransformer(modules=[transformer, Pooling(WIDTH)], device="cpu").save(str(folder / "model"))
    return folder / "model"


def tiny_model(folder: Path) -> Any:
    """The same, loaded."""
    from router.training.export import load_sentence_transformer

    return load_sentence_transformer(str(tiny_bert(folder)))
