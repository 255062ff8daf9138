"""Encoders that need no model, and heads and routers made of them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from router.artifact import Artifact, Manifest
from router.classifier import LinearHead
from router.encoder import FILES
from router.experts import ExpertsFile
from router.routing import Router

ABOUT: dict[str, Any] = {
    "encoder": "folder-3",
    "dimensions": 3,
    "domains": ("code", "math"),
    "temperature": 1.5,
    "corpus_hash": "0123456789ab",
    "rows": 7,
    "held_out": {"accuracy": 0.5},
    "libraries": {"numpy": "2"},
}


class FolderEncoder:
    """An encoder of any folder that holds FILES: three figures that depend on the text alone, of length 1."""

    def __init__(self, folder: Path) -> None:
        about = json.loads((folder / "encoder.json").read_text("utf-8"))
        self.name, self.dimensions = str(about["name"]), int(about["dimensions"])

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        rows = [list(hashlib.sha256(text.encode()).digest()[: self.dimensions]) for text in texts]
        vectors = np.array(rows, dtype=np.float32).reshape(len(texts), self.dimensions) + 1
        return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), dtype=np.float32)


def encoder_folder(parent: Path, kind: str = "folder", name: str = "folder-3", dimensions: int = 3) -> Path:
    """A folder such as an export leaves behind, with placeholders for the model and the tokenizer."""
    folder = parent / f"{name}-cafe"
    folder.mkdir(parents=True)
    for file in FILES:
        (folder / file).write_text(f"this is {file}", "utf-8")
    about = {"name": name, "kind": kind, "dimensions": dimensions, "max_tokens": 64}
    (folder / "encoder.json").write_text(json.dumps(about), "utf-8")
    return folder


class Spoken:
    """An encoder for texts that say their own probabilities, such as `code=0.7 math=0.3`; it remembers what it was given."""

    def __init__(self, domains: Sequence[str]) -> None:
        self.name, self.dimensions, self.domains = "spoken", len(domains), tuple(domains)
        self.seen: list[list[str]] = []

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        self.seen.append(list(texts))
        rows = [[self._chance(text, domain) for domain in self.domains] for text in texts]
        return np.log(np.array(rows, dtype=np.float32).reshape(len(texts), self.dimensions))

    def _chance(self, text: str, domain: str) -> float:
        said = dict(word.split("=") for word in text.split())
        return max(1e-9, float(said.get(domain, 0)))


def spoken_artifact(domains: Sequence[str], temperature: float = 1.0) -> Artifact:
    """A router's artifact whose probabilities are those that the text says (at temperature 1)."""
    size = len(domains)
    about = {**ABOUT, "encoder": "spoken", "dimensions": size, "domains": tuple(domains), "temperature": temperature}
    files = dict.fromkeys(("head-beef.npz", *(f"spoken-cafe/{file}" for file in FILES)), "0" * 64)
    manifest = Manifest(
        encoder_kind="spoken",
        encoder_folder="spoken-cafe",
        head="linear",
        head_file="head-beef.npz",
        files=files,
        **about,
    )
    head = LinearHead(np.eye(size, dtype=np.float32), np.zeros(size, dtype=np.float32))
    return Artifact(Path("nowhere"), manifest, Spoken(domains), head)


def spoken_router(file: ExpertsFile, temperature: float = 1.0) -> Router:
    return Router(file, spoken_artifact(file.domain_names, temperature))


def saying(by_domain: Mapping[str, float]) -> str:
    """The text that makes Spoken give these probabilities."""
    return " ".join(f"{domain}={chance}" for domain, chance in by_domain.items())


def tiny_encoder(parent: Path, texts: Sequence[str], dimensions: int = 48) -> Path:
    """A working folder for TransformerEncoder: a vector is the mean of random vectors of the words of `texts`."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace
    from tokenizers.processors import TemplateProcessing

    words = sorted({word for text in texts for word, _ in Whitespace().pre_tokenize_str(text)})
    tokenizer = Tokenizer(WordLevel({word: i for i, word in enumerate(("[CLS]", "[UNK]", *words))}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.post_processor = TemplateProcessing(single="[CLS] $A", special_tokens=[("[CLS]", 0)])

    table = np.random.default_rng(0).normal(size=(len(words) + 2, dimensions)).astype(np.float32)
    table[0] *= 0.1
    ids, mask = (
        helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "length"])
        for name in ("input_ids", "attention_mask")
    )
    vector = helper.make_tensor_value_info("sentence_vector", TensorProto.FLOAT, ["batch", dimensions])
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["words"]),
        helper.make_node("Cast", ["attention_mask"], ["weights"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["weights", "last"], ["wide"]),
        helper.make_node("Mul", ["words", "wide"], ["kept"]),
        helper.make_node("ReduceSum", ["kept", "middle"], ["sum"], keepdims=0),
        helper.make_node("LpNormalization", ["sum"], ["sentence_vector"], axis=1, p=2),
    ]
    constants = {"table": table, "last": np.array([2], dtype=np.int64), "middle": np.array([1], dtype=np.int64)}
    initial = [numpy_helper.from_array(array, name) for name, array in constants.items()]
    graph = helper.make_graph(nodes, "tiny", [ids, mask], [vector], initial)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)

    folder = encoder_folder(parent, kind="transformer", name="tiny", dimensions=dimensions)
    onnx.save(model, str(folder / "model.onnx"))
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder
