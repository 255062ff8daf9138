from __future__ import annotations

import hashlib
import io
import json
import pickle
import tempfile
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
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
    is_of_another_format,
    kind_of,
    load_artifact,
    read_manifest,
    read_vectors,
    save_artifact,
)
from router.calibration import Calibrator, Isotonic, Temperature
from router.cascade import Stage
from router.classifier import Head, KernelHead, LinearHead
from router.detectors import Detectors
from router.encoder import ENCODERS, FILES
from router.errors import ArtifactError
from router.vectors import Vectors
from tests.fakes.encoders import ABOUT, FolderEncoder, encoder_folder, stage_of

TEXTS = ["one", "two", "three"]
SIZES = {"static": 2, "transformer": 3}  # each stage's dimensions
PARTS = ["heads", "vectors", *(f"{stage}/{file}" for stage in SIZES for file in FILES)]


def figures(seed: int, *shape: int) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def linear(seed: int = 0, domains: int = 2, dimensions: int = 3) -> LinearHead:
    return LinearHead(figures(seed, domains, dimensions), figures(seed + 1, domains))


def kernel(seed: int = 0, domains: int = 2, dimensions: int = 3) -> KernelHead:
    return KernelHead(figures(seed, 5, dimensions).astype(np.float16), figures(seed + 1, 5, domains), gamma=0.4)


def temperature(seed: int = 0, domains: int = 2) -> Temperature:
    return Temperature(0.5 + seed % 7)


def isotonic(seed: int = 0, domains: int = 2) -> Isotonic:
    knots = np.tile(np.linspace(0, 1, 4), (domains, 1))
    return Isotonic(temperature(seed), knots, np.sort(np.abs(figures(seed, domains, 4)), axis=1))


def detectors(seed: int = 0, added: int = 0, dimensions: int = 3) -> Detectors:
    return Detectors(figures(seed, added, dimensions), figures(seed + 1, added))


def exported(parent: Path, stage: str) -> Path:
    """The folder of the stage's encoder as an export leaves it."""
    name = f"folder-{SIZES[stage]}"
    return next((parent / "export").glob(f"{name}-*"), None) or encoder_folder(
        parent / "export", name=name, dimensions=SIZES[stage]
    )


def two_stages(parent: Path, seed: int = 0) -> list[tuple[Stage, Path]]:
    """A cheap and a good stage over two domains, and the folders of their encoders."""
    folders = {name: exported(parent, name) for name in SIZES}
    cheap, best = (FolderEncoder(folder) for folder in folders.values())
    return [
        (stage_of(cheap, linear(seed, 2, 2), "static", temperature=1 + seed, sure=0.9), folders["static"]),
        (replace(stage_of(best, linear(seed, 2, 3), temperature=2 + seed), blend=0.5), folders["transformer"]),
    ]


def vectors(seed: int = 0) -> Vectors:
    return Vectors.of(TEXTS, {f"folder-{size}": figures(seed, len(TEXTS), size) for size in SIZES.values()})


def saved(parent: Path, seed: int = 0, **about: Any) -> Path:
    """A folder with a saved router."""
    save_artifact(parent / "router", two_stages(parent, seed), vectors(seed), {**ABOUT, **about})
    return parent / "router"


