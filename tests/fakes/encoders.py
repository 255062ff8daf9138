"""Encoders that need no model, and stages, artifacts and routers made of them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from router.artifact import Artifact, Manifest, StageManifest
from router.calibration import Temperature
from router.cascade import Cascade, Stage
from router.classifier import Head, LinearHead
from router.decision import Scores
from router.decision import Stage as StageName
from router.detectors import Detectors
from router.encoder import FILES, Encoder, quantised
from router.experts import ExpertsFile
from router.routing import Router

ABOUT: dict[str, Any] = {
    "domains": ("code", "math"),
    "corpus_hash": "0123456789ab",
    "rows": 7,
    "held_out": {"accuracy": 0.5},
    "libraries": {"numpy": "2"},
}


class FolderEncoder:
    """An encoder of any folder that holds FILES: a few figures that depend on the text alone, of length 1."""

    FILES = FILES

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


def stage_of(
    encoder: Encoder, head: Head, name: StageName = "transformer", temperature: float = 1.0, sure: float = 0.0
) -> Stage:
    """A stage to which no domain was added."""
    return Stage(name, encoder, head, Temperature(temperature), Detectors.none(encoder.dimensions), sure)


def artifact_of(domains: Sequence[str], *stages: Stage, name: str = "beef") -> Artifact:
    """An artifact that was never in a folder."""
    about = [
        StageManifest(
            name="static" if stage.name == "static" else "transformer",
            encoder=stage.encoder.name,
            encoder_kind=stage.encoder.name,
            encoder_folder=f"{stage.encoder.name}-cafe",
            dimensions=stage.encoder.dimensions,
            head=stage.head.name,
            calibrator=stage.calibrator.name,
            sure=stage.sure,
        )
        for stage in stages
    ]
    manifest = Manifest(
        stages=tuple(about),
        heads_file=f"heads-{name}.npz",
        vectors_file=f"vectors-{name}.npz",
        files={},
        **{**ABOUT, "domains": tuple(domains)},
    )
    return Artifact(Path("nowhere"), manifest, stages)


def identity(size: int, factor: float = 1.0) -> LinearHead:
    """The head whose logits are the vector, so many times."""
    return LinearHead(np.eye(size, dtype=np.float32) * np.float32(factor), np.zeros(size, dtype=np.float32))


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
    return artifact_of(domains, stage_of(Spoken(domains), identity(len(domains)), temperature=temperature))


def spoken_router(file: ExpertsFile, temperature: float = 1.0) -> Router:
    """A router that takes every text at its word, in whatever language."""
    return router_with(file, spoken_artifact(file.domain_names, temperature))


def router_with(file: ExpertsFile, artifact: Artifact) -> Router:
    """A router that looks at no text's language, so that nothing but the artifact's stages is asked."""
    return Router(file, artifact, Cascade(artifact.manifest.domains, artifact.stages))


class Told:
    """A classifier of texts that say their own scores, such as `code=0.7 math=0.3 language=ja doubt=out_of_distribution`.

    Its cheap stage is sure of every text but those with a word `unsure`. `heard` are the texts that it was given, `asked`
    the texts of each call of the other.
    """

    def __init__(self, domains: Sequence[str]) -> None:
        self.domains = tuple(domains)
        self.heard: list[str] = []
        self.asked: list[list[str]] = []

    def quick(self, text: str) -> Scores | None:
        self.heard.append(text)
        return None if "unsure" in text.split() else self._scores(text, "static")

    def score_many(self, texts: Sequence[str]) -> list[Scores]:
        self.asked.append(list(texts))
        return [self._scores(text, "transformer") for text in texts]

    def _scores(self, text: str, stage: StageName) -> Scores:
        said = dict(word.split("=") for word in text.split() if "=" in word)
        by_domain = {domain: float(said.get(domain, 0)) for domain in self.domains}
        if not any(by_domain.values()):
            by_domain = dict.fromkeys(self.domains, 1 / len(self.domains))
        doubt: Any = said.get("doubt")
        return Scores(by_domain, stage, doubt, said.get("language", ""))


def told_router(file: ExpertsFile) -> Router:
    """A router whose classifier believes what the texts say."""
    return Router(file, spoken_artifact(file.domain_names), Told(file.domain_names))


def saying(by_domain: Mapping[str, float]) -> str:
    """The text that makes Spoken give these probabilities."""
    return " ".join(f"{domain}={chance}" for domain, chance in by_domain.items())


def word_tokenizer(texts: Sequence[str]) -> Any:
    """A tokenizer whose tokens are `[CLS]`, which stands before every text, `[UNK]` and the words of `texts`."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace
    from tokenizers.processors import TemplateProcessing

    words = sorted({word for text in texts for word, _ in Whitespace().pre_tokenize_str(text)})
    tokenizer = Tokenizer(WordLevel({word: i for i, word in enumerate(("[CLS]", "[UNK]", *words))}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.post_processor = TemplateProcessing(single="[CLS] $A", special_tokens=[("[CLS]", 0)])
    return tokenizer


def tiny_encoder(parent: Path, texts: Sequence[str], dimensions: int = 48) -> Path:
    """A working folder for TransformerEncoder: a vector is the mean of random vectors of the words of `texts`."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    tokenizer = word_tokenizer(texts)
    table = np.random.default_rng(0).normal(size=(tokenizer.get_vocab_size(), dimensions)).astype(np.float32)
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


def tiny_static(parent: Path, rows: int = 1 << 12, width: int = 24, hidden: int = 24) -> Path:
    """A working folder for StaticEncoder: a random vector for every n-gram."""
    chance = np.random.default_rng(1)
    arrays: dict[str, NDArray[Any]] = {
        "hidden": chance.normal(size=(hidden, width)).astype(np.float32),
        "bias": chance.normal(size=hidden).astype(np.float32),
    }
    arrays["ngrams"], arrays["ngrams_scale"] = quantised(chance.normal(size=(rows, width)).astype(np.float32))
    folder = parent / "tiny-static-cafe"
    folder.mkdir(parents=True)
    np.savez(folder / "table.npz", allow_pickle=False, **arrays)
    about = {"name": "tiny-static", "kind": "static", "dimensions": width + hidden}
    (folder / "encoder.json").write_text(json.dumps(about), "utf-8")
    return folder
