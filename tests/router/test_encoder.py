from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from tokenizers import Tokenizer

from router.artifact import Artifact, kind_of
from router.dataset import load_corpus
from router.encoder import (
    ENCODERS,
    MAX_TOKENS,
    SHARPNESS,
    Encoder,
    StaticEncoder,
    TransformerEncoder,
    quantised,
    restored,
)
from router.errors import ArtifactError
from router.ngrams import ngram_rows
from tests.fakes.corpora import small_corpus
from tests.fakes.encoders import tiny_encoder, tiny_static

Floats = NDArray[np.float32]
WORDS = ["gene", "tail", "word"]
TEXTS = [
    "How do I sort a list of dictionaries by a key in Python?",
    "segfault",
    "Prove that the square root of 2 is irrational.",
    "¿Qué hace la mitocondria en la célula, y por qué se dice que es su central eléctrica?",
    "Tell me a joke about librarians.",
    "x",
    "A goods train 320 m long takes 48 seconds to clear a viaduct of 1.12 km. Give its speed in km/h. " * 3,
]
TINY, SHIPPED = ["tiny-static", "tiny"], ["shipped-static", "shipped-transformer"]
KINDS: dict[str, Callable[[Path], Encoder]] = {
    "tiny-static": StaticEncoder,
    "shipped-static": StaticEncoder,
    "tiny": TransformerEncoder,
    "shipped-transformer": TransformerEncoder,
}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders of two small encoders that know the words of the small corpus."""
    folder, texts = tmp_path_factory.mktemp("tiny"), [*TEXTS, *WORDS, *(row.text for row in small_corpus())]
    return {"tiny-static": tiny_static(folder), "tiny": tiny_encoder(folder, texts)}


def folder_of(request: pytest.FixtureRequest, name: str) -> Path:
    """Where one of TINY or SHIPPED lies."""
    if name in TINY:
        tiny: dict[str, Path] = request.getfixturevalue("tiny")
        return tiny[name]
    packaged: Artifact = request.getfixturevalue("packaged")
    stage = packaged.manifest.stages[SHIPPED.index(name)]
    return packaged.folder / stage.encoder_folder


@pytest.fixture(scope="module", params=[*TINY, *SHIPPED])
def encoder(request: pytest.FixtureRequest) -> Encoder:
    return KINDS[request.param](folder_of(request, request.param))


@pytest.fixture(params=TINY)
def copied(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A copy of a small encoder that a test may damage."""
    return Path(shutil.copytree(folder_of(request, request.param), tmp_path / "encoder"))


def loaded(folder: Path) -> Encoder:
    return ENCODERS[kind_of(folder)](folder)


def one_by_one(encoder: Encoder, texts: list[str]) -> Floats:
    return np.vstack([encoder.encode([text]) for text in texts])


def assert_same(encoder: Encoder, ones: Floats, others: Floats) -> None:
    """To the last bit for a transformer, whose scale a batch could change; sums in another order are not another vector."""
    assert np.allclose(ones, others, rtol=0, atol=0 if isinstance(encoder, TransformerEncoder) else 1e-6)


def test_an_encoder_knows_its_name_and_its_width(copied: Path) -> None:
    about = json.loads((copied / "encoder.json").read_text("utf-8"))
    encoder = loaded(copied)
    assert (encoder.name, encoder.dimensions) == (about["name"], about["dimensions"])


def test_the_shipped_encoders_are_what_the_manifest_says(packaged: Artifact) -> None:
    for stage, about in zip(packaged.stages, packaged.manifest.stages, strict=True):
        assert (stage.encoder.name, stage.encoder.dimensions) == (about.encoder, about.dimensions)
        assert isinstance(stage.encoder, StaticEncoder if about.name == "static" else TransformerEncoder)


def test_every_text_becomes_one_row_of_single_precision(encoder: Encoder) -> None:
    vectors = encoder.encode(TEXTS)
    assert vectors.shape == (len(TEXTS), encoder.dimensions)
    assert vectors.dtype == np.float32


def test_no_texts_become_no_rows(encoder: Encoder) -> None:
    vectors = encoder.encode([])
    assert vectors.shape == (0, encoder.dimensions)
    assert vectors.dtype == np.float32


@given(texts=st.lists(st.text(max_size=60), min_size=1, max_size=4))
@settings(deadline=None, max_examples=20)
def test_every_vector_has_length_one_whatever_the_text(encoder: Encoder, texts: list[str]) -> None:
    lengths = np.linalg.norm(encoder.encode(texts), axis=1)
    assert lengths == pytest.approx(np.ones(len(texts)), abs=1e-4)


@pytest.mark.parametrize("text", ["", " ", "\n", "\x00", "\u200b"])
def test_a_text_that_says_nothing_has_a_vector_too(encoder: Encoder, text: str) -> None:
    assert np.linalg.norm(encoder.encode([text])) == pytest.approx(1, abs=1e-4)


