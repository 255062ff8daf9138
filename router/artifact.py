"""The trained router as a folder: a manifest, the encoder, the head. Loaded, checked and swapped as one.

    manifest.json
    <encoder>-<hash>/    model.onnx, tokenizer.json, encoder.json: written once, named by content
    head-<hash>.npz      plain arrays, nothing pickled

The manifest names the other two and their hashes, and is replaced last, in one step: whoever reads the folder while it is
being retrained sees the old router or the new one, whole.
"""

from __future__ import annotations

import fcntl
import hashlib
import io
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from router.classifier import HEADS, Head
from router.encoder import ENCODERS, FILES, Encoder
from router.errors import ArtifactError

PACKAGED = Path(__file__).parent / "trained"


FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]


class Manifest(BaseModel):
    """`held_out` are scores on rows that were not trained on; `files` maps each file to its SHA-256."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal[1] = 1
    encoder: str
    encoder_kind: str
    encoder_folder: FileName
    dimensions: int
    domains: tuple[str, ...]
    head: str
    head_file: FileName
    temperature: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    corpus_hash: str
    rows: int
    held_out: dict[str, float]
    libraries: dict[str, str]
    files: dict[str, str]

    @property
    def names_every_file(self) -> bool:
        """Whether head and encoder are among the files whose hashes are known: else nothing would be verified."""
        return {self.head_file, *(f"{self.encoder_folder}/{file}" for file in FILES)} <= set(self.files)


class Artifact:
    """A loaded router: `manifest`, `encoder` and `head`."""

    def __init__(self, folder: Path, manifest: Manifest, encoder: Encoder, head: Head) -> None:
        self.folder, self.manifest, self.encoder, self.head = folder, manifest, encoder, head

    @property
    def name(self) -> str:
        """What metrics and decisions call this router: the hash of its head."""
        return self.manifest.head_file.removeprefix("head-").removesuffix(".npz")


def read_manifest(folder: Path) -> Manifest:
    """Raises ArtifactError where there is none or it is not one."""
    path = folder / "manifest.json"
    try:
        return Manifest.model_validate_json(path.read_bytes())
    except FileNotFoundError as error:
        raise ArtifactError(f"no trained router in {folder}; run: moe-gateway train") from error
    except (OSError, ValidationError) as error:
        raise ArtifactError(f"{path} is damaged; run: moe-gateway train") from error


def load_artifact(folder: Path) -> Artifact:
    """Load and verify the router in `folder`. Raises ArtifactError naming the file that is missing or damaged."""
    while True:
        manifest = read_manifest(folder)
        try:
            return _load(folder, manifest)
        except ArtifactError:
            if read_manifest(folder) == manifest:
                raise
            # It was retrained while we read: what was missing belonged to the router before.


def _load(folder: Path, manifest: Manifest) -> Artifact:
    if not manifest.names_every_file:
        raise ArtifactError(f"{folder}: the manifest does not name every file; run: moe-gateway train")
    for path in damaged_files(folder, manifest):
        what = "is damaged: it is not the file that the manifest names" if path.is_file() else "is missing"
        raise ArtifactError(f"{path} {what}; run: moe-gateway train")
    if manifest.encoder_kind not in ENCODERS or manifest.head not in HEADS:
        raise ArtifactError(f"{folder} was trained by another version; run: moe-gateway train")
    encoder = ENCODERS[manifest.encoder_kind](folder / manifest.encoder_folder)
    try:
        with np.load(io.BytesIO((folder / manifest.head_file).read_bytes()), allow_pickle=False) as archive:
            head = HEADS[manifest.head]({name: archive[name] for name in archive.files})
    except Exception as error:
        raise ArtifactError(f"{folder / manifest.head_file} cannot be used: {error}; run: moe-gateway train") from error
    if encoder.dimensions != manifest.dimensions or _domains_of(head, encoder.dimensions) != len(manifest.domains):
        raise ArtifactError(f"encoder, head and domains in {folder} do not fit together; run: moe-gateway train")
    return Artifact(folder, manifest, encoder, head)


def _domains_of(head: Head, dimensions: int) -> int | None:
    """How many logits the head gives for a vector of so many dimensions, None where it takes no such vector."""
    try:
        return int(head.logits(np.zeros((1, dimensions), dtype=np.float32)).shape[1])
    except (ValueError, IndexError):
        return None


def damaged_files(folder: Path, manifest: Manifest, below: str = "") -> list[Path]:
    """The manifest's files (those whose names begin with `below`) that are missing or are not what it names."""
    wanted = {folder / name: digest for name, digest in manifest.files.items() if name.startswith(below)}
    return [path for path, digest in wanted.items() if not path.is_file() or _sha256(path) != digest]


def save_artifact(folder: Path, encoder_folder: Path, head: Head, about: Mapping[str, Any]) -> Manifest:
    """Write a router into `folder` and return its manifest; `about` holds the manifest's facts that are not about files."""
    folder.mkdir(parents=True, exist_ok=True)
    with _locked(folder):
        kept = _keep_encoder(folder, encoder_folder)
        data = _array_bytes(head.arrays())
        head_file = f"head-{hashlib.sha256(data).hexdigest()[:12]}.npz"
        _replace(folder / head_file, data)
        files = {f"{kept.name}/{file}": _sha256(kept / file) for file in FILES}
        manifest = Manifest(
            encoder_folder=kept.name,
            encoder_kind=json.loads((kept / "encoder.json").read_text("utf-8"))["kind"],
            head=head.name,
            head_file=head_file,
            files=files | {head_file: _sha256(folder / head_file)},
            **about,
        )
        _replace(folder / "manifest.json", (manifest.model_dump_json(indent=2) + "\n").encode())
        for old in folder.glob("head-*.npz"):
            if old.name != head_file:
                old.unlink()
    return manifest


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
    if all((kept / file).is_file() and _sha256(kept / file) == _sha256(source / file) for file in FILES):
        return kept
    scratch = folder / f".{source.name}.{os.getpid()}"
    shutil.rmtree(scratch, ignore_errors=True)
    shutil.copytree(source, scratch)
    shutil.rmtree(kept, ignore_errors=True)
    scratch.rename(kept)
    return kept


def _array_bytes(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    return buffer.getvalue()


def _replace(path: Path, data: bytes) -> None:
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    scratch.write_bytes(data)
    scratch.replace(path)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