def state_of(folder: Path) -> dict[str, tuple[int, int, bytes]]:
    """Every file below `folder`: its inode, the time of its last change and its content."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(p.relative_to(folder)): (p.stat().st_ino, p.stat().st_mtime_ns, p.read_bytes()) for p in files}


def assert_same_arrays(ones: Mapping[str, NDArray[Any]], others: Mapping[str, NDArray[Any]]) -> None:
    assert ones.keys() == others.keys()
    for name, array in ones.items():
        assert array.dtype == others[name].dtype
        assert np.array_equal(array, others[name])


def arrays_of(stage: Stage) -> dict[str, NDArray[Any]]:
    parts = {"head": stage.head.arrays(), "calibrator": stage.calibrator.arrays(), "added": stage.detectors.arrays()}
    return {f"{part}.{name}": array for part, arrays in parts.items() for name, array in arrays.items()}


def assert_is(artifact: Artifact, seed: int) -> None:
    """`artifact` is that of saved(…, seed), stage for stage."""
    with tempfile.TemporaryDirectory() as scratch:
        wanted = [stage for stage, _ in two_stages(Path(scratch), seed)]
    for found, stage in zip(artifact.stages, wanted, strict=True):
        assert_same_arrays(arrays_of(found), arrays_of(stage))


NAMES = st.lists(st.text(max_size=9), min_size=3, max_size=5, unique=True).map(tuple)
FIGURES = st.floats(allow_nan=False, allow_infinity=False)
ABOUTS = st.fixed_dictionaries(
    {
        "domains": NAMES,
        "corpus_hash": st.text("0123456789abcdef", min_size=12, max_size=12),
        "rows": st.integers(0, 2**40),
        "held_out": st.dictionaries(st.text(max_size=9), FIGURES, max_size=4),
        "libraries": st.dictionaries(st.text(max_size=9), st.text(max_size=9), max_size=4),
    }
)


@given(ABOUTS, st.integers(0, 999), st.sampled_from([linear, kernel]), st.sampled_from([temperature, isotonic]))
@settings(deadline=None, max_examples=20)
def test_what_is_saved_is_what_is_loaded(
    about: dict[str, Any], seed: int, head: Callable[..., Head], calibrator: Callable[..., Calibrator]
) -> None:
    known = len(about["domains"]) - 1
    about = {**about, "added": about["domains"][known:]}
    with tempfile.TemporaryDirectory() as scratch:
        stages = [
            (
                replace(
                    stage,
                    head=head(seed, known, stage.encoder.dimensions),
                    calibrator=calibrator(seed, known),
                    detectors=detectors(seed, 1, stage.encoder.dimensions),
                ),
                folder,
            )
            for stage, folder in two_stages(Path(scratch), seed)
        ]
        written = save_artifact(Path(scratch) / "router", stages, vectors(seed), about)
        loaded = load_artifact(Path(scratch) / "router")
        kept = loaded.vectors()
    assert loaded.manifest == written
    assert {key: getattr(loaded.manifest, key) for key in about} == about
    assert_same_arrays(kept.arrays(), vectors(seed).arrays())
    for (stage, folder), found, told in zip(stages, loaded.stages, written.stages, strict=True):
        assert_same_arrays(arrays_of(found), arrays_of(stage))
        assert (found.name, found.sure, found.blend, found.head.name, found.calibrator.name) == (
            *(stage.name, stage.sure, stage.blend),
            *(stage.head.name, stage.calibrator.name),
        )
        assert (told.name, told.encoder, told.encoder_folder) == (stage.name, stage.encoder.name, folder.name)
        assert np.array_equal(found.probabilities(TEXTS), stage.probabilities(TEXTS))


def test_the_encoders_come_from_the_folders_that_the_manifest_names(tmp_path: Path) -> None:
    loaded = load_artifact(saved(tmp_path))
    assert [(s.encoder.name, s.encoder.dimensions) for s in loaded.stages] == [("folder-2", 2), ("folder-3", 3)]
    assert [stage.encoder_kind for stage in loaded.manifest.stages] == ["folder", "folder"]
    assert loaded.manifest.encoder == "folder-3"
    assert all((loaded.folder / stage.encoder_folder / "model.onnx").is_file() for stage in loaded.manifest.stages)


def test_a_saved_router_needs_nothing_outside_its_folder(tmp_path: Path) -> None:
    folder = saved(tmp_path)
    moved = folder.rename(tmp_path / "moved")
    for file in sorted((tmp_path / "export").rglob("*"), reverse=True):
        file.unlink() if file.is_file() else file.rmdir()
    assert load_artifact(moved).manifest == read_manifest(moved)


def test_the_same_heads_have_the_same_name_and_others_another(tmp_path: Path) -> None:
    names = [load_artifact(saved(tmp_path, seed)).name for seed in (1, 1, 2)]
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
        *(stage.encoder_folder for stage in packaged.manifest.stages),
        packaged.manifest.heads_file,
        packaged.manifest.vectors_file,
    }


def test_the_committed_encoders_hold_no_path_of_the_machine_that_exported_them(packaged: Artifact) -> None:
    for name in packaged.manifest.files:
        data = (PACKAGED / name).read_bytes()
        assert not [word for word in (b"stack_trace", b"site-packages", b"/home/", b"/work/", b"/tmp/") if word in data]


def test_a_folder_without_a_router_says_how_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"no trained router in .*nowhere; run: moe-gateway train"):
        load_artifact(tmp_path / "nowhere")


def test_the_kind_of_an_encoder_is_what_its_folder_says(tmp_path: Path) -> None:
    folder = exported(tmp_path, "static")
    assert kind_of(folder) == "folder"
    for text in ("{", "{}", "[]", "null"):
        (folder / "encoder.json").write_text(text, "utf-8")
        with pytest.raises(ArtifactError, match="holds no encoder"):
            kind_of(folder)
    with pytest.raises(ArtifactError, match="holds no encoder"):
        kind_of(tmp_path / "nowhere")


# What is damaged


def path_of(folder: Path, part: str) -> Path:
    """Where one of PARTS lies."""
    manifest = read_manifest(folder)
    if part in ("heads", "vectors"):
        return folder / (manifest.heads_file if part == "heads" else manifest.vectors_file)
    stage, file = part.split("/")
    return folder / manifest.stages[list(SIZES).index(stage)].encoder_folder / file


def flip(data: bytes) -> bytes:
    """`data` with one bit in its middle turned over."""
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize(
    "harm", [flip, lambda data: data[: len(data) // 2], lambda data: b"", lambda data: data + b" "]
)
def test_a_file_that_was_damaged_is_refused_by_name(tmp_path: Path, part: str, harm: Callable[[bytes], bytes]) -> None:
    folder = saved(tmp_path)
    path = path_of(folder, part)
    path.write_bytes(harm(path.read_bytes()))
    with pytest.raises(ArtifactError) as caught:
        load_artifact(folder)
    assert str(caught.value) == f"{path} is damaged: it is not the file that the manifest names; run: moe-gateway train"
    assert damaged_files(folder, read_manifest(folder)) == [path]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a saved router that is left as it is found."""
    return saved(tmp_path_factory.mktemp("whole"))


