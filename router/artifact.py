"""The trained router as a folder: a manifest, encoders, heads, vectors. Loaded, checked and swapped as one.

    manifest.json
    <encoder>-<hash>/    model.onnx or table.npz, tokenizer.json, encoder.json: written once, named by content
    heads-<hash>.npz     head, calibrator and detectors of every stage: plain arrays, nothing pickled
    vectors-<hash>.npz   the vectors of the training texts: what retraining starts from, and where neighbours are found

The manifest names the others and their hashes, and is replaced last, in one step: whoever reads the folder while it is
being retrained sees the old router or the new one, whole. What it does not name any more is removed, unless a process that
loaded it may still read from it (see holds.py).
"""

from __future__ import annotations

import fcntl
import hashlib
import io
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from router.calibration import CALIBRATORS
from router.cascade import Stage
from router.classifier import HEADS
from router.detectors import Detectors
from router.encoder import ENCODERS, Encoder
from router.errors import ArtifactError, RouterError
from router.holds import Hold, remove_unheld
from router.vectors import Vectors

PACKAGED = Path(__file__).parent / "trained"

FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]


class StageManifest(BaseModel):
    """One stage: its encoder, by name and folder, and the kinds of its parts. It is sure from the confidence `sure` on."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Literal["static", "transformer"]
    encoder: str
    encoder_kind: str
    encoder_folder: FileName
    dimensions: int
    head: str
    calibrator: str
    sure: Annotated[float, Field(ge=0, le=1)]
    blend: Annotated[float, Field(ge=0, le=1)] = 0.0


class Manifest(BaseModel):
    """`domains` are those of the heads, then the `added` ones; `held_out` are scores on rows that were not trained on;
    `files` maps each file to its SHA-256."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal[2] = 2
    domains: tuple[str, ...]
    added: tuple[str, ...] = ()
    stages: Annotated[tuple[StageManifest, ...], Field(min_length=1)]
    heads_file: FileName
    vectors_file: FileName
    corpus_hash: str
    rows: int
    held_out: dict[str, float]
    libraries: dict[str, str]
    files: dict[str, str]

    @property
    def encoder(self) -> str:
        """The name of the best stage's encoder."""
        return self.stages[-1].encoder

    @property
    def names_every_file(self) -> bool:
        """Whether the hashes of heads, vectors and every encoder are known: else something would be loaded unverified."""
        encoders = (f"{stage.encoder_folder}/{file}" for stage in self.stages for file in _files_of(stage.encoder_kind))
        return {self.heads_file, self.vectors_file, *encoders} <= set(self.files)


def _files_of(kind: str) -> tuple[str, ...]:
    """What a folder of this kind of encoder holds at least."""
    return getattr(ENCODERS.get(kind), "FILES", ("encoder.json",))


class Artifact:
    """A loaded router: `manifest` and `stages`, from the cheapest to the best. `hold` is on what is still to be read."""

    def __init__(self, folder: Path, manifest: Manifest, stages: Sequence[Stage], hold: Hold | None = None) -> None:
        self.folder, self.manifest, self.stages = folder, manifest, tuple(stages)
        self._hold = hold

    @property
    def name(self) -> str:
        """What metrics and decisions call this router: the hash of its heads."""
        return self.manifest.heads_file.removeprefix("heads-").removesuffix(".npz")

    def vectors(self) -> Vectors:
        """The vectors of the training texts, read now. Raises ArtifactError."""
        return read_vectors(self.folder, self.manifest)


def read_manifest(folder: Path) -> Manifest:
    """Raises ArtifactError where there is none or it is not one."""
    path = folder / "manifest.json"
    try:
        return Manifest.model_validate_json(path.read_bytes())
    except FileNotFoundError as error:
        raise ArtifactError(f"no trained router in {folder}; run: moe-gateway train") from error
    except (OSError, ValidationError) as error:
        raise ArtifactError(f"{path} is damaged, or of another version; run: moe-gateway train") from error


def is_of_another_format(folder: Path) -> bool:
    """Whether the manifest in `folder` is whole and says that it is of another format than this version's."""
    try:
        said = json.loads((folder / "manifest.json").read_bytes())["format"]
        return bool(said != Manifest.model_fields["format"].default)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def load_artifact(folder: Path, beside: Artifact | None = None) -> Artifact:
    """Load and verify the router in `folder`. Encoders that `beside` has loaded are used again: they are most of the work.

    Raises ArtifactError naming the file that is missing or damaged."""
    stages = zip(beside.manifest.stages, beside.stages, strict=True) if beside else ()
    loaded = {about.encoder_folder: stage.encoder for about, stage in stages}  # folders are named by their content
    while True:
        manifest = read_manifest(folder)
        try:
            return _load(folder, manifest, loaded)
        except ArtifactError:
            if read_manifest(folder) == manifest:
                raise
            # It was retrained while we read: what was missing belonged to the router before.


