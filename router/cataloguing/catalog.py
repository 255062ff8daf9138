"""Catalog: the models of router/catalog.yaml, read and checked whole."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from router.cataloguing.entry import Model
from router.errors import CatalogError, ConfigError, Problem
from router.validation import nearest, validated
from router.yamlfile import YamlFile

PACKAGED = Path(__file__).parents[1] / "catalog.yaml"
_KEY = re.compile(r"[a-z0-9][a-z0-9.-]{0,63}")


@dataclass(frozen=True)
class Catalog:
    """`models` by their keys, in the order of the file."""

    models: Mapping[str, Model]

    def find(self, name: str) -> str:
        """The key of the model with that key or hub id, or that name without its owner; letters count alike in both cases.

        Raises CatalogError that names the nearest.
        """
        said = name.strip().lower()
        for spellings in (_keys, _hub_ids, _bare_names):
            found = [key for key, model in self.models.items() if spellings(key, model) == said]
            if len(found) == 1:
                return found[0]
        known = {
            spell(key, model): key for spell in (_bare_names, _hub_ids, _keys) for key, model in self.models.items()
        }
        near = dict.fromkeys(known[close] for close in difflib.get_close_matches(said, known, n=6, cutoff=0.5))
        within = [key for key in self.models if said and said in key]
        names = list(dict.fromkeys([*within, *near]))[:3]
        hint = f"; did you mean {', '.join(names)}?" if names else "; moe-gateway catalog list has them all"
        raise CatalogError(f"the catalogue has no model {name[:80]!r}{hint}")

    def families(self) -> list[str]:
        return sorted({model.family for model in self.models.values()}, key=str.lower)


def _keys(key: str, model: Model) -> str:
    return key.lower()


def _hub_ids(key: str, model: Model) -> str:
    return model.name.lower()


def _bare_names(key: str, model: Model) -> str:
    return model.name.rpartition("/")[2].lower()


@lru_cache(maxsize=1)
def load_catalog() -> Catalog:
    """The packaged catalogue; read when it is first asked for, some tenths of a second. Raises ConfigError."""
    return parse_catalog(PACKAGED.read_text("utf-8"), PACKAGED.name)[0]


def parse_catalog(text: str, name: str = "catalog.yaml") -> tuple[Catalog, YamlFile]:
    """The catalogue and the file that it stands in; `name` stands in the errors. Raises ConfigError with every problem found."""
    file = YamlFile.parse(text, name)
    entries = file.data.get("models") if isinstance(file.data, dict) else None
    if not isinstance(entries, dict) or not entries:
        raise ConfigError([file.problem(("models",), "expected one entry or more under models:")])
    problems = [*file.duplicates(), *_strangers(file)]
    models: dict[str, Model] = {}
    for key, value in entries.items():
        if not _KEY.fullmatch(key):
            problems.append(file.problem(("models", key), "a key is 1 to 64 of a-z, 0-9, '.' and '-'", at_key=True))
        model = validated(file, Model, {} if value is None else value, ("models", key), problems)
        if model is not None:
            models[key] = model
    if problems:
        raise ConfigError(problems)
    return Catalog(models), file


def _strangers(file: YamlFile) -> Iterator[Problem]:
    for key in file.data:
        if key != "models":
            yield file.problem((key,), f"unknown key{nearest(key, ['models'])}", at_key=True)