@given(st.sampled_from(PARTS), st.data())
@settings(deadline=None, max_examples=60)
def test_every_damaged_byte_is_found(whole: Path, part: str, chance: st.DataObject) -> None:
    path = path_of(whole, part)
    data = path.read_bytes()
    place = chance.draw(st.integers(0, len(data) - 1))
    other = chance.draw(st.integers(0, 255).filter(lambda value: value != data[place]))
    path.write_bytes(data[:place] + bytes([other]) + data[place + 1 :])
    try:
        with pytest.raises(ArtifactError, match=f"{path.name} is damaged"):
            load_artifact(whole)
    finally:
        path.write_bytes(data)


@pytest.mark.parametrize("part", PARTS)
def test_a_file_that_is_missing_is_refused_by_name(tmp_path: Path, part: str) -> None:
    folder = saved(tmp_path)
    path = path_of(folder, part)
    path.unlink()
    with pytest.raises(ArtifactError) as caught:
        load_artifact(folder)
    assert str(caught.value) == f"{path} is missing; run: moe-gateway train"


@pytest.mark.parametrize("harm", [flip, lambda data: b""])
def test_vectors_that_were_damaged_since_are_refused_when_they_are_read(
    tmp_path: Path, harm: Callable[[bytes], bytes]
) -> None:
    loaded = load_artifact(saved(tmp_path))
    path = path_of(loaded.folder, "vectors")
    path.write_bytes(harm(path.read_bytes()))
    with pytest.raises(ArtifactError, match=f"{path.name} is damaged or missing; run: moe-gateway train"):
        loaded.vectors()