def test_the_same_text_has_the_same_vector(encoder: Encoder) -> None:
    assert np.array_equal(one_by_one(encoder, TEXTS), one_by_one(encoder, TEXTS))


def test_a_text_has_one_vector_whatever_it_is_embedded_with(encoder: Encoder) -> None:
    texts = [*TEXTS, "", *(row.text for row in load_corpus()[::800])]
    alone = one_by_one(encoder, texts)
    assert_same(encoder, encoder.encode(texts), alone)
    assert_same(encoder, encoder.encode(texts[::-1]), alone[::-1])
    assert len(np.unique(alone.round(3), axis=0)) > len(texts) / 2


def test_half_a_surrogate_pair_is_read_as_a_question_mark(encoder: Encoder) -> None:
    for texts in (["what \ud83d is"], ["what \ud83d is", "x"]):
        assert np.array_equal(encoder.encode(texts)[0], encoder.encode(["what ? is", "x"][: len(texts)])[0])


def test_threads_may_encode_at_the_same_time(encoder: Encoder) -> None:
    alone = [encoder.encode([text]) for text in TEXTS]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda text: encoder.encode([text]), TEXTS * 6))
    for i, vector in enumerate(together):
        assert np.array_equal(vector, alone[i % len(TEXTS)])


def test_a_very_long_text_counts_by_its_first_tokens(encoder: Encoder) -> None:
    start = "word " * 300
    assert np.array_equal(encoder.encode([start + "tail " * 5_000]), encoder.encode([start]))


def test_the_last_token_that_is_read_still_counts(tiny: dict[str, Path]) -> None:
    """Of a transformer's tokens some are the model's own marks."""
    encoder, room = TransformerEncoder(tiny["tiny"]), 63
    short, full, over = encoder.encode(["word " * (room - 1), "word " * (room - 1) + "gene", "word " * room + "gene"])
    assert not np.allclose(short, full, atol=1e-4)
    assert not np.allclose(full, over, atol=1e-4)
    assert np.allclose(over, encoder.encode(["word " * room])[0], atol=1e-6)


def test_the_folder_says_how_many_tokens_are_read(tiny: dict[str, Path], tmp_path: Path) -> None:
    path = Path(shutil.copytree(tiny["tiny"], tmp_path / "copied")) / "encoder.json"
    path.write_text(json.dumps({**json.loads(path.read_text("utf-8")), "max_tokens": 5}), "utf-8")
    encoder = TransformerEncoder(path.parent)
    assert np.array_equal(encoder.encode(["word gene tail word gene"]), encoder.encode(["word gene tail word tail"]))
    assert not np.allclose(encoder.encode(["word gene tail"]), encoder.encode(["word gene word"]), atol=1e-3)


