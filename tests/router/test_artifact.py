from __future__ import annotations

import hashlib
import io
import json
import pickle
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from router.artifact import (
    PACKAGED,
    Artifact,
    Manifest,
    damaged_files,
    load_artifact,
    read_manifest,
    save_artifact,
)
from router.classifier import Head, KernelHead, LinearHead
from router.encoder import ENCODERS, FILES
from router.errors import ArtifactError
from tests.fakes.encoders import ABOUT, FolderEncoder, encoder_folder


def linear(seed: int = 0, domains: int = 2, dimensions: int = 3) -> LinearHead:
    random = np.random.default_rng(seed)
    return LinearHead(
        random.normal(size=(domains, dimensions)).astype(np.float32), random.normal(size=domains).astype(np.float32)
    )


def kernel(seed: int = 0, domains: int = 2, dimensions: int = 3) -> KernelHead:
    random = np.random.default_rng(seed)
    return KernelHead(
        random.normal(size=(5, dimensions)).astype(np.float16),
        random.normal(size=(5, domains)).astype(np.float32),
        gamma=float(random.random() + 0.1),
    )


def saved(parent: Path, head: Head | None = None, **about: Any) -> Path:
    """A folder with a saved router."""
    folder = parent / "router"
    encoder = next(parent.glob("export/*"), None) or encoder_folder(parent / "export")
    save_artifact(folder, encoder, head or linear(), {**ABOUT, **about})
    return folder


