"""What figures must reach, such as plain.f1>=0.95: named, read, and held against what was measured."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Collection, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

LOW_IS_GOOD = ("ece", "flips", "bounce", "quality_lost", "unanswered")
# Figures that are neither good nor bad when they are high: either bound may be required.
NEITHER = (
    "decisions.reasons.", "decisions.stages.", "decisions.experts.", "conversation.switches.", "conversation.changing.bounce",
    "baselines.",
)  # fmt: skip
COUNTS = ("rows", "pairs", "steps", "conversations", "cores", "confidence")
MANY = ("slices.", "baselines.", "parts.")  # figures too many to list in an error
# The figures of the whole file and of each of its parts, and those of each domain in them.
HEADLINES = ("rows", "accuracy", "f1", "ece", "source_accuracy", "flips", "quality_lost")
OF_DOMAIN = ("precision", "recall", "f1", "rows")
# What else there is: which figures these will have, only measuring tells.
GROUPS = frozenset({"slices", "decisions", "robustness", "conversation"})
SLOW_GROUPS = frozenset({"latency", "baselines"})
WRITTEN = re.compile(r"\s*(?P<name>[^\s<>=](?:[^<>=]*[^\s<>=])?)\s*(?P<sign>>=|<=|=)\s*(?P<value>[^<>=\s]+)\s*")


class RequirementError(ValueError):
    """A requirement that cannot be read, or names no figure that was measured. The message says what can be written."""


@dataclass(frozen=True)
class Requirement:
    """`least` says whether the figure must be `value` or more; else it must be `value` or less."""

    name: str
    least: bool
    value: float

    @staticmethod
    def parse(text: str) -> Requirement:
        """Reads NAME>=VALUE, NAME=VALUE (which means the same) and NAME<=VALUE. Raises RequirementError."""
        found = WRITTEN.fullmatch(text)
        try:
            value = float(found["value"]) if found else math.nan
        except ValueError:
            value = math.nan
        if found is None or not math.isfinite(value):
            raise RequirementError(f"{text[:80]!r} is not a figure and its bound; write plain.f1>=0.95 or flips<=0.04")
        name, sign = found["name"], found["sign"]
        if neither_is_good(name):
            return Requirement(name, sign != "<=", value)
        if sign != "<=" and low_is_good(name):
            raise RequirementError(f"the lower {name} is the better; write {name}<={found['value']}")
        if sign == "<=" and not low_is_good(name):
            raise RequirementError(f"the higher {name} is the better; write {name}>={found['value']}")
        return Requirement(name, sign != "<=", value)

    def met(self, figure: float) -> bool:
        return figure >= self.value if self.least else figure <= self.value

    def miss(self, figure: float) -> str:
        """The line that tells of a figure that does not meet this."""
        return f"{self.name} is {figure:.6g}; {self.value:g} or {'more' if self.least else 'less'} is required"


def low_is_good(name: str) -> bool:
    """Whether the figure should be low: errors, flips, milliseconds."""
    last = name.rpartition(".")[2]
    return last in LOW_IS_GOOD or last.endswith("_ms")


def neither_is_good(name: str) -> bool:
    """Whether the figure may be wanted high as well as low: counts, shares of reasons, figures of others than the router."""
    return name.startswith(NEITHER) or name.rpartition(".")[2] in COUNTS


def figures_of(document: Mapping[str, Any]) -> dict[str, float]:
    """The figures of an evaluation by the names that requirements use: its dotted keys, those of a part also without `parts.`,
    and those of the whole file, such as `flips`, also without `all.`. Of a part that is called like something else, such as
    all, only `parts.all.f1` names the figures."""
    figures = _flat(document)
    parts = {name.removeprefix("parts."): value for name, value in figures.items() if name.startswith("parts.")}
    whole = {name.removeprefix("all."): value for name, value in figures.items() if name.startswith("all.")}
    return parts | whole | figures


def foresee(
    requirements: Sequence[Requirement], parts: Iterable[str], domains: Sequence[str], groups: Set[str]
) -> None:
    """Raises RequirementError for a name that measuring rows of these parts cannot give, before they are measured."""
    prefixes = ["", "all.", *(prefix for part in parts if part for prefix in (f"{part}.", f"parts.{part}."))]
    tails = [*HEADLINES, *(f"per_domain.{domain}.{figure}" for domain in domains for figure in OF_DOMAIN)]
    names = {prefix + tail for prefix in prefixes for tail in tails}
    for requirement in requirements:
        if requirement.name not in names and requirement.name.partition(".")[0] not in groups:
            raise RequirementError(_unknown(requirement.name, names))


def misses(requirements: Sequence[Requirement], figures: Mapping[str, float]) -> list[str]:
    """A line for each requirement that is not met. Raises RequirementError where one names no figure of `figures`."""
    for requirement in requirements:
        if requirement.name not in figures:
            raise RequirementError(_unknown(requirement.name, figures))
    return [r.miss(figures[r.name]) for r in requirements if not r.met(figures[r.name])]


def _unknown(name: str, figures: Collection[str]) -> str:
    close = difflib.get_close_matches(name, figures, n=1, cutoff=0.6)
    hint = f"; did you mean {close[0]}?" if close else "."
    known = [known for known in figures if not known.startswith(MANY) and ".per_domain." not in known]
    listed = ", ".join(sorted(known))
    return f"no figure {name[:80]!r} is measured here{hint} Known are {listed}, and more under slices and baselines"


def _flat(document: Mapping[str, Any], path: tuple[str, ...] = ()) -> dict[str, float]:
    """Every figure of a nested document by its dotted name; lists, text and what is not known are left out."""
    figures: dict[str, float] = {}
    for key, value in document.items():
        if isinstance(value, Mapping):
            figures |= _flat(value, (*path, key))
        elif isinstance(value, int | float) and not isinstance(value, bool):
            figures[".".join((*path, key))] = float(value)
    return figures
