"""The rules that Prometheus is given, read: what is recorded, what alerts, and what their expressions ask for."""

from __future__ import annotations

from functools import cache

import promql_parser

from tests.deploy.expressions import grouped, selectors
from tests.deploy.files import PROMETHEUS, Document, documents


@cache
def groups(name: str) -> list[Document]:
    found: list[Document] = documents((PROMETHEUS / name).read_text("utf-8"))[0]["groups"]
    return found


def alerts() -> list[Document]:
    return [rule for group in groups("alerts.yml") for rule in group["rules"]]


def recordings() -> list[Document]:
    return [rule for group in groups("rules.yml") for rule in group["rules"]]


@cache
def recorded() -> dict[str, set[str]]:
    """The series that rules record, and the labels that they can have: their own, and those of what is recorded before them."""
    found: dict[str, set[str]] = {}
    for rule in recordings():
        labels = found.setdefault(rule["record"], set())
        labels |= set(rule.get("labels", ())) | grouped(rule["expr"])
        for selector in selectors(promql_parser.parse(rule["expr"])):
            labels |= found.get(selector.name, set())
    return found