def cut(text: str) -> str:
    return text[: len(text) // 2]


def with_key(key: str, value: Any) -> Callable[[str], str]:
    return lambda text: json.dumps({**json.loads(text), key: value})


def with_stage_key(key: str, value: Any) -> Callable[[str], str]:
    """Another value for a key of the last stage."""

    def changed(text: str) -> str:
        manifest = json.loads(text)
        manifest["stages"][-1][key] = value
        return json.dumps(manifest)

    return changed


@pytest.mark.parametrize(
    "harm",
    [
        cut,
        lambda text: "",
        lambda text: "[]",
        lambda text: "\ufeff",
        with_key("unheard_of", 1),
        with_key("rows", "many"),
        with_key("format", 1),
        with_key("format", 3),
        with_key("stages", []),
        with_stage_key("name", "none"),
        with_stage_key("sure", 1.1),
        with_stage_key("blend", -0.1),
        with_stage_key("sure", "nan"),
        with_stage_key("unheard_of", 1),
    ],
)
def test_a_damaged_manifest_is_refused_by_name(tmp_path: Path, harm: Callable[[str], str]) -> None:
    folder = saved(tmp_path)
    path = folder / "manifest.json"
    path.write_text(harm(path.read_text("utf-8")), "utf-8")
    with pytest.raises(ArtifactError) as caught:
        load_artifact(folder)
    assert str(caught.value) == f"{path} is damaged, or of another version; run: moe-gateway train"


@pytest.mark.parametrize(
    ("text", "another"),
    [
        ('{"format": 1}', True),
        ('{"format": 3, "unheard": "of"}', True),
        ('{"format": 2}', False),
        ("{", False),
        ("[]", False),
        ("{}", False),
        ("\ufeff", False),
    ],
)
def test_a_manifest_of_another_format_is_told_from_a_damaged_one(tmp_path: Path, text: str, another: bool) -> None:
    (tmp_path / "manifest.json").write_text(text, "utf-8")
    assert is_of_another_format(tmp_path) == another
    assert not is_of_another_format(tmp_path / "nowhere")
    assert not is_of_another_format(saved(tmp_path))


@given(st.binary(max_size=200))
@settings(deadline=None, max_examples=30)
def test_no_bytes_in_place_of_the_manifest_raise_anything_but_an_artifact_error(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        (Path(scratch) / "manifest.json").write_bytes(data)
        with pytest.raises(ArtifactError, match=r"manifest\.json is damaged"):
            load_artifact(Path(scratch))


def named_in_the_manifest(folder: Path, data: bytes, part: str = "heads") -> Path:
    """Put `data` in place of a file and its hash into the manifest: what an attacker or another version would do."""
    path, manifest = path_of(folder, part), json.loads((folder / "manifest.json").read_text("utf-8"))
    path.write_bytes(data)
    manifest["files"][path.name] = hashlib.sha256(data).hexdigest()
    (folder / "manifest.json").write_text(json.dumps(manifest), "utf-8")
    return path


SPRUNG: list[str] = []


def spring(what: str) -> None:
    SPRUNG.append(what)


class Trap:
    """Tells when it is unpickled."""

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return spring, ("unpickled",)


def archive(**arrays: Any) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def heads_archive(**changes: Any) -> bytes:
    """The heads of a router of two stages, some arrays replaced."""
    with tempfile.TemporaryDirectory() as scratch, np.load(path_of(saved(Path(scratch)), "heads")) as whole_file:
        return archive(**{**whole_file, **changes})


OBJECTS = np.array([Trap()], dtype=object)
TRAPS = {
    "heads": {"pickle": pickle.dumps(Trap()), "objects": heads_archive(**{"transformer.head.weights": OBJECTS})},
    "vectors": {"pickle": pickle.dumps(Trap()), "objects": archive(keys=OBJECTS)},
}


def test_a_trap_springs_where_something_is_unpickled() -> None:
    SPRUNG.clear()
    pickle.loads(TRAPS["heads"]["pickle"])  # noqa: S301 - its own
    assert SPRUNG == ["unpickled"]


@pytest.mark.parametrize("part", ["heads", "vectors"])
@pytest.mark.parametrize("trap", ["pickle", "objects"])
def test_nothing_pickled_is_loaded(tmp_path: Path, part: str, trap: str) -> None:
    folder = saved(tmp_path)
    path = named_in_the_manifest(folder, TRAPS[part][trap], part)
    SPRUNG.clear()
    with pytest.raises(ArtifactError, match=path.name):
        load_artifact(folder).vectors()
    assert SPRUNG == []


class Objects(LinearHead):
    """A head that would have to be pickled."""

    def arrays(self) -> dict[str, NDArray[Any]]:
        return {"weights": OBJECTS}


class Stops(LinearHead):
    """A head whose saving is cut short."""

    def arrays(self) -> dict[str, NDArray[Any]]:
        raise KeyboardInterrupt


def save_with(parent: Path, head: type[LinearHead]) -> None:
    *others, (stage, folder) = two_stages(parent)
    harmed = replace(stage, head=head(np.zeros((2, 3), dtype=np.float32), np.zeros(2, dtype=np.float32)))
    save_artifact(parent / "router", [*others, (harmed, folder)], vectors(), ABOUT)


def test_nothing_is_pickled_when_a_router_is_saved(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="allow_pickle"):
        save_with(tmp_path, Objects)


ZEROS = np.zeros((2, 3), dtype=np.float32)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"no archive at all",
        heads_archive()[:-40],
        archive(**{"transformer.head.weights": ZEROS}),
        heads_archive(**{"transformer.head.bias": np.zeros(3)}),
        heads_archive(**{"static.detectors.bias": np.zeros(3)}),
        heads_archive(**{"static.calibrator.temperature": np.array(0.0)}),
        heads_archive(**{"static.calibrator.temperature": np.array(np.nan)}),
        heads_archive(**{"static.calibrator.temperature": np.array("warm")}),
    ],
    ids=["empty", "no archive", "cut", "missing", "head", "detectors", "no temperature", "nan", "text"],
)
def test_heads_that_cannot_be_read_are_an_artifact_error_even_if_the_manifest_agrees(
    tmp_path: Path, data: bytes
) -> None:
    folder = saved(tmp_path)
    path = named_in_the_manifest(folder, data)
    with pytest.raises(ArtifactError, match=f"{path.name} cannot be used"):
        load_artifact(folder)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"no archive at all",
        archive(keys=np.zeros(3, dtype=np.uint64))[:-40],
        archive(tables=ZEROS),
        archive(keys=np.array(1)),
        archive(keys=np.zeros(3), **{"e.table": np.zeros((2, 3), dtype=np.int8), "e.scale": np.zeros(2)}),
        archive(keys=np.zeros(3), **{"e.table": np.zeros((3, 3), dtype=np.int8)}),
    ],
    ids=["empty", "no archive", "cut", "no keys", "one key", "fewer vectors", "no scale"],
)
def test_vectors_that_cannot_be_read_are_an_artifact_error_even_if_the_manifest_agrees(
    tmp_path: Path, data: bytes
) -> None:
    folder = saved(tmp_path)
    path = named_in_the_manifest(folder, data, "vectors")
    with pytest.raises(ArtifactError, match=f"{path.name} cannot be used"):
        read_vectors(folder, read_manifest(folder))