def _load(folder: Path, manifest: Manifest, loaded: Mapping[str, Encoder]) -> Artifact:
    for stage in manifest.stages:
        if stage.encoder_kind not in ENCODERS or stage.head not in HEADS or stage.calibrator not in CALIBRATORS:
            raise ArtifactError(f"{folder} was trained by another version; run: moe-gateway train")
    if not manifest.names_every_file:
        raise ArtifactError(f"{folder}: the manifest does not name every file; run: moe-gateway train")
    # The vectors are read when an explanation first needs them; what a package's own encoder reads later, nobody knows.
    hold = Hold(folder / name for name in (manifest.vectors_file, *(stage.encoder_folder for stage in manifest.stages)))
    for path in damaged_files(folder, manifest):
        what = "is damaged: it is not the file that the manifest names" if path.is_file() else "is missing"
        raise ArtifactError(f"{path} {what}; run: moe-gateway train")
    try:
        with np.load(io.BytesIO((folder / manifest.heads_file).read_bytes()), allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        stages = [_stage(folder, about, arrays, loaded.get(about.encoder_folder)) for about in manifest.stages]
    except RouterError:
        raise
    except Exception as error:
        raise ArtifactError(
            f"{folder / manifest.heads_file} cannot be used: {error}; run: moe-gateway train"
        ) from error
    widths = [(stage.encoder.dimensions, _domains_of(stage)) for stage in stages]
    if widths != [(about.dimensions, len(manifest.domains)) for about in manifest.stages]:
        raise ArtifactError(f"encoder, head and domains in {folder} do not fit together; run: moe-gateway train")
    return Artifact(folder, manifest, stages, hold)


def _stage(folder: Path, about: StageManifest, arrays: Mapping[str, NDArray[Any]], encoder: Encoder | None) -> Stage:
    return Stage(
        name=about.name,
        encoder=encoder or ENCODERS[about.encoder_kind](folder / about.encoder_folder),
        head=HEADS[about.head].from_arrays(_below(arrays, f"{about.name}.head.")),
        calibrator=CALIBRATORS[about.calibrator].from_arrays(_below(arrays, f"{about.name}.calibrator.")),
        detectors=Detectors.from_arrays(_below(arrays, f"{about.name}.detectors.")),
        sure=about.sure,
        blend=about.blend,
    )


def _domains_of(stage: Stage) -> int | None:
    """How many domains the stage tells apart, None where its parts do not fit together."""
    try:
        return int(stage.of_vectors(np.zeros((1, stage.encoder.dimensions), dtype=np.float32)).shape[1])
    except (IndexError, ValueError):
        return None


def _below(arrays: Mapping[str, NDArray[Any]], prefix: str) -> dict[str, NDArray[Any]]:
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}


def read_vectors(folder: Path, manifest: Manifest) -> Vectors:
    """The vectors of the training texts. Raises ArtifactError where their file is not the one that the manifest names."""
    path = folder / manifest.vectors_file
    if damaged_files(folder, manifest, manifest.vectors_file):
        raise ArtifactError(f"{path} is damaged or missing; run: moe-gateway train")
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as archive:
            return Vectors.from_arrays({name: archive[name] for name in archive.files})
    except Exception as error:
        raise ArtifactError(f"{path} cannot be used: {error}; run: moe-gateway train") from error


def damaged_files(folder: Path, manifest: Manifest, below: str = "") -> list[Path]:
    """The manifest's files (those whose names begin with `below`) that are missing or are not what it names."""
    wanted = {folder / name: digest for name, digest in manifest.files.items() if name.startswith(below)}
    return [path for path, digest in wanted.items() if not path.is_file() or _sha256(path) != digest]


def whole_encoder(folder: Path, name: str) -> Path | None:
    """The folder of the encoder `name` of the router in `folder`; None where there is none, or not all of it."""
    try:
        manifest = read_manifest(folder)
    except ArtifactError:
        return None
    kept = (stage.encoder_folder for stage in manifest.stages if stage.encoder == name)
    return next((folder / k for k in kept if not damaged_files(folder, manifest, f"{k}/")), None)