def state_of(folder: Path) -> dict[str, tuple[int, int, bytes]]:
    """Every file below `folder`: its inode, the time of its last change and its content."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(p.relative_to(folder)): (p.stat().st_ino, p.stat().st_mtime_ns, p.read_bytes()) for p in files}


def assert_same_arrays(one: Head, other: Head) -> None:
    ones, others = one.arrays(), other.arrays()
    assert ones.keys() == others.keys()
    for name, array in ones.items():
        assert array.dtype == others[name].dtype
        assert np.array_equal(array, others[name])


FIGURES = st.floats(allow_nan=False, allow_infinity=False)
ABOUTS = st.fixed_dictionaries(
    {
        "encoder": st.text(),
        "dimensions": st.just(3),
        "domains": st.lists(st.text(max_size=9), min_size=2, max_size=5, unique=True).map(tuple),
        "temperature": st.floats(0.01, 100),
        "corpus_hash": st.text("0123456789abcdef", min_size=12, max_size=12),
        "rows": st.integers(0, 2**40),
        "held_out": st.dictionaries(st.text(max_size=9), FIGURES, max_size=4),
        "libraries": st.dictionaries(st.text(max_size=9), st.text(max_size=9), max_size=4),
    }
)


@given(ABOUTS, st.integers(0, 2**32), st.sampled_from([linear, kernel]))
@settings(deadline=None, max_examples=40)
def test_what_is_saved_is_what_is_loaded(
    about: dict[str, Any], seed: int, make: Callable[[int, int, int], Head]
) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        head = make(seed, len(about["domains"]), 3)
        written = save_artifact(Path(scratch) / "router", encoder_folder(Path(scratch)), head, about)
        loaded = load_artifact(Path(scratch) / "router")
    assert loaded.manifest == written
    assert {key: getattr(loaded.manifest, key) for key in about} == about
    assert loaded.manifest.head == loaded.head.name == head.name
    assert_same_arrays(loaded.head, head)


def test_the_encoder_comes_from_the_folder_that_the_manifest_names(tmp_path: Path) -> None:
    loaded = load_artifact(saved(tmp_path))
    assert isinstance(loaded.encoder, FolderEncoder)
    assert (loaded.encoder.name, loaded.manifest.encoder_kind) == ("folder-3", "folder")
    assert (loaded.folder / loaded.manifest.encoder_folder / "model.onnx").is_file()


def test_a_saved_router_needs_nothing_outside_its_folder(tmp_path: Path) -> None:
    folder = saved(tmp_path)
    moved = folder.rename(tmp_path / "moved")
    for file in sorted((tmp_path / "export").rglob("*"), reverse=True):
        file.unlink() if file.is_file() else file.rmdir()
    assert load_artifact(moved).manifest == read_manifest(moved)


def test_the_same_head_has_the_same_name_and_another_head_another(tmp_path: Path) -> None:
    names = [load_artifact(saved(tmp_path, linear(seed))).name for seed in (1, 1, 2)]
    assert names[0] == names[1] != names[2]
    assert all(len(name) == 12 for name in names)


def test_the_manifest_names_every_file_with_its_hash(tmp_path: Path) -> None:
    folder = saved(tmp_path)
    manifest = read_manifest(folder)
    assert {"manifest.json", *manifest.files} == set(state_of(folder))
    assert damaged_files(folder, manifest) == []


def test_the_packaged_router_is_whole(packaged: Artifact) -> None:
    assert damaged_files(PACKAGED, packaged.manifest) == []
    assert {path.name for path in PACKAGED.iterdir()} == {
        "manifest.json",
        packaged.manifest.encoder_folder,
        packaged.manifest.head_file,
    }


def test_a_folder_without_a_router_says_how_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"no trained router in .*nowhere; run: moe-gateway train"):
        load_artifact(tmp_path / "nowhere")


def path_of(folder: Path, file: str) -> Path:
    """Where a file of the encoder lies, or the head."""
    manifest = read_manifest(folder)
    return folder.joinpath(manifest.head_file if file == "head" else f"{manifest.encoder_folder}/{file}")


def flip(data: bytes) -> bytes:
    """`data` with one bit in its middle turned over."""
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


@pytest.mark.parametrize("file", ["head", *FILES])
@pytest.mark.parametrize(
    "harm", [flip, lambda data: data[: len(data) // 2], lambda data: b"", lambda data: data + b" "]
)
def test_a_file_that_was_damaged_is_refused_by_name(tmp_path: Path, file: str, harm: Callable[[bytes], bytes]) -> None:
    folder = saved(tmp_path)
    path = path_of(folder, file)
    path.write_bytes(harm(path.read_bytes()))
    with pytest.raises(ArtifactError) as caught:
        load_artifact(folder)
    assert str(caught.value) == f"{path} is damaged: it is not the file that the manifest names; run: moe-gateway train"
    assert damaged_files(folder, read_manifest(folder)) == [path]


@pytest.mark.parametrize("file", ["head", *FILES])
def test_a_file_that_is_missing_is_refused_by_name(tmp_path: Path, file: str) -> None:
    folder = saved(tmp_path)
    path = path_of(folder, file)
    path.unlink()
    with pytest.raises(ArtifactError) as caught:
        load_artifact(folder)
    assert str(caught.value) == f"{path} is missing; run: moe-gateway train"


def cut(text: str) -> str:
    return text[: len(text) // 2]


def with_key(key: str, value: Any) -> Callable[[str], str]:
    return lambda text: json.dumps({**json.loads(text), key: value})


@pytest.mark.parametrize(
    "harm",
    [
        cut,
        lambda text: "",
        lambda text: "[]",
        lambda text: "\ufeff",
        with_key("unheard_of", 1),
        with_key("rows", "many"),
        with_key("format", 2),
    ],
)
def test_a_damaged_manifest_is_refused_by_name(tmp_path: Path, harm: Callable[[str], str]) -> None:
    folder = saved(tmp_path)
    path = folder / "manifest.json"
    path.write_text(harm(path.read_text("utf-8")), "utf-8")
    with pytest.raises(ArtifactError) as caught:
        load_artifact(folder)
    assert str(caught.value) == f"{path} is damaged; run: moe-gateway train"


@given(st.binary(max_size=200))
@settings(deadline=None, max_examples=30)
def test_no_bytes_in_place_of_the_manifest_raise_anything_but_an_artifact_error(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        (Path(scratch) / "manifest.json").write_bytes(data)
        with pytest.raises(ArtifactError, match=r"manifest\.json is damaged"):
            load_artifact(Path(scratch))


def named_in_the_manifest(folder: Path, data: bytes) -> Path:
    """Put `data` in place of the head and its hash into the manifest: what an attacker or another version would do."""
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text("utf-8"))
    head = folder / str(manifest["head_file"])
    head.write_bytes(data)
    manifest["files"][head.name] = hashlib.sha256(data).hexdigest()
    path.write_text(json.dumps(manifest), "utf-8")
    return head


SPRUNG: list[str] = []


def spring(what: str) -> None:
    SPRUNG.append(what)


class Trap:
    """Tells when it is unpickled."""

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return spring, ("unpickled",)


def archive(**arrays: NDArray[Any]) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()


TRAPS = {
    "pickle": pickle.dumps(Trap()),
    "array of objects": archive(weights=np.array([Trap()], dtype=object), bias=np.zeros(2)),
}


def test_a_trap_springs_where_something_is_unpickled() -> None:
    SPRUNG.clear()
    pickle.loads(TRAPS["pickle"])  # noqa: S301 - its own
    assert SPRUNG == ["unpickled"]


@pytest.mark.parametrize("data", TRAPS.values(), ids=TRAPS)
def test_nothing_pickled_is_loaded(tmp_path: Path, data: bytes) -> None:
    folder = saved(tmp_path)
    head = named_in_the_manifest(folder, data)
    SPRUNG.clear()
    with pytest.raises(ArtifactError, match=head.name):
        load_artifact(folder)
    assert SPRUNG == []


def test_nothing_is_pickled_when_a_router_is_saved(tmp_path: Path) -> None:
    class Objects(LinearHead):
        def arrays(self) -> dict[str, NDArray[Any]]:
            return {"weights": np.array([Trap()], dtype=object)}

    with pytest.raises(ValueError, match="allow_pickle"):
        saved(tmp_path, Objects(np.zeros((2, 3), dtype=np.float32), np.zeros(2, dtype=np.float32)))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"no archive at all",
        archive(bias=np.zeros(2, dtype=np.float32)),
        archive(weights=np.zeros((2, 3)), bias=np.zeros(3)),
        archive(weights=np.zeros((2, 3)), bias=np.zeros(2))[:-40],
    ],
    ids=["empty", "no archive", "array missing", "arrays do not fit", "cut archive"],
)
def test_a_head_that_cannot_be_read_is_an_artifact_error_even_if_the_manifest_agrees(
    tmp_path: Path, data: bytes
) -> None:
    folder = saved(tmp_path)
    head = named_in_the_manifest(folder, data)
    with pytest.raises(ArtifactError, match=head.name):
        load_artifact(folder)


@pytest.mark.parametrize("make", [linear, kernel])
def test_a_head_for_another_number_of_domains_is_refused(tmp_path: Path, make: Callable[[int, int, int], Head]) -> None:
    with pytest.raises(ArtifactError, match="do not fit together"):
        load_artifact(saved(tmp_path, make(0, 3, 3)))


@pytest.mark.parametrize("make", [linear, kernel])
def test_a_head_for_another_encoder_is_refused(tmp_path: Path, make: Callable[[int, int, int], Head]) -> None:
    with pytest.raises(ArtifactError, match="do not fit together"):
        load_artifact(saved(tmp_path, make(0, 2, 4)))


def test_an_encoder_of_another_width_than_the_manifest_says_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="do not fit together"):
        load_artifact(saved(tmp_path, dimensions=4))


@pytest.mark.parametrize("key", ["encoder_kind", "head"])
def test_a_kind_that_only_another_version_knows_is_refused(tmp_path: Path, key: str) -> None:
    folder = saved(tmp_path)
    path = folder / "manifest.json"
    path.write_text(with_key(key, "of tomorrow")(path.read_text("utf-8")), "utf-8")
    with pytest.raises(ArtifactError, match="was trained by another version; run: moe-gateway train"):
        load_artifact(folder)


def test_retraining_writes_the_head_and_the_manifest_and_leaves_the_encoder_untouched(tmp_path: Path) -> None:
    folder = saved(tmp_path, linear(1))
    before = state_of(folder)
    encoder = folder / read_manifest(folder).encoder_folder
    save_artifact(folder, encoder, linear(2), ABOUT)
    after = state_of(folder)
    kept = {name for name in after if after[name] == before.get(name)}
    assert kept == {f"{encoder.name}/{file}" for file in FILES}
    assert set(after) - kept == {"manifest.json", read_manifest(folder).head_file}


def test_retraining_with_the_exported_encoder_again_copies_nothing(tmp_path: Path) -> None:
    folder = saved(tmp_path, linear(1))
    before = state_of(folder / read_manifest(folder).encoder_folder)
    assert state_of(saved(tmp_path, linear(2)) / read_manifest(folder).encoder_folder) == before


def test_the_old_head_is_cleared_away(tmp_path: Path) -> None:
    old = read_manifest(saved(tmp_path, linear(1))).head_file
    folder = saved(tmp_path, linear(2))
    assert [path.name for path in folder.glob("head-*.npz")] == [read_manifest(folder).head_file] != [old]


def test_nothing_is_left_lying_about(tmp_path: Path) -> None:
    saved(tmp_path, linear(1))
    folder = saved(tmp_path, linear(2))
    assert not [name for name in state_of(folder) if name.startswith(".")]


def test_retraining_over_a_damaged_encoder_makes_a_router_that_loads(tmp_path: Path) -> None:
    folder = saved(tmp_path, linear(1))
    path = path_of(folder, "model.onnx")
    whole = path.read_bytes()
    path.write_bytes(whole[:4])
    saved(tmp_path, linear(2))  # from the exported encoder, which is whole
    assert path_of(folder, "model.onnx").read_bytes() == whole
    assert damaged_files(folder, read_manifest(folder)) == []


@pytest.mark.parametrize("file", FILES)
def test_retraining_over_an_encoder_of_which_a_file_is_missing_brings_it_back(tmp_path: Path, file: str) -> None:
    folder = saved(tmp_path, linear(1))
    path = path_of(folder, file)
    path.unlink()
    saved(tmp_path, linear(2))
    assert path.is_file()
    assert load_artifact(folder)


def test_a_half_written_new_head_does_not_break_the_old_router(tmp_path: Path) -> None:
    folder = saved(tmp_path, linear(1))
    old = load_artifact(folder)
    (folder / "head-ffffffffffff.npz").write_bytes(b"PK half of")
    (folder / ".head-ffffffffffff.npz.4711").write_bytes(b"P")
    (folder / ".manifest.json.4711").write_bytes(b"{")
    assert load_artifact(folder).name == old.name
    assert_same_arrays(load_artifact(folder).head, old.head)


@pytest.mark.parametrize("file", ["head", *FILES])
def test_a_manifest_that_leaves_out_a_file_is_refused_so_that_nothing_is_loaded_unseen(
    tmp_path: Path, file: str
) -> None:
    folder = saved(tmp_path)
    unnamed = str(path_of(folder, file).relative_to(folder))
    manifest = json.loads((folder / "manifest.json").read_text("utf-8"))
    del manifest["files"][unnamed]
    (folder / "manifest.json").write_text(json.dumps(manifest), "utf-8")
    with pytest.raises(ArtifactError, match="does not name every file"):
        load_artifact(folder)


@pytest.mark.parametrize("key", ["head_file", "encoder_folder"])
@pytest.mark.parametrize("name", ["../elsewhere", "/elsewhere", "a/../../b", "", ".hidden", "a\x00b"])
def test_a_manifest_that_points_out_of_its_folder_is_refused(tmp_path: Path, key: str, name: str) -> None:
    folder = saved(tmp_path)
    path = folder / "manifest.json"
    path.write_text(with_key(key, name)(path.read_text("utf-8")), "utf-8")
    with pytest.raises(ArtifactError, match=r"manifest\.json is damaged"):
        load_artifact(folder)


@pytest.mark.parametrize("temperature", [0, -1, "nan", "inf"])
def test_a_temperature_that_makes_no_probabilities_is_refused(tmp_path: Path, temperature: object) -> None:
    folder = saved(tmp_path)
    path = folder / "manifest.json"
    path.write_text(with_key("temperature", temperature)(path.read_text("utf-8")), "utf-8")
    with pytest.raises(ArtifactError, match=r"manifest\.json is damaged"):
        load_artifact(folder)


class Stops(LinearHead):
    """A head whose saving is cut short."""

    def arrays(self) -> dict[str, NDArray[Any]]:
        raise KeyboardInterrupt


def test_a_retraining_that_is_interrupted_leaves_the_old_router(tmp_path: Path) -> None:
    folder = saved(tmp_path, linear(1))
    before = state_of(folder)
    with pytest.raises(KeyboardInterrupt):
        saved(tmp_path, Stops(np.zeros((2, 3), dtype=np.float32), np.zeros(2, dtype=np.float32)))
    assert state_of(folder) == before


def test_a_retraining_that_fails_after_the_head_was_written_leaves_the_old_router(tmp_path: Path) -> None:
    folder = saved(tmp_path, linear(1))
    old = read_manifest(folder)
    with pytest.raises(ValueError, match="rows"):
        saved(tmp_path, linear(2), rows="many")
    assert load_artifact(folder).manifest == old


@pytest.fixture
def retraining_kind() -> Iterator[list[Callable[[], object]]]:
    """The encoder kind `retraining` does what is in the list while it is being loaded."""
    due: list[Callable[[], object]] = []

    class RetrainingEncoder(FolderEncoder):
        def __init__(self, folder: Path) -> None:
            super().__init__(folder)
            while due:
                due.pop()()

    ENCODERS["retraining"] = RetrainingEncoder
    yield due
    del ENCODERS["retraining"]


def test_a_router_that_is_retrained_while_it_is_loaded_is_the_old_or_the_new_one(
    tmp_path: Path, retraining_kind: list[Callable[[], object]]
) -> None:
    encoder = encoder_folder(tmp_path / "export", kind="retraining")
    folder = tmp_path / "router"
    old = save_artifact(folder, encoder, linear(1), ABOUT)
    retraining_kind.append(lambda: save_artifact(folder, encoder, linear(2), ABOUT))
    loaded = load_artifact(folder)
    assert loaded.manifest in (old, read_manifest(folder))
    assert_same_arrays(loaded.head, linear(1) if loaded.manifest == old else linear(2))


def test_whoever_reads_while_it_is_being_retrained_finds_a_whole_router(tmp_path: Path) -> None:
    folder = saved(tmp_path, linear(0))
    with ThreadPoolExecutor(3) as pool:
        for seed in range(1, 20):
            writing = pool.submit(saved, tmp_path, linear(seed))
            readings = [pool.submit(load_artifact, folder) for _ in range(2)]
            writing.result()
            for reading in readings:
                assert_same_arrays(
                    reading.result().head, linear(seed if reading.result().name == name_of(seed) else seed - 1)
                )


def name_of(seed: int) -> str:
    """The name of the router whose head is linear(seed)."""
    with tempfile.TemporaryDirectory() as scratch:
        return load_artifact(saved(Path(scratch), linear(seed))).name


def test_two_that_retrain_at_once_leave_one_whole_router(tmp_path: Path) -> None:
    encoder = encoder_folder(tmp_path / "export")
    folder = tmp_path / "router"
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda seed: save_artifact(folder, encoder, linear(seed), ABOUT), range(16)))
    assert load_artifact(folder).name in {name_of(seed) for seed in range(16)}
    assert damaged_files(folder, read_manifest(folder)) == []


def test_a_manifest_cannot_be_changed_once_read(tmp_path: Path) -> None:
    manifest = read_manifest(saved(tmp_path))
    with pytest.raises(ValueError, match="frozen"):
        manifest.rows = 9
    assert isinstance(manifest, Manifest)


def test_the_committed_encoder_holds_no_path_of_the_machine_that_exported_it() -> None:
    manifest = read_manifest(PACKAGED)
    model = (PACKAGED / manifest.encoder_folder / "model.onnx").read_bytes()
    assert b".py" not in model
    assert b"stack_trace" not in model
