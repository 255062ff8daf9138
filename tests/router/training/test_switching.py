from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.errors import CorpusError
from router.training.switching import SHARE, Switcher

GERMAN = {"loop": ["schleife"], "sorting algorithm": ["sortierverfahren"], "algorithm": ["verfahren"]}


def chance_of(seed: int) -> random.Random:
    return random.Random(seed)  # noqa: S311 - it has to be repeatable, not secret


@given(st.text(max_size=80) | st.text("lop ,algorithm", max_size=80), st.integers(0, 99))
def test_all_but_known_words_stays_as_it_is(text: str, seed: int) -> None:
    found = Switcher({"de": GERMAN}).switched(text, chance_of(seed))
    for words in GERMAN.values():
        for word in words:
            if word not in text:
                found = found.replace(word, "")
    assert len(found) <= len(text)
    assert Switcher({}).switched(text, chance_of(seed)) == text
    assert Switcher({"de": {}}).switched(text, chance_of(seed)) == text


def test_a_share_of_the_known_words_is_translated_whatever_their_case_and_number() -> None:
    switcher = Switcher({"de": GERMAN})
    found = [switcher.switched("Loops", chance_of(seed)) for seed in range(400)]
    assert set(found) == {"Loops", "schleife"}
    assert abs(found.count("schleife") / 400 - SHARE) < 0.1


def test_two_words_with_one_translation_go_before_each_of_them() -> None:
    found = {Switcher({"de": GERMAN}).switched("a Sorting algorithm, a loop", chance_of(seed)) for seed in range(60)}
    assert found == {
        "a Sorting algorithm, a loop",
        "a sortierverfahren, a loop",
        "a Sorting algorithm, a schleife",
        "a sortierverfahren, a schleife",
    }


def test_one_text_has_words_of_one_language() -> None:
    switcher = Switcher({"de": {"loop": ["schleife"]}, "fr": {"loop": ["boucle"]}})
    found = {switcher.switched("loop loop loop loop", chance_of(seed)) for seed in range(200)}
    assert not [text for text in found if "schleife" in text and "boucle" in text]
    assert any("schleife" in text for text in found)
    assert any("boucle" in text for text in found)


def test_it_reads_the_glossary(tmp_path: Path) -> None:
    (tmp_path / "de.tsv").write_text("Schleife\tloop\nBogen\tloop\n", "utf-8")
    switcher = Switcher.load(tmp_path)
    assert {switcher.switched("loop", chance_of(seed)) for seed in range(60)} == {"loop", "schleife", "bogen"}
    (tmp_path / "de.tsv").write_text("Schleife\n", "utf-8")
    with pytest.raises(CorpusError, match=r"de\.tsv:1"):
        Switcher.load(tmp_path)
