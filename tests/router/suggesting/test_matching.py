from __future__ import annotations

from router.cataloguing.catalog import load_catalog
from router.suggesting.matching import Match, matching


def match(words: list[str], nearest: tuple[str, ...] = ("general",), languages: tuple[str, ...] = ("en",)) -> Match:
    found = matching(load_catalog(), words, nearest, languages, 48)
    assert found is not None
    return found


def test_a_model_that_is_made_for_what_the_domain_is_called_is_proposed() -> None:
    found = match(["sql", "join"])
    assert found.task == "code"
    assert "code" in found.model.tasks
    assert found.why == "its maker says that it is for code, which “sql” is"


def test_a_domain_that_lies_among_prompts_of_a_label_gets_a_model_for_that() -> None:
    found = match(["dosage"], ("bio",) * 6 + ("general",) * 4)
    assert found.task == "bio"
    assert "bio" in found.model.tasks


def test_where_nothing_is_made_for_it_a_generalist_is_proposed_and_said_to_be_one() -> None:
    found = match(["pottery"], ("bio",) * 5 + ("general",) * 5)
    assert found.task is None
    assert "general" in found.model.tasks
    assert found.why.startswith("no model of the catalogue is made for this")


def test_a_domain_in_another_language_gets_a_model_that_speaks_it() -> None:
    found = match(["契約"], languages=("ja", "ja", "en"))
    assert "ja" in found.model.languages
    assert found.why.endswith("it is one that speaks ja")
    assert match(["pottery"], languages=("ja", "en")).why.endswith("the best generalist")


def test_no_model_is_larger_than_asked_for() -> None:
    small = matching(load_catalog(), ["sql"], (), (), 8)
    assert small is not None
    memory = small.model.memory()
    assert memory is not None
    assert memory.total <= 8
    assert matching(load_catalog(), ["sql"], (), (), 0.01) is None
