"""What can go wrong in the router.

RouterError
├── ConfigError          experts.yaml is wrong; carries every problem found, each with its place
├── CatalogError         the catalogue has no such model, or is asked what it does not know
├── ArtifactError        the trained router is missing, damaged or does not fit
├── CorpusError          a training row is wrong
├── MessagesError        a conversation is none that could be sent
├── NoExpertError        no expert is able to answer the query
├── ExtensionError       what another package adds (a policy) cannot be loaded, or failed
└── MissingExtraError    a package that only some commands need is not installed
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


class RouterError(Exception):
    """The base of every error that this library raises on purpose."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong in a configuration file; `line` and `column` count from 1."""

    file: str
    line: int
    column: int
    key: str
    message: str

    def __str__(self) -> str:
        key = f"{self.key}: " if self.key else ""
        return f"{self.file}:{self.line}:{self.column}: {key}{self.message}"


class ConfigError(RouterError):
    """Every problem at once, file by file in the order of their lines. `texts` has by name the files that they are in, where these
    could be read: a line of theirs may hold a secret that was written where a reference belongs."""

    def __init__(self, problems: Sequence[Problem], texts: Mapping[str, str] | None = None) -> None:
        self.texts = dict(texts or {})
        files = list(dict.fromkeys([*self.texts, *(p.file for p in problems)]))
        self.problems = sorted(problems, key=lambda p: (files.index(p.file), p.line, p.column))
        super().__init__("\n".join(str(p) for p in self.problems))


class CatalogError(RouterError):
    """`param` names the filter that is wrong, where one is."""

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param


class ArtifactError(RouterError):
    pass


class CorpusError(RouterError):
    pass


class MessagesError(RouterError):
    """`param` names what is wrong with the request, as OpenAI's clients show it."""

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param


class NoExpertError(RouterError):
    """No expert can take the query. `lacking` says what is missing: a capability, `endpoint`, `context_window` or
    `max_cost_usd`."""

    def __init__(self, message: str, lacking: str) -> None:
        super().__init__(message)
        self.lacking = lacking


class ExtensionError(RouterError):
    """Names what failed, the package that it belongs to, and why. `part` is the name alone of what failed while it was used."""

    def __init__(self, message: str, part: str | None = None) -> None:
        super().__init__(message)
        self.part = part


class MissingExtraError(RouterError):
    """Names the package that is missing and the exact command that installs it."""

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(f"{package} is not installed; run: pip install 'moe-gateway[{extra}]'")