def ill_fitting(parent: Path, **changes: Any) -> Path:
    """A saved router whose last stage has other parts."""
    *others, (stage, folder) = two_stages(parent)
    save_artifact(parent / "router", [*others, (replace(stage, **changes), folder)], vectors(), ABOUT)
    return parent / "router"


@pytest.mark.parametrize(
    "changes",
    [
        {"head": linear(0, 3, 3)},
        {"head": kernel(0, 3, 3)},
        {"head": linear(0, 2, 4)},
        {"head": kernel(0, 2, 4)},
        {"calibrator": isotonic(0, 3)},
        {"calibrator": isotonic(0, 1)},
        {"detectors": detectors(0, 1)},
        {"head": linear(0, 1, 3), "detectors": detectors(0, 1, 4)},
    ],
)
def test_parts_that_do_not_fit_together_are_refused(tmp_path: Path, changes: dict[str, Any]) -> None:
    with pytest.raises(ArtifactError, match="do not fit together; run: moe-gateway train"):
        load_artifact(ill_fitting(tmp_path, **changes))


def test_an_encoder_of_another_width_than_the_manifest_says_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path) / "manifest.json"
    path.write_text(with_stage_key("dimensions", 4)(path.read_text("utf-8")), "utf-8")
    with pytest.raises(ArtifactError, match="do not fit together"):
        load_artifact(path.parent)


