"""Validation: values of a YAML file as Pydantic's models, every error with its line and what was probably meant."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from typing import Any, Protocol, TypeVar

from pydantic import BaseModel, ValidationError

from router.errors import Problem
from router.yamlfile import Path

M = TypeVar("M", bound=BaseModel)


class Placed(Protocol):
    """What knows where its values stand: a file, or several as layers."""

    def problem(self, path: Path, message: str, at_key: bool = False) -> Problem: ...


def validated(file: Placed, model: type[M], value: Any, path: tuple[str, ...], problems: list[Problem]) -> M | None:
    """`value` at `path` of the file as a `model`; None where it is none, and then `problems` has why."""
    try:
        return model.model_validate(value)
    except ValidationError as error:
        items = error.errors(include_url=False)  # with the input: of what may be secret, nothing below repeats it
        misspelt = {
            (*item["loc"][:-1], _meant(model, item["loc"])) for item in items if item["type"] == "extra_forbidden"
        }
        told = [item for item in items if item["type"] != "missing" or item["loc"] not in misspelt]
        problems += [_from_pydantic(file, model, path, item) for item in told]
        return None


def _meant(model: type[BaseModel], loc: Sequence[str | int]) -> str | None:
    """The key that the unknown one at the end of `loc` probably means: that one is then not missing as well."""
    return closest(str(loc[-1]), _keys_at(model, loc))


def _from_pydantic(file: Placed, model: type[BaseModel], path: tuple[str, ...], item: Any) -> Problem:
    place = (*path, *item["loc"])
    if item["type"] == "extra_forbidden":
        return file.problem(place, f"unknown key{nearest(str(place[-1]), _keys_at(model, item['loc']))}", at_key=True)
    if item["type"] == "missing":
        return file.problem(place, "is missing")
    if item["type"] == "literal_error" and isinstance(item["input"], str):
        known = re.findall(r"'([^']*)'", item["ctx"]["expected"])
        return file.problem(place, f"{item['input'][:40]!r} means nothing here{nearest(item['input'], known)}")
    message = str(item["msg"]).removeprefix("Value error, ")
    return file.problem(place, message[:1].lower() + message[1:])


def _keys_at(model: type[BaseModel], loc: Sequence[str | int]) -> list[str]:
    """The keys that may stand where the unknown one at the end of `loc` stands."""
    models = [model]
    for step in loc[:-1]:
        fields = [known.model_fields[str(step)] for known in models if str(step) in known.model_fields]
        models = [inner for field in fields for inner in _models(field.annotation)] or models
    return list(dict.fromkeys(field.alias or name for known in models for name, field in known.model_fields.items()))


def _models(annotation: Any) -> list[type[BaseModel]]:
    """Those that a value of that type may be, at any depth."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [found for inner in getattr(annotation, "__args__", ()) for found in _models(inner)]


def nearest(word: str, names: Iterable[str]) -> str:
    """What to say of the unknown `word` after what is wrong with it: what was probably meant, else all that is known."""
    known = list(names)
    close = closest(word, known)
    return f"; did you mean {close!r}?" if close else f"; known are {', '.join(known)}"


def closest(word: str, names: Sequence[str]) -> str | None:
    """One that begins with it, else one that is much like it."""
    begins = [name for name in names if len(word) > 2 and name.startswith(word)]
    return next(iter(begins or difflib.get_close_matches(word, names, n=1, cutoff=0.5)), None)
