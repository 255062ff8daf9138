from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from router.suggesting.naming import named, telling

LAW = ["Is the contract valid in court?", "The contract says so", "which court hears it", "contracts and the court"]
OTHER = ["What is the capital of France?", "the best recipe for bread", "why is the sky blue"] * 5


def test_words_that_stand_more_often_than_elsewhere_are_told_and_no_others() -> None:
    assert telling(LAW, OTHER) == ["court"]  # of contract and contracts two each, and of the others too few or too many
    assert telling(["the contract", "a contract", "contract, contract", "my contract!"], OTHER) == ["contract"]


def test_a_word_of_one_person_is_not_told() -> None:
    assert telling([*LAW, "Okafor Okafor Okafor Okafor"], OTHER) == ["court"]


def test_forms_of_one_word_stand_once() -> None:
    texts = ["lawyer", "lawyer and lawyers", "lawyers or a lawyer", "lawyers", "lease", "the lease", "my lease"]
    assert telling(texts, OTHER) == ["lawyer", "lease"]


def test_a_topic_of_the_corpus_names_what_is_in_its_midst() -> None:
    assert named(["court"], ["law"] * 6 + ["travel"] * 4, set()) == "law"
    assert named(["court"], ["law"] * 4 + ["travel"] * 3 + ["music"] * 3, set()) == "court"
    assert named(["court"], [], set()) == "court"


def test_a_name_that_is_taken_is_not_proposed_again() -> None:
    assert named(["court", "lease"], ["law"], {"law"}) == "court"
    assert named(["court", "lease"], ["law"], {"law", "court", "lease"}) == "court-lease"
    assert named([], [], set()) == "domain"
    assert named([], [], {"domain"}) == "domain-2"
    assert named(["契約"], [], {"domain", "domain-2"}) == "domain-3"


def test_letters_with_marks_lose_them() -> None:
    assert named(["Verträge"], [], set()) == "vertrage"


@given(
    st.lists(st.text(max_size=40), max_size=4),
    st.lists(st.text(max_size=40), max_size=4),
    st.sets(st.sampled_from(["a", "law", "domain", "domain-2"])),
)
def test_every_name_is_valid_and_new(terms: list[str], topics: list[str], taken: set[str]) -> None:
    name = named(terms, topics, taken)
    assert re.fullmatch(r"[a-z0-9][a-z0-9_-]{0,31}", name)
    assert name not in taken