@pytest.mark.parametrize("name", TINY)
@pytest.mark.parametrize("harm", ["missing", "empty", "cut"])
def test_a_folder_without_a_working_encoder_is_refused_by_name(
    request: pytest.FixtureRequest, tmp_path: Path, name: str, harm: str
) -> None:
    kind = StaticEncoder if name == "tiny-static" else TransformerEncoder
    for file in kind.FILES:
        folder = Path(shutil.copytree(folder_of(request, name), tmp_path / file))
        data = (folder / file).read_bytes()
        (folder / file).unlink()
        if harm != "missing":
            (folder / file).write_bytes(data[: len(data) // 2] if harm == "cut" else b"")
        with pytest.raises(ArtifactError) as caught:
            kind(folder)
        assert str(caught.value).startswith(f"the encoder in {folder} cannot be loaded: ")


def test_an_encoder_that_does_not_say_what_it_is_is_refused(copied: Path) -> None:
    path = copied / "encoder.json"
    kind, about = kind_of(copied), json.loads(path.read_text("utf-8"))
    assert {"name", "dimensions"} <= about.keys()
    for key in about.keys() - {"kind"}:
        path.write_text(json.dumps({name: value for name, value in about.items() if name != key}), "utf-8")
        with pytest.raises(ArtifactError, match=key):
            ENCODERS[kind](copied)


def test_every_encoder_is_registered_by_the_kind_that_folders_name(packaged: Artifact) -> None:
    for stage, about in zip(packaged.stages, packaged.manifest.stages, strict=True):
        assert ENCODERS[about.encoder_kind] is type(stage.encoder)
    assert {"static", "transformer"} <= set(ENCODERS)


# The transformer


def test_texts_of_like_meaning_are_nearer_than_others(packaged: Artifact) -> None:
    encoder = packaged.stages[-1].encoder
    cat, kitten, sql = encoder.encode(["The cat sleeps.", "A kitten is napping.", "SELECT id FROM users JOIN orders"])
    assert cat @ kitten > cat @ sql + 0.3


def test_the_shipped_transformer_reads_as_many_tokens_as_it_was_taught(request: pytest.FixtureRequest) -> None:
    about = json.loads((folder_of(request, "shipped-transformer") / "encoder.json").read_text("utf-8"))
    assert about["max_tokens"] == MAX_TOKENS


def test_every_loading_of_the_shipped_transformer_reads_the_same_tokens(request: pytest.FixtureRequest) -> None:
    """Or processes would decide otherwise. Two tokens for the same letters are what goes wrong here."""
    file = str(folder_of(request, "shipped-transformer") / "tokenizer.json")
    texts = [row.text for row in load_corpus() if row.language != "en"][::5]
    ids = [[found.ids for found in Tokenizer.from_file(file).encode_batch_fast(texts)] for _ in range(4)]
    assert [text for text, *read in zip(texts, *ids, strict=True) if read != read[:1] * 4] == []


# The static encoder


def test_a_static_vector_is_what_the_formula_says(tiny: dict[str, Path]) -> None:
    encoder, text = StaticEncoder(tiny["tiny-static"]), "sort a list of primes"
    with np.load(tiny["tiny-static"] / "table.npz") as table:
        ngrams = restored(table["ngrams"], table["ngrams_scale"])
        hidden, bias = table["hidden"], table["bias"]
    total = ngrams[ngram_rows(text, len(ngrams))].sum(axis=0)
    s = total / np.linalg.norm(total)
    h = np.maximum(0, hidden @ (SHARPNESS * s) + bias)
    expected = np.concatenate([s, h / np.linalg.norm(h)]) / np.sqrt(2)
    assert encoder.encode([text])[0] == pytest.approx(expected, abs=1e-5)


def rewritten(folder: Path, **changes: NDArray[np.generic]) -> Path:
    """`folder` with other arrays in its table."""
    with np.load(folder / "table.npz") as table:
        arrays = {**table, **changes}
    np.savez(folder / "table.npz", allow_pickle=False, **arrays)
    return folder


@pytest.mark.parametrize(
    "changes",
    [
        {"ngrams": np.zeros((0, 24), dtype=np.int8), "ngrams_scale": np.zeros(0)},
        {"ngrams": np.zeros((1, 24), dtype=np.int8), "ngrams_scale": np.zeros(1)},
        {"ngrams": np.zeros((500, 24), dtype=np.int8), "ngrams_scale": np.zeros(500)},  # not a power of two
        {"ngrams": np.zeros((512, 24), dtype=np.float32), "ngrams_scale": np.zeros(512)},
        {"ngrams": np.zeros((512, 23), dtype=np.int8), "ngrams_scale": np.zeros(512)},
        {"ngrams_scale": np.zeros(3)},
        {"hidden": np.zeros((24, 23))},
        {"hidden": np.zeros((23, 24))},
        {"bias": np.zeros(23)},
        {"bias": np.array([object()] * 24, dtype=object)},
    ],
)
def test_tables_that_do_not_fit_are_refused(
    tiny: dict[str, Path], tmp_path: Path, changes: dict[str, NDArray[np.generic]]
) -> None:
    folder = Path(shutil.copytree(tiny["tiny-static"], tmp_path / "static"))
    if "bias" in changes and changes["bias"].dtype == object:
        with np.load(folder / "table.npz") as table:
            np.savez(folder / "table.npz", **{**table, **changes})
    else:
        rewritten(folder, **changes)
    with pytest.raises(ArtifactError, match="cannot be loaded"):
        StaticEncoder(folder)


# Eight bits


@given(st.integers(0, 999), st.integers(0, 6), st.integers(1, 9), st.floats(-3, 3))
@settings(deadline=None, max_examples=50)
def test_what_is_kept_in_eight_bits_is_off_by_half_a_step_at_most(
    seed: int, rows: int, width: int, magnitude: float
) -> None:
    vectors = np.random.default_rng(seed).normal(size=(rows, width)).astype(np.float32) * np.float32(10**magnitude)
    table, scale = quantised(vectors)
    assert (table.dtype, scale.dtype) == (np.dtype(np.int8), np.dtype(np.float16))
    step = np.abs(vectors).max(axis=1, keepdims=True) / 127
    # The scale is rounded as well; below 6e-5, where half precision has fewer digits, by up to 3e-8.
    assert (np.abs(restored(table, scale) - vectors) <= step * 0.57 + 127 * 3e-8).all()


def test_what_eight_bits_hold_stays_what_it_is() -> None:
    table = np.arange(-127, 128, dtype=np.int8)[None]
    again, scale = quantised(restored(table, np.array([0.25], dtype=np.float16)))
    assert np.array_equal(again, table)
    assert scale.tolist() == [0.25]


def test_a_row_of_noughts_stays_one() -> None:
    assert restored(*quantised(np.zeros((2, 3), dtype=np.float32))).tolist() == [[0, 0, 0]] * 2


def test_every_row_has_a_scale_of_its_own() -> None:
    vectors = np.array([[1e-3, -5e-4], [100, 3]], dtype=np.float32)
    assert restored(*quantised(vectors)) == pytest.approx(vectors, rel=0.2)
    assert restored(*quantised(vectors))[0] == pytest.approx(vectors[0], rel=0.02)
