"""Counting: how many models of the catalogue are of which family and how open, as docs/catalog.md tells."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

from router.cataloguing.catalog import Catalog
from router.cataloguing.entry import CRITERIA, OPENNESS, Model
from router.cataloguing.words import KINDS, TASKS

LEVELS = (*OPENNESS, "unknown")


def counts(catalog: Catalog) -> dict[str, dict[str, dict[str, int]]]:
    """By family, kind of licence and task, how many models there are of each openness; and of each criterion how many answers."""
    models = list(catalog.models.values())
    criteria = {
        name: dict(Counter(c.open if c else "unknown" for model in models for n, c in model.openness if n == name))
        for name in CRITERIA
    }
    return {
        "families": {f: _levels(m for m in models if m.family == f) for f in catalog.families()},
        "licences": {k: _levels(m for m in models if m.licence and m.licence.kind == k) for k in KINDS},
        "tasks": {t: _levels(m for m in models if t in m.tasks) for t in TASKS},
        "all": {"all": _levels(models)},
        "criteria": criteria,
    }


def _levels(models: Iterable[Model]) -> dict[str, int]:
    found: Counter[str] = Counter(model.open or "unknown" for model in models)
    return {"models": found.total(), **{level: found[level] for level in LEVELS}}


def markdown(catalog: Catalog) -> str:
    """The counts as tables of Markdown."""
    return "\n".join(_tables(catalog)) + "\n"


def _tables(catalog: Catalog) -> Iterator[str]:
    found = counts(catalog)
    for part, title in (("families", "family"), ("licences", "licence"), ("tasks", "task")):
        yield from (f"| {title} | models | " + " | ".join(LEVELS) + " |", "|---|" + "---:|" * (1 + len(LEVELS)))
        for name, row in (found[part] | (found["all"] if part == "families" else {})).items():
            if row["models"]:
                yield f"| {name} | " + " | ".join(str(n or "·") for n in row.values()) + " |"
        yield ""
    answers = ("yes", "partly", "no", "unknown")
    yield from ("| criterion | " + " | ".join(answers) + " |", "|---|" + "---:|" * len(answers))
    for name, row in found["criteria"].items():
        yield f"| {name.replace('_', ' ')} | " + " | ".join(str(row.get(answer, 0) or "·") for answer in answers) + " |"