@pytest.mark.parametrize("key", ["encoder_kind", "head", "calibrator"])
def test_a_kind_that_only_another_version_knows_is_refused(tmp_path: Path, key: str) -> None:
    path = saved(tmp_path) / "manifest.json"
    path.write_text(with_stage_key(key, "of-tomorrow")(path.read_text("utf-8")), "utf-8")
    with pytest.raises(ArtifactError, match="was trained by another version; run: moe-gateway train"):
        load_artifact(path.parent)


@pytest.mark.parametrize("part", PARTS)
def test_a_manifest_that_leaves_out_a_file_is_refused_so_that_nothing_is_loaded_unseen(
    tmp_path: Path, part: str
) -> None:
    folder = saved(tmp_path)
    manifest = json.loads((folder / "manifest.json").read_text("utf-8"))
    del manifest["files"][str(path_of(folder, part).relative_to(folder))]
    (folder / "manifest.json").write_text(json.dumps(manifest), "utf-8")
    with pytest.raises(ArtifactError, match="does not name every file"):
        load_artifact(folder)


@pytest.mark.parametrize("harm", [with_key, with_stage_key])
@pytest.mark.parametrize("name", ["../elsewhere", "/elsewhere", "a/../../b", "", ".hidden", "a\x00b"])
def test_a_manifest_that_points_out_of_its_folder_is_refused(
    tmp_path: Path, harm: Callable[[str, Any], Callable[[str], str]], name: str
) -> None:
    path = saved(tmp_path) / "manifest.json"
    for key in ("heads_file", "vectors_file") if harm is with_key else ("encoder_folder",):
        path.write_text(harm(key, name)(path.read_text("utf-8")), "utf-8")
        with pytest.raises(ArtifactError, match=r"manifest\.json is damaged"):
            load_artifact(path.parent)


# Retraining


def test_retraining_writes_heads_vectors_and_manifest_and_leaves_the_encoders_untouched(tmp_path: Path) -> None:
    folder = saved(tmp_path, 1)
    before, encoders = state_of(folder), [stage.encoder_folder for stage in read_manifest(folder).stages]
    stages = [(stage, folder / name) for (stage, _), name in zip(two_stages(tmp_path, 2), encoders, strict=True)]
    after_manifest = save_artifact(folder, stages, vectors(2), ABOUT)
    after = state_of(folder)
    kept = {name for name in after if after[name] == before.get(name)}
    assert kept == {f"{encoder}/{file}" for encoder in encoders for file in FILES}
    assert set(after) - kept == {"manifest.json", after_manifest.heads_file, after_manifest.vectors_file}


def test_retraining_with_the_exported_encoders_again_copies_nothing(tmp_path: Path) -> None:
    encoders = [stage.encoder_folder for stage in read_manifest(saved(tmp_path, 1)).stages]
    before = [state_of(tmp_path / "router" / name) for name in encoders]
    folder = saved(tmp_path, 2)
    assert [state_of(folder / name) for name in encoders] == before


