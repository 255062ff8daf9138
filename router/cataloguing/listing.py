"""Listing: which models are wanted, in which order, and what is told of each. The command and GET /v1/catalog both ask here."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from router.cataloguing.catalog import Catalog
from router.cataloguing.entry import OPENNESS, Model
from router.cataloguing.quality import Quality, qualities
from router.cataloguing.words import KINDS, LANGUAGES, PRECISIONS, TASKS, Precision
from router.errors import CatalogError
from router.values import MEANT

W = TypeVar("W", bound=str)
SORTS = ("name", "quality", "price", "size", "released")
FILTERS = ("task", "license", "max_gb", "precision", "open", "family", "language", "min_context", "sort")


@dataclass(frozen=True)
class Wanted:
    """What a model has to have: every one of `tasks`, at most `max_gb` GB of memory at `precision` (the published one where
    that is None) with a short context, at least as much `openness`, at least `min_context` tokens. None asks nothing."""

    tasks: tuple[str, ...] = ()
    licence: str | None = None
    max_gb: float | None = None
    precision: Precision | None = None
    openness: str | None = None
    family: str | None = None
    language: str | None = None
    min_context: int | None = None
    sort: str = "name"

    @staticmethod
    def read(said: Mapping[str, str | Sequence[str] | None], catalog: Catalog) -> Wanted:
        """From FILTERS as people write them; `task` may be several. Raises CatalogError that names the wrong one."""
        tasks = said.get("task") or ()
        licences = {model.licence.id for model in catalog.models.values() if model.licence}
        text = {name: _one(name, said.get(name)) for name in FILTERS if name != "task"}
        language = text["language"]
        return Wanted(
            tasks=tuple(_of("task", t, TASKS) for t in ((tasks,) if isinstance(tasks, str) else tasks)),
            licence=_known("license", text["license"], [*KINDS, *sorted(licences)]),
            max_gb=_number("max_gb", text["max_gb"], "a number of GB such as 24"),
            precision=_known("precision", text["precision"], PRECISIONS),
            openness=_known("open", text["open"], OPENNESS),
            family=_known("family", text["family"], catalog.families()),
            language=None if language is None else _language(language),
            min_context=_tokens(text["min_context"]),
            sort=_known("sort", text["sort"], SORTS) or "name",
        )

    def takes(self, model: Model) -> bool:
        """What is not known of a model does not meet what is asked."""
        licence = model.licence
        memory = model.memory(self.precision)
        return (
            all(task in model.tasks for task in self.tasks)
            and (self.licence is None or (licence is not None and self.licence in (licence.kind, licence.id)))
            and (self.max_gb is None or (memory is not None and memory.total <= self.max_gb))
            and (self.openness is None or _at_least(model.open, self.openness))
            and self.family in (None, model.family)
            and (self.language is None or self.language in model.languages)
            and (self.min_context is None or (model.context or 0) >= self.min_context)
        )


@dataclass(frozen=True)
class Listed:
    """One model that is wanted; `quality` for the first of the wanted tasks, or all in all."""

    key: str
    model: Model
    quality: Quality | None
    precision: Precision

    def described(self) -> dict[str, Any]:
        """As JSON has it: the entry's own keys, and what follows from them."""
        return {
            "id": self.key,
            "object": "catalog.model",
            **self.model.described,
            "quality": None if self.quality is None else round(self.quality.value, 1),
            "quality_benchmarks": {b: round(p, 1) for b, p in self.quality.benchmarks.items()} if self.quality else {},
        }


def listed(catalog: Catalog, wanted: Wanted) -> list[Listed]:
    """Those that are wanted, in the wanted order; what is not known comes last."""
    found = qualities(catalog.models, wanted.tasks[0] if wanted.tasks else None)
    chosen = [
        Listed(key, model, found.get(key), wanted.precision or model.precision)
        for key, model in catalog.models.items()
        if wanted.takes(model)
    ]
    return sorted(chosen, key=lambda one: (_ORDERS[wanted.sort](one), one.key))


def _released(one: Listed) -> tuple[float, ...]:
    month = one.model.released
    return (math.inf,) if month is None else (-int(month[:4]), -int(month[5:]))


_ORDERS: Mapping[str, Callable[[Listed], Any]] = {
    "name": lambda one: 0,
    "quality": lambda one: math.inf if one.quality is None else -one.quality.value,
    "price": lambda one: math.inf if one.model.price is None else one.model.price.blended,
    "size": lambda one: math.inf if one.model.parameters is None else one.model.parameters.total,
    "released": _released,
}


def _at_least(level: str | None, wanted: str) -> bool:
    return level is not None and OPENNESS.index(level) <= OPENNESS.index(wanted)


def _one(name: str, value: str | Sequence[str] | None) -> str | None:
    if value is None or isinstance(value, str):
        return value
    if len(value) > 1:
        raise CatalogError(f"{name} is asked for twice", param=name)
    return value[0] if value else None


def _known(name: str, said: str | None, known: Collection[W]) -> W | None:
    return None if said is None else _of(name, said, known)


def _of(name: str, said: str, known: Collection[W]) -> W:
    """The one of `known` that is said, in whatever case."""
    by_case = {word.lower(): word for word in known}
    if (found := by_case.get(said.strip().lower())) is not None:
        return found
    close = difflib.get_close_matches(said.lower(), by_case, n=1, cutoff=0.5)
    hint = f"did you mean {by_case[close[0]]}?" if close else f"it is one of {', '.join(known)}"
    raise CatalogError(f"{name} is not {said[:40]!r}; {hint}", param=name)


def _number(name: str, said: str | None, what: str) -> float | None:
    if said is None:
        return None
    try:
        number = float(said)
    except ValueError:
        number = math.nan
    if not 0 < number < math.inf:
        raise CatalogError(f"{name} is not {said[:40]!r}; write {what}", param=name)
    return number


def _tokens(said: str | None) -> int | None:
    number = _number("min_context", said, "a number of tokens such as 32768")
    if number is not None and number != int(number):
        raise CatalogError("min_context is a whole number of tokens", param="min_context")
    return None if number is None else int(number)


def _language(said: str) -> str:
    code = said.strip().lower()
    code = code if code in LANGUAGES else MEANT.get(code, code)
    if code not in LANGUAGES:
        raise CatalogError(
            f"language is not {said[:40]!r}; write its two letters in ISO 639-1, such as ja", param="language"
        )
    return code
