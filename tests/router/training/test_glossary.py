from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest
from tokenizers.normalizers import BertNormalizer

from router.dataset import load_corpus
from router.errors import CorpusError
from router.training.glossary import GLOSSARY, Entry, additions, load_glossary
from tests.fakes.encoders import word_tokenizer


def glossary(folder: Path, **languages: str) -> list[Entry]:
    for language, lines in languages.items():
        (folder / f"{language}.tsv").write_text(lines, "utf-8")
    return load_glossary(folder)


def test_a_line_is_a_word_and_its_gloss(tmp_path: Path) -> None:
    assert glossary(tmp_path, de="schleife\tloop\nzeichenkette\tstring\n") == [
        Entry("schleife", ("loop",), True),
        Entry("zeichenkette", ("string",), True),
    ]


def test_a_word_of_several_languages_is_one_entry_with_every_gloss_once(tmp_path: Path) -> None:
    entries = glossary(
        tmp_path, de="gen\tgene\nfunktion\tfunction\n", pl="gen\tgene\n", sv="gen\tyet\nfunktion\tfunction"
    )
    assert entries == [Entry("gen", ("gene", "yet"), True), Entry("funktion", ("function",), True)]


def test_words_are_lower_case_and_composed_and_glosses_lower_case(tmp_path: Path) -> None:
    (entry,) = glossary(tmp_path, de=unicodedata.normalize("NFD", "  Größe\t Size of  "))
    assert entry == Entry("größe", ("size of",), True)


@pytest.mark.parametrize(
    ("language", "word", "whole"),
    [
        ("zh", "数", False),
        ("ja", "ループ", False),
        ("th", "ลูป", False),
        ("ko", "수", True),  # one syllable: it stands inside of too many words
        ("ko", "변수", False),
        ("ru", "ряд", True),
        ("ru", "цикл", False),
        ("de", "schleife", True),
        ("vi", "vòng lặp", True),
    ],
)
def test_a_word_is_looked_for_inside_of_others_where_its_script_joins_them(
    tmp_path: Path, language: str, word: str, whole: bool
) -> None:
    assert glossary(tmp_path, **{language: f"{word}\tthing\n"}) == [Entry(word, ("thing",), whole)]


@pytest.mark.parametrize("line", ["", "word", "word gloss", "\tgloss", "word\t", "word\t \t", "wort\tmaß"])
def test_a_wrong_line_is_refused_with_file_and_line(tmp_path: Path, line: str) -> None:
    with pytest.raises(CorpusError, match=r"^de\.tsv:2: expected a word, a tab and its English gloss"):
        glossary(tmp_path, de=f"schleife\tloop\n{line}\n")


def test_a_word_that_is_spelled_like_an_english_one_is_left_out() -> None:
    tokenizer = word_tokenizer(["the loop ends", "数"])
    entries = [
        Entry("loop", ("run",), True),
        Entry("ciclo", ("loop",), True),  # unknown to the tokenizer, which is a token of its own
        Entry("数", ("number",), False),
        Entry("vòng lặp", ("loop",), True),
    ]
    assert [entry.word for entry in additions(entries, tokenizer)] == ["ciclo", "数", "vòng lặp"]


def test_words_that_are_one_to_the_tokenizer_are_one_entry() -> None:
    tokenizer = word_tokenizer(["the loop ends"])
    tokenizer.normalizer = BertNormalizer(lowercase=True)
    entries = [
        Entry("casă", ("house",), True),
        Entry("ciclo", ("loop",), True),
        Entry("casa", ("home", "house"), True),
        Entry("関数", ("function",), False),
    ]
    assert additions(entries, tokenizer) == [
        Entry("casă", ("house", "home"), True),
        Entry("ciclo", ("loop",), True),
        Entry("関数", ("function",), False),
    ]


def test_an_empty_folder_is_an_empty_glossary(tmp_path: Path) -> None:
    assert load_glossary(tmp_path) == []


# The glossary that is shipped


def test_every_file_of_the_glossary_is_a_language_of_the_corpus() -> None:
    languages = {row.language for row in load_corpus()}
    assert {path.stem for path in GLOSSARY.glob("*.tsv")} <= languages
    assert {path.suffix for path in GLOSSARY.iterdir()} == {".tsv"}


def test_no_word_stands_twice_in_a_language_with_one_gloss() -> None:
    for path in GLOSSARY.glob("*.tsv"):
        lines = path.read_text("utf-8").splitlines()
        assert len(set(lines)) == len(lines), path.name


def test_the_glossary_says_nothing_of_english() -> None:
    entries = load_glossary()
    assert len(entries) > 1000
    assert not (GLOSSARY / "en.tsv").exists()
    assert all(entry.glosses and entry.word == entry.word.lower() for entry in entries)