def test_old_heads_and_vectors_are_cleared_away(tmp_path: Path) -> None:
    old, new = (read_manifest(saved(tmp_path, seed)) for seed in (1, 2))
    assert {path.name for path in (tmp_path / "router").glob("*.npz")} == {new.heads_file, new.vectors_file}
    assert {old.heads_file, old.vectors_file}.isdisjoint({new.heads_file, new.vectors_file})


def with_other_encoders(parent: Path, seed: int = 2) -> Path:
    """The folder of saved(parent, …), with another router in it whose encoders have the same names and other content."""
    other = parent / f"newer-{seed}"
    for stage, folder in two_stages(other, seed):
        (folder / "model.onnx").write_text(f"another {stage.name}, {seed}", "utf-8")
        folder.rename(folder.with_name(f"{stage.encoder.name}-beef{seed}"))
    save_artifact(parent / "router", two_stages(other, seed), vectors(seed), ABOUT)
    return parent / "router"


def test_old_encoders_are_cleared_away_and_what_is_none_stays(tmp_path: Path) -> None:
    folder = saved(tmp_path, 1)
    (folder / "notes").mkdir()
    (folder / "notes" / "encoder.txt").write_text("mine", "utf-8")
    with_other_encoders(tmp_path)
    assert set(state_of(folder)) == {"manifest.json", "notes/encoder.txt", *read_manifest(folder).files}
    assert_is(load_artifact(folder), 2)


def test_what_a_loaded_router_may_still_read_stays_until_it_is_gone(tmp_path: Path) -> None:
    loaded = load_artifact(saved(tmp_path, 1))
    folder = with_other_encoders(tmp_path, 2)
    assert damaged_files(folder, loaded.manifest) == [folder / loaded.manifest.heads_file]  # they were read whole
    assert_same_arrays(loaded.vectors().arrays(), vectors(1).arrays())
    del loaded
    with_other_encoders(tmp_path, 3)
    assert set(state_of(folder)) == {"manifest.json", *read_manifest(folder).files}


def test_a_training_that_fails_clears_nothing_away(tmp_path: Path) -> None:
    folder = saved(tmp_path, 1)
    before = state_of(folder)
    with pytest.raises(ValueError, match="rows"):
        saved(tmp_path, 2, rows="many")
    assert {name: state_of(folder)[name] for name in before} == before


def test_nothing_is_left_lying_about(tmp_path: Path) -> None:
    saved(tmp_path, 1)
    folder = saved(tmp_path, 2)
    assert not [name for name in state_of(folder) if name.startswith(".")]


def test_retraining_over_a_damaged_encoder_makes_a_router_that_loads(tmp_path: Path) -> None:
    path = path_of(saved(tmp_path, 1), "transformer/model.onnx")
    whole_file = path.read_bytes()
    path.write_bytes(whole_file[:4])
    folder = saved(tmp_path, 2)  # from the exported encoders, which are whole
    assert path.read_bytes() == whole_file
    assert damaged_files(folder, read_manifest(folder)) == []


@pytest.mark.parametrize("file", FILES)
def test_retraining_over_an_encoder_of_which_a_file_is_missing_brings_it_back(tmp_path: Path, file: str) -> None:
    path = path_of(saved(tmp_path, 1), f"static/{file}")
    path.unlink()
    folder = saved(tmp_path, 2)
    assert path.is_file()
    assert_is(load_artifact(folder), 2)


def test_half_written_new_files_do_not_break_the_old_router(tmp_path: Path) -> None:
    folder = saved(tmp_path, 1)
    (folder / "heads-ffffffffffff.npz").write_bytes(b"PK half of")
    (folder / "vectors-ffffffffffff.npz").write_bytes(b"PK half of")
    (folder / ".heads-ffffffffffff.npz.4711").write_bytes(b"P")
    (folder / ".manifest.json.4711").write_bytes(b"{")
    assert_is(load_artifact(folder), 1)


