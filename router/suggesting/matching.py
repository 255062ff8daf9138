"""Which model of the catalogue is for a proposed domain."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from router.cataloguing.catalog import Catalog
from router.cataloguing.entry import Model
from router.cataloguing.listing import Wanted, listed

MOST = 0.5  # the share of prompts, or of the corpus's nearest rows, that has to be of a language, or of a domain
# What the catalogue calls what the corpus's topics, and people, call otherwise.
TASKS = {
    "law": "legal",
    "economics": "finance",
    "medicine": "bio",
    "biology": "bio",
    "mathematics": "math",
    "programming": "code",
    "sql": "code",
}


@dataclass(frozen=True)
class Match:
    """A model by its key. `task` is what its maker says it is for that speaks for it, None where it is a generalist: then nothing
    in the catalogue is made for the domain."""

    key: str
    model: Model
    task: str | None
    why: str


def matching(
    catalog: Catalog, words: Sequence[str], nearest: Sequence[str], languages: Sequence[str], max_gb: float
) -> Match | None:
    """The best model for a domain, of those that need at most so many GB; None where none does.

    `words` are the domain's name, topic and terms, `nearest` the labels of the corpus's nearest rows, `languages` the prompts'.
    """
    asked = {word: TASKS.get(word, word) for word in words}
    known = {task for model in catalog.models.values() for task in model.tasks} - {"general"}
    for word, task in asked.items():
        if task in known and (found := _best(catalog, (task,), max_gb)):
            return Match(*found, task, f"its maker says that it is for {task}, which “{word}” is")
    label, count = Counter(nearest).most_common(1)[0] if nearest else ("", 0)
    if label in known and count > MOST * len(nearest) and (found := _best(catalog, (label,), max_gb)):
        return Match(*found, label, f"its maker says that it is for {label}, to which the prompts are nearest")
    spoken = _spoken(languages)
    if spoken and (found := _best(catalog, (), max_gb, spoken)):
        return Match(*found, None, f"no model of the catalogue is made for this; it is one that speaks {spoken}")
    found = _best(catalog, ("general",), max_gb)
    return found and Match(*found, None, "no model of the catalogue is made for this; it is the best generalist")


def _spoken(languages: Sequence[str]) -> str | None:
    """The language of most of the prompts, None where that is English."""
    language, count = Counter(languages).most_common(1)[0] if languages else ("", 0)
    return language if language not in ("", "en") and count > MOST * len(languages) else None


def _best(
    catalog: Catalog, tasks: tuple[str, ...], max_gb: float, language: str | None = None
) -> tuple[str, Model] | None:
    found = listed(catalog, Wanted(tasks=tasks, max_gb=max_gb, language=language, sort="quality"))
    return (found[0].key, found[0].model) if found else None
