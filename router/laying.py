"""Laying: a file and all that it extends become layers, with what they refer to put in.

How texts are come by is not known here: they are read from the disk once, and afterwards kept (see sources.py).
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from router.errors import ConfigError, Problem
from router.layers import Layers, Reference
from router.references import FILE, filled, is_file, refers
from router.scalars import plain_value
from router.textfiles import UnreadableError
from router.yamlfile import YamlFile

EXTENDS = "extends"
MAX_DEPTH = 8  # of files that extend one another
Texts = Callable[[str], str]  # the text of a file by its name; raises UnreadableError
Steps = tuple[str | int, ...]


@dataclass
class Laid:
    """`problems` are what is wrong with references, those to files of examples apart, which are `unread`. `failed` has their
    paths: what stands there is no value. `secrets` are the names of the files of secrets."""

    layers: Layers
    problems: list[Problem] = field(default_factory=list)
    unread: list[Problem] = field(default_factory=list)
    failed: list[Steps] = field(default_factory=list)
    secrets: list[str] = field(default_factory=list)


def lay(name: str, texts: Texts, folder: Path) -> Laid:
    """The file of that name, which stands in `folder`, over all that it extends. Raises ConfigError where one of them cannot be
    read or is no YAML."""
    files: dict[str, YamlFile] = {}
    try:
        text = texts(name)
    except UnreadableError as error:
        raise ConfigError([_unreadable(name, error)]) from None
    _gather(YamlFile.parse(text, name), texts, folder, files, (name,))
    bare = [replace(file, data=_without_extends(file.data)) for file in files.values()]
    return _Filling(Layers.of(bare), texts, folder).laid


def named(reference: str, by: str, folder: Path) -> str:
    """The name of the file that the one named `by` refers to: its path from `folder`, with no step back in it that can go."""
    path = os.path.normpath(os.path.join(os.path.dirname(by), reference))
    if path.startswith("..") and not os.path.isabs(path):
        absolute = os.path.abspath(folder)
        path = os.path.relpath(os.path.join(absolute, path), absolute)
    return path


def _gather(file: YamlFile, texts: Texts, folder: Path, files: dict[str, YamlFile], above: tuple[str, ...]) -> None:
    """Into `files` what `file` extends and then itself, each once: what comes later lies on top. `above` led here, name by name."""
    for path, reference, written in _extended(file):
        name = named(reference, file.name, folder)
        if name in above:
            raise ConfigError([file.problem(path, f"{written} extends this file in turn")])
        if name in files:
            continue
        if len(above) > MAX_DEPTH:
            raise ConfigError([file.problem(path, f"files extend one another more than {MAX_DEPTH} deep")])
        try:
            text = texts(name)
        except UnreadableError as error:
            here = file.problem(path, f"{written} {error}")
            raise ConfigError([_unreadable(name, error) if error.place else here]) from None
        _gather(YamlFile.parse(text, name), texts, folder, files, (*above, name))
    if not isinstance(file.data, dict) and not (file.data is None and len(above) > 1):
        raise ConfigError([file.problem((), "expected keys such as version: 1 and experts:")])
    files[file.name] = file


def _extended(file: YamlFile) -> list[tuple[Steps, str, str]]:
    """The paths that a file says it extends, each with where it says so and what is written there.
    Raises ConfigError where they are none."""
    said = file.data.get(EXTENDS) if isinstance(file.data, dict) else None
    places: list[tuple[Steps, Any]] = [((EXTENDS,), said)]
    if isinstance(said, list):
        places = [((EXTENDS, i), item) for i, item in enumerate(said)]
    extended = []
    for path, reference in places if said is not None else []:
        if not isinstance(reference, str) or not reference.strip():
            raise ConfigError(
                [file.problem(path, "expected the path of a file, or a list of paths: extends: base.yaml")]
            )
        try:
            extended.append((path, filled(reference), reference))
        except ValueError as error:
            raise ConfigError([file.problem(path, str(error))]) from None
    return extended


def _without_extends(data: Any) -> dict[str, Any]:
    return {key: value for key, value in data.items() if key != EXTENDS} if isinstance(data, dict) else {}


def _unreadable(name: str, error: UnreadableError) -> Problem:
    return Problem(name, *(error.place or (1, 1)), "", str(error))


class _Filling:
    """Puts what is referred to into the data of layers: the environment's values, and prompts out of files of examples. Secrets
    are left as references, which the type of their key follows; those to files become absolute."""

    def __init__(self, layers: Layers, texts: Texts, folder: Path) -> None:
        self._texts, self._folder = texts, folder
        self._references: dict[Steps, Reference] = {}
        self.laid = Laid(layers)
        data = self._filled(layers.data, ())
        self.laid.layers = replace(layers, data=data, references=self._references)

    def _filled(self, value: Any, path: Steps) -> Any:
        if isinstance(value, dict):
            return {key: self._filled(inner, (*path, key)) for key, inner in value.items()}
        if isinstance(value, list):
            return [self._filled(inner, (*path, i)) for i, inner in enumerate(value)]
        if not isinstance(value, str):
            return value
        if is_secret(path):
            return self._secret(value, path)
        if refers(value):
            value = self._reference(value, path)
        if _is_examples(path[:3]) and isinstance(value, str) and is_file(value):
            return self._examples(value, path)
        return value

    def _reference(self, written: str, path: Steps) -> Any:
        try:
            value = filled(written)
        except ValueError as error:
            return self._fail(path, str(error), written)
        self._references[path] = Reference(written, value)
        return plain_value(value) if self.laid.layers.is_plain(path) else value

    def _secret(self, written: str, path: Steps) -> str:
        if not is_file(written) or written == FILE:
            return written
        name = named(written.removeprefix(FILE), self._written_in(path), self._folder)
        self.laid.secrets.append(name)
        return f"{FILE}{self._folder / name}"

    def _examples(self, written: str, path: Steps) -> Any:
        if not _is_examples(path):  # one of a list; a prompt has spaces, and may begin with anything
            says = "is a file of prompts: write examples: file:PATH, and no list"
            return written if " " in written else self._fail(path, says, written)
        reference = written.removeprefix(FILE)
        said = self._references[path].written.removeprefix(FILE) if path in self._references else reference
        name = named(reference, self._written_in(path), self._folder)
        try:
            return prompts(self._texts(name), name)
        except UnreadableError as error:
            self.laid.unread.append(_unreadable(name, error) if error.place else self._problem(path, f"{said} {error}"))
        except ConfigError as error:
            self.laid.problems += error.problems
        self.laid.failed.append(path)
        return written

    def _fail(self, path: Steps, why: str, written: str) -> str:
        self.laid.problems.append(self._problem(path, why))
        self.laid.failed.append(path)
        return written

    def _problem(self, path: Steps, message: str) -> Problem:
        return self.laid.layers.problem(path, message)

    def _written_in(self, path: Steps) -> str:
        origin = self.laid.layers.origin(path)
        return origin.file if origin else self.laid.layers.top.name


def is_secret(path: Steps) -> bool:
    """Whether a value there may be secret: api_key, and what a worker's environment is given."""
    inside = path[2:] if path[:1] == ("experts",) else ()
    return inside == ("upstream", "api_key") or (len(inside) == 4 and inside[:3] == ("upstream", "launch", "env"))


def _is_examples(path: Steps) -> bool:
    return len(path) == 3 and path[0] == "domains" and path[2] == "examples"


def prompts(text: str, name: str) -> list[str]:
    """Those of a file of examples: one a line, of a .jsonl file the "prompt" of each line's object. Raises ConfigError."""
    lines = [(number, line.strip()) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    if not lines:
        raise ConfigError([Problem(name, 1, 1, "", "has no example prompt: write one a line")])
    if not name.endswith(".jsonl"):
        return [line for _, line in lines]
    found, problems = [], []
    for number, line in lines:
        prompt = _prompt(line)
        if prompt is None:
            problems.append(Problem(name, number, 1, "", 'expected an object with a text as its "prompt"'))
        else:
            found.append(prompt)
    if problems:
        raise ConfigError(problems)
    return found


def _prompt(line: str) -> str | None:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    prompt = row.get("prompt") if isinstance(row, dict) else None
    return prompt if isinstance(prompt, str) and prompt.strip() else None