def test_a_retraining_that_is_interrupted_leaves_the_old_router(tmp_path: Path) -> None:
    before = state_of(saved(tmp_path, 1))
    with pytest.raises(KeyboardInterrupt):
        save_with(tmp_path, Stops)
    assert state_of(tmp_path / "router") == before


def test_a_retraining_that_fails_after_the_heads_were_written_leaves_the_old_router(tmp_path: Path) -> None:
    folder = saved(tmp_path, 1)
    with pytest.raises(ValueError, match="rows"):
        saved(tmp_path, 2, rows="many")
    assert_is(load_artifact(folder), 1)
    assert_same_arrays(load_artifact(folder).vectors().arrays(), vectors(1).arrays())


@pytest.fixture
def retraining_kind() -> Iterator[list[Callable[[], object]]]:
    """The encoder kind `retraining` does what is in the list while it is being loaded."""
    due: list[Callable[[], object]] = []

    class RetrainingEncoder(FolderEncoder):
        def __init__(self, folder: Path) -> None:
            super().__init__(folder)
            while due:
                due.pop()()

    with ENCODERS.lending("retraining", RetrainingEncoder):
        yield due


def test_a_router_that_is_retrained_while_it_is_loaded_is_the_old_or_the_new_one(
    tmp_path: Path, retraining_kind: list[Callable[[], object]]
) -> None:
    for stage in SIZES:
        about = exported(tmp_path, stage) / "encoder.json"
        about.write_text(with_key("kind", "retraining")(about.read_text("utf-8")), "utf-8")
    folder = saved(tmp_path, 1)
    old = read_manifest(folder)
    retraining_kind.append(lambda: saved(tmp_path, 2))
    loaded = load_artifact(folder)
    assert read_manifest(folder) != old
    assert loaded.manifest in (old, read_manifest(folder))
    assert_is(loaded, 1 if loaded.manifest == old else 2)


def test_a_router_whose_files_went_while_it_was_loaded_is_the_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = saved(tmp_path, 1)
    read = Manifest.model_validate_json
    due = [lambda: saved(tmp_path, 2)]

    def then_retrained(data: bytes) -> Manifest:
        manifest = read(data)
        while due:
            due.pop()()
        return manifest

    monkeypatch.setattr(Manifest, "model_validate_json", then_retrained)
    assert_is(load_artifact(folder), 2)


def test_whoever_reads_while_it_is_being_retrained_finds_a_whole_router(tmp_path: Path) -> None:
    folder = saved(tmp_path, 0)
    names = {read_manifest(folder).heads_file: 0}
    with ThreadPoolExecutor(3) as pool:
        for seed in range(1, 12):
            writing = pool.submit(saved, tmp_path, seed)
            readings = [pool.submit(load_artifact, folder) for _ in range(2)]
            names[read_manifest(writing.result()).heads_file] = seed
            for reading in readings:
                assert_is(reading.result(), names[reading.result().manifest.heads_file])


def test_two_that_retrain_at_once_leave_one_whole_router(tmp_path: Path) -> None:
    two_stages(tmp_path)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda seed: saved(tmp_path, seed), range(12)))
    folder = tmp_path / "router"
    left = load_artifact(folder)
    with tempfile.TemporaryDirectory() as scratch:
        names = {load_artifact(saved(Path(scratch), seed)).name: seed for seed in range(12)}
    assert_is(left, names[left.name])
    assert_same_arrays(left.vectors().arrays(), vectors(names[left.name]).arrays())
    assert damaged_files(folder, left.manifest) == []


def test_a_manifest_cannot_be_changed_once_read(tmp_path: Path) -> None:
    manifest = read_manifest(saved(tmp_path))
    with pytest.raises(ValueError, match="frozen"):
        manifest.rows = 9
    assert isinstance(manifest, Manifest)
