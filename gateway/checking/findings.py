"""Findings: what is wrong in an experts.yaml, or will bite, each at its place."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from router.errors import Problem

Severity = Literal["error", "warning"]


@dataclass(frozen=True)
class Finding:
    """`code` names the kind of a warning, by which it can be told not to be said; an error has none."""

    severity: Severity
    problem: Problem
    code: str = ""

    @property
    def words(self) -> str:
        """What is wrong, with the key that it is wrong of."""
        return f"{self.problem.key}: {self.problem.message}" if self.problem.key else self.problem.message

    def described(self) -> dict[str, Any]:
        """As JSON has it."""
        place = {name: getattr(self.problem, name) for name in ("file", "line", "column", "key", "message")}
        return {**place, "code": self.code} if self.code else place


def errors(problems: Iterable[Problem]) -> list[Finding]:
    return [Finding("error", problem) for problem in problems]