def save_artifact(
    folder: Path, stages: Sequence[tuple[Stage, Path]], vectors: Vectors, about: Mapping[str, Any]
) -> Manifest:
    """Write a router into `folder` and return its manifest: each stage with the folder of its encoder.

    `about` holds the manifest's facts that are not about files. What an earlier router left there is removed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with _locked(folder):
        kept = [_keep_encoder(folder, encoder_folder) for _, encoder_folder in stages]
        heads_file = _write(folder, "heads", _arrays_of(stage for stage, _ in stages))
        vectors_file = _write(folder, "vectors", vectors.arrays())
        files = [heads_file, vectors_file, *(f"{k.name}/{file}" for k in kept for file in _files_in(k))]
        manifest = Manifest(
            stages=tuple(_about(stage, encoder) for (stage, _), encoder in zip(stages, kept, strict=True)),
            heads_file=heads_file,
            vectors_file=vectors_file,
            files={name: _sha256(folder / name) for name in files},
            **about,
        )
        _replace(folder / "manifest.json", (manifest.model_dump_json(indent=2) + "\n").encode())
        _sweep(folder, manifest)
    return manifest


def publish_artifact(source: Path, folder: Path) -> Manifest:
    """Put the router in `source` in the place of the one in `folder`, and return its manifest. Raises ArtifactError, OSError."""
    manifest = read_manifest(source)
    folder.mkdir(parents=True, exist_ok=True)
    with _locked(folder):
        for encoder in dict.fromkeys(stage.encoder_folder for stage in manifest.stages):
            _keep_encoder(folder, source / encoder)
        for name in (manifest.heads_file, manifest.vectors_file):
            _replace(folder / name, (source / name).read_bytes())
        _replace(folder / "manifest.json", (source / "manifest.json").read_bytes())
        _sweep(folder, manifest)
    return manifest


def _sweep(folder: Path, manifest: Manifest) -> None:
    """Remove the heads, vectors and encoders that the manifest does not name, but for those that a process holds."""
    named = {name.partition("/")[0] for name in manifest.files}
    encoders = [path.parent for path in folder.glob("*/encoder.json")]
    for old in (*folder.glob("heads-*.npz"), *folder.glob("vectors-*.npz"), *encoders):
        if old.name not in named:
            remove_unheld(old)


def _about(stage: Stage, folder: Path) -> StageManifest:
    return StageManifest(
        name=stage.name if stage.name != "none" else "transformer",
        encoder=stage.encoder.name,
        encoder_kind=kind_of(folder),
        encoder_folder=folder.name,
        dimensions=stage.encoder.dimensions,
        head=stage.head.name,
        calibrator=stage.calibrator.name,
        sure=stage.sure,
        blend=stage.blend,
    )


def _arrays_of(stages: Iterable[Stage]) -> dict[str, NDArray[Any]]:
    parts = {
        f"{stage.name}.{part}.": arrays
        for stage in stages
        for part, arrays in (
            ("head", stage.head.arrays()),
            ("calibrator", stage.calibrator.arrays()),
            ("detectors", stage.detectors.arrays()),
        )
    }
    return {f"{prefix}{name}": array for prefix, arrays in parts.items() for name, array in arrays.items()}


def kind_of(folder: Path) -> str:
    """The kind of encoder, a key of ENCODERS, that `folder` holds. Raises ArtifactError."""
    try:
        return str(json.loads((folder / "encoder.json").read_text("utf-8"))["kind"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ArtifactError(f"{folder} holds no encoder: {error}") from error


def _files_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.is_file())


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """One writer at a time, over processes; the system lets go of the lock when its holder dies."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _keep_encoder(folder: Path, source: Path) -> Path:
    """The encoder as a folder of `folder`: left alone where it is there and whole, else copied and put in place at once."""
    kept = folder / source.name
    if kept.resolve() == source.resolve():
        return kept
    if all((kept / file).is_file() and _sha256(kept / file) == _sha256(source / file) for file in _files_in(source)):
        return kept
    scratch = folder / f".{source.name}.{os.getpid()}"
    shutil.rmtree(scratch, ignore_errors=True)
    shutil.copytree(source, scratch)
    shutil.rmtree(kept, ignore_errors=True)
    scratch.rename(kept)
    return kept


def _write(folder: Path, stem: str, arrays: Mapping[str, NDArray[Any]]) -> str:
    """Write `arrays` into a file named by `stem` and their content; its name."""
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    name = f"{stem}-{hashlib.sha256(buffer.getvalue()).hexdigest()[:12]}.npz"
    _replace(folder / name, buffer.getvalue())
    return name


def _replace(path: Path, data: bytes) -> None:
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    scratch.write_bytes(data)
    scratch.replace(path)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
