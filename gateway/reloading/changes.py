"""What one experts.yaml changes about another, in words: keys by name, and never what stands there, which may be secret."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel

from router.experts import ExpertsFile

MOST_KEYS = 8  # of one change that are named
SECTIONS = ("router", "baseline", "aliases")


@dataclass(frozen=True, slots=True)
class Change:
    """`what` is expert, domain, or a section of the file, whose `name` is empty; `keys` are those that changed, such as
    `price.input`, and `examples` how many prompts a domain gained and lost."""

    kind: Literal["added", "removed", "changed"]
    what: str
    name: str = ""
    keys: tuple[str, ...] = ()
    examples: tuple[int, int] = (0, 0)

    def __str__(self) -> str:
        gained, lost = self.examples
        told = [*self.keys[:MOST_KEYS]]
        told += [f"{len(self.keys) - MOST_KEYS} more"] if len(self.keys) > MOST_KEYS else []
        told += [f"{sign}{count} examples" for sign, count in (("+", gained), ("-", lost)) if count]
        return " ".join(filter(None, (self.what, self.name, self.kind))) + (f": {', '.join(told)}" if told else "")


def changes(old: ExpertsFile, new: ExpertsFile) -> list[Change]:
    """Experts first, then domains, then the rest; nothing where only comments, order or spelling differ."""
    return [
        *_entries("expert", old.experts, new.experts),
        *_entries("domain", old.domains, new.domains),
        *(change for section in SECTIONS if (change := _section(section, old, new))),
    ]


def _entries(what: str, old: Mapping[str, BaseModel], new: Mapping[str, BaseModel]) -> Iterator[Change]:
    yield from (Change("removed", what, name) for name in old if name not in new)
    for name in new:
        if name not in old:
            yield Change("added", what, name, examples=_examples(None, new[name]))
        elif new[name] != old[name]:
            keys = tuple(key for key in _differing(old[name], new[name]) if key != "examples")
            yield Change("changed", what, name, keys, _examples(old[name], new[name]))


def _section(section: str, old: ExpertsFile, new: ExpertsFile) -> Change | None:
    before, after = getattr(old, section), getattr(new, section)
    return None if before == after else Change("changed", section, keys=tuple(filter(None, _differing(before, after))))


def _examples(old: Any, new: Any) -> tuple[int, int]:
    """How many were added, and how many are gone."""
    before, after = set(getattr(old, "examples", ())), set(getattr(new, "examples", ()))
    return len(after - before), len(before - after)


def _differing(old: Any, new: Any, path: str = "") -> Iterator[str]:
    """The keys whose values differ, deepest first; the place itself where its values have no keys."""
    before, after = _keyed(old), _keyed(new)
    if before is None or after is None:
        yield path
        return
    for key in [*after, *(key for key in before if key not in after)]:
        if (key in before, before.get(key)) != (key in after, after.get(key)):
            yield from _differing(before.get(key), after.get(key), f"{path}.{key}" if path else str(key))


def _keyed(value: Any) -> Mapping[str, Any] | None:
    if isinstance(value, BaseModel):
        return {name: getattr(value, name) for name in type(value).model_fields}
    return value if isinstance(value, Mapping) else None
