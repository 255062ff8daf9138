"""routes.test.yaml: which expert or domain a prompt has to come to. Read whole, every error at once, each with its line."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from router.decision import Query
from router.errors import ConfigError, MessagesError, Problem
from router.experts import ExpertsFile
from router.messages import Message, Survey, read_messages
from router.policy import POLICIES, policy_name
from router.textfiles import UnreadableError, read_text
from router.upstream import Part
from router.validation import nearest, validated
from router.yamlfile import YamlFile

FILE_NAME = "routes.test.yaml"
MAX_BYTES = 512 * 1024
MAX_TESTS = 1_000  # of a prompt each, some seconds
EXPECTATIONS = ("expert", "domain", "not", "confidence")


def _listed(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


def _not_empty(prompt: str) -> str:
    if not prompt.strip():
        raise ValueError("the prompt is empty")
    return prompt


def _sendable(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    _survey(messages)
    return messages


def _known_policy(said: str) -> str:
    name = policy_name(said)
    if name not in POLICIES:
        raise ValueError(f"no policy {said[:64]!r}{nearest(name, POLICIES)}")
    return name


Names = Annotated[tuple[str, ...], BeforeValidator(_listed), Field(min_length=1)]
Tag = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]


class _Entry(Part):
    """A test as the file says it."""

    name: Annotated[str, Field(min_length=1, max_length=200)] | None = None
    prompt: Annotated[str, AfterValidator(_not_empty)] | None = None
    messages: Annotated[list[dict[str, Any]], AfterValidator(_sendable)] | None = None
    expert: Names = ()
    domain: Names = ()
    not_: Annotated[Names, Field(alias="not")] = ()
    confidence: Annotated[float, Field(ge=0, le=1, strict=True)] | None = None
    policy: Annotated[str, AfterValidator(_known_policy)] = "auto"
    tags: Annotated[tuple[Tag, ...], BeforeValidator(_listed)] = ()

    @model_validator(mode="before")
    @classmethod
    def _is_a_mapping(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            raise ValueError("expected the keys of a test, such as prompt: and expert:")
        return value

    @model_validator(mode="after")
    def _is_a_test(self) -> Self:
        if (self.prompt is None) == (self.messages is None):
            raise ValueError("give a prompt, or the messages of a conversation")
        if not (self.expert or self.domain or self.not_ or self.confidence):
            raise ValueError(f"says nothing that has to hold; give one of {', '.join(EXPECTATIONS)}")
        if both := [name for name in (*self.expert, *self.domain) if name in self.not_]:
            raise ValueError(f"{both[0]!r} is wanted, and under not")
        return self

    def query(self) -> Query:
        survey = _survey(self.messages) if self.messages else Survey.of([Message("user", self.prompt)])
        return replace(survey.query(), requested_model=self.policy)


class _File(Part):
    version: Literal[1]
    tests: Annotated[list[_Entry], Field(min_length=1, max_length=MAX_TESTS)]


@dataclass(frozen=True, slots=True)
class RouteTest:
    """Where `query` has to go: to one of `experts`, taken for one of `domains`, with at least `confidence`; to none of
    `forbidden`, experts or domains. What is empty, or None, does not matter. `line` counts from 1, `index` from 0."""

    name: str
    line: int
    index: int
    query: Query
    experts: tuple[str, ...] = ()
    domains: tuple[str, ...] = ()
    forbidden: tuple[str, ...] = ()
    confidence: float | None = None
    tags: tuple[str, ...] = ()


@dataclass(frozen=True)
class RouteTests:
    """The tests of a file, in its order."""

    tests: tuple[RouteTest, ...]
    file: YamlFile
    text: str

    @property
    def tags(self) -> list[str]:
        return sorted({tag for test in self.tests for tag in test.tags})

    def tagged(self, tags: Collection[str]) -> RouteTests:
        """Those that have one of `tags`."""
        return RouteTests(
            tuple(test for test in self.tests if not set(tags).isdisjoint(test.tags)), self.file, self.text
        )

    def check(self, experts: ExpertsFile) -> None:
        """Raises ConfigError with every name that `experts` does not have, at its place."""
        if problems := [problem for test in self.tests for problem in self.strangers(test, experts)]:
            raise ConfigError(problems, {self.file.name: self.text})

    def strangers(self, test: RouteTest, experts: ExpertsFile) -> Iterator[Problem]:
        """Those of one test."""
        ids, domains = list(experts.experts), list(experts.domain_names)
        for key, what, names, known in (
            ("expert", "expert", test.experts, ids),
            ("domain", "domain", test.domains, domains),
            ("not", "expert or domain", test.forbidden, list(dict.fromkeys([*ids, *domains]))),
        ):
            for i, name in enumerate(names):
                if name not in known:
                    place = ("tests", test.index, key)
                    listed = (*place, i) if self.file.node((*place, i)) else place
                    yield self.file.problem(listed, f"no {what} {name[:64]!r}{nearest(name, known)}")


def beside(config: Path) -> Path | None:
    """The routing tests that stand beside an experts file, None where there are none. A link that leads nowhere is there."""
    path = config.parent / FILE_NAME
    return path if os.path.lexists(path) else None


def read_route_tests(path: Path) -> RouteTests:
    """Raises ConfigError with every problem found. Whether names are those of an experts file, `check` says."""
    try:
        text = read_text(path, MAX_BYTES)
    except UnreadableError as error:
        line, column = error.place or (1, 1)
        raise ConfigError([Problem(path.name, line, column, "", str(error))]) from None
    return parse_route_tests(text, path.name)


def parse_route_tests(text: str, name: str = FILE_NAME) -> RouteTests:
    """The tests that `text` says; `name` stands in the errors. Raises ConfigError."""
    file = YamlFile.parse(text, name)
    problems = file.duplicates()
    found: _File | None = None
    if isinstance(file.data, dict):
        found = validated(file, _File, file.data, (), problems)
    else:
        problems.append(file.problem((), "expected version: 1 and tests:"))
    entries = found.tests if found else []
    problems += _twice(file, [entry.name for entry in entries])
    if problems:
        raise ConfigError(problems, {name: text})
    return RouteTests(tuple(_test(file, i, entry) for i, entry in enumerate(entries)), file, text)


def _test(file: YamlFile, index: int, entry: _Entry) -> RouteTest:
    query, node = entry.query(), file.node(("tests", index))
    return RouteTest(
        entry.name or _name(query),
        node.start_mark.line + 1 if node else 1,
        index,
        query,
        entry.expert,
        entry.domain,
        entry.not_,
        entry.confidence,
        entry.tags,
    )


def _name(query: Query) -> str:
    """Of a test that has none: how the prompt begins, and the policy where it is not the usual one."""
    text = query.text if len(query.text) <= 60 else f"{query.text[:59]}…"
    return text if query.requested_model == "auto" else f"{text} ({query.requested_model})"


def _twice(file: YamlFile, names: Sequence[str | None]) -> Iterator[Problem]:
    first: dict[str, int] = {}
    for i, name in enumerate(names):
        if name is not None and first.setdefault(name, i) != i:
            yield file.problem(("tests", i, "name"), "is the name of a test above already")


def _survey(messages: Sequence[dict[str, Any]]) -> Survey:
    """Raises ValueError where they are none that could be sent, or the user says nothing."""
    try:
        survey = Survey.of(read_messages(messages))
    except MessagesError as error:
        raise ValueError(str(error)) from None
    if not survey.turns:
        raise ValueError("the user says nothing in it")
    return survey
