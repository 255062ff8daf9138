"""Asks a router where the prompts of routing tests go. Nothing is generated, and no expert's health or latency counts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from router.decision import Decision
from router.errors import ExtensionError, RouterError
from router.routetests.file import RouteTest, RouteTests

if TYPE_CHECKING:
    from router.routing import Router

SHOWN_DOMAINS = 3


@dataclass(frozen=True, slots=True)
class Result:
    """What became of one test. `wrong` is what did not hold, empty where all did; `decision` is None where there was none."""

    test: RouteTest
    wrong: tuple[str, ...]
    decision: Decision | None = None

    @property
    def name(self) -> str:
        return self.test.name

    @property
    def passed(self) -> bool:
        return not self.wrong

    @property
    def why(self) -> str:
        """One line: what did not hold, and the figures that were decided by; empty where all held."""
        if self.passed or self.decision is None:
            return "; ".join(self.wrong)
        return f"{', '.join(self.wrong)} ({_figures(self.decision)})"


def run_route_tests(tests: RouteTests, router: Router) -> list[Result]:
    """A result for each test, in their order. One that names what the router's experts.yaml does not have fails and says so.

    Takes about the time of a decision for each, in the caller's thread; raises nothing that a test may be at fault for."""
    outcomes = router.decide_many([test.query for test in tests.tests])
    return [_result(tests, test, outcome, router) for test, outcome in zip(tests.tests, outcomes, strict=True)]


def _result(tests: RouteTests, test: RouteTest, outcome: Decision | RouterError, router: Router) -> Result:
    strangers = tuple(problem.message for problem in tests.strangers(test, router.file))
    if isinstance(outcome, RouterError):
        return Result(test, strangers or (_told(outcome),))
    return Result(test, strangers or tuple(_wrong(test, outcome)), outcome)


def _told(error: RouterError) -> str:
    """Less what a stranger's policy says, which may quote the prompt: this is for logs too."""
    if isinstance(error, ExtensionError) and error.part:
        return f"the policy {error.part} failed" + (f": {type(error.__cause__).__name__}" if error.__cause__ else "")
    return str(error)


def _wrong(test: RouteTest, decision: Decision) -> Iterator[str]:
    """What does not hold."""
    scores, expert = decision.scores, decision.expert
    domain = scores.domain if scores else ""
    confidence = scores.confidence if scores else 0.0
    if test.experts and expert not in test.experts:
        yield f"went to {expert}, not to {' or '.join(test.experts)}"
    if expert in test.forbidden:
        yield f"went to {expert}, where it must not go"
    if test.domains and domain not in test.domains:
        yield f"was taken for {domain}, not for {' or '.join(test.domains)}"
    if domain in test.forbidden:
        yield f"was taken for {domain}, which it must not be"
    if test.confidence is not None and confidence < test.confidence:
        yield f"confidence is {confidence:.3f}, below {test.confidence:g}"


def _figures(decision: Decision) -> str:
    by_domain = decision.scores.by_domain if decision.scores else {}
    first = sorted(by_domain.items(), key=lambda item: -item[1])[:SHOWN_DOMAINS]
    return f"{decision.reason}; {', '.join(f'{domain} {p:.3f}' for domain, p in first)}"
