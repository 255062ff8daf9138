"""Explained: every value that counts in an experts.yaml, and where it comes from. Secrets are told by their references alone."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from gateway.checking.masking import MASK, masked, masked_words
from gateway.checking.report import Report, shown
from router.experts import NOT_WRITTEN, ExpertsFile
from router.layers import Layers, Origin
from router.laying import is_secret
from router.references import is_file, refers
from router.upstream import Part, Upstream

Steps = tuple[str | int, ...]
_SECRET_NAME = re.compile(r"\$\{\w*(?:key|token|secret|passw|credential)", re.I)


@dataclass(frozen=True)
class Setting:
    """One value at a `path`. `origin` is where it was written, None of a default."""

    path: Steps
    value: Any
    origin: Origin | None

    @property
    def reference(self) -> str:
        """What it was written as, where that refers to the environment or to a file; else empty."""
        written = self.origin.written if self.origin else ""
        return written if refers(written) or is_file(written) else ""

    def described(self) -> dict[str, Any]:
        """As JSON has it."""
        told: dict[str, Any] = {"key": ".".join(map(str, self.path)), "path": list(self.path), "value": self.value}
        if self.origin is None:
            return told | {"from": "default"}
        kind = "reference" if self.reference else "file"
        place = {"file": self.origin.file, "line": self.origin.line, "column": self.origin.column}
        return told | {"from": kind, **place} | ({"reference": self.reference} if self.reference else {})


def explained(report: Report) -> list[Setting]:
    """In the order of the reference. None of a file that is wrong."""
    if report.experts is None or report.layers is None:
        return []
    found = []
    for path, value, usual in _values(report.experts, ()):
        origin = _origin(report.layers, path, usual)
        if path == ("router", "fallback") and value is None:
            value = report.experts.fallback
        if origin is not None:
            value = _discreet(path, value, origin.written)
            origin = Origin(shown(report.path, origin.file), origin.line, origin.column, _written(path, origin))
        found.append(Setting(path, value, origin))
    return found


def _values(value: Any, path: Steps, usual: bool = False) -> Iterator[tuple[Steps, Any, bool]]:
    """Each that is not made of others, and whether it is `usual`: what would count if nothing were said."""
    if isinstance(value, Part):
        for name, field in type(value).model_fields.items():
            inner = getattr(value, name)
            if isinstance(value, Upstream) and not inner:
                continue  # another way to be reached
            if not (isinstance(value, ExpertsFile) and name in NOT_WRITTEN):
                yield from _values(inner, (*path, name), inner == field.default)
    elif isinstance(value, Mapping) and value:
        for name, inner in value.items():
            yield from _values(inner, (*path, str(name)))
    elif isinstance(value, tuple) and any(isinstance(inner, Part) for inner in value):
        for i, inner in enumerate(value):
            yield from _values(inner, (*path, i))
    else:
        plain = sorted(value) if isinstance(value, frozenset) else list(value) if isinstance(value, tuple) else value
        yield path, plain, usual


def _origin(layers: Layers, path: Steps, usual: bool) -> Origin | None:
    """Where the value was written, or what is a shorter way to say it: a URL for a replica, a list of domains for qualities."""
    raw = layers.data
    for taken, step in enumerate(path):
        if isinstance(raw, dict):
            if str(step) not in raw:
                return layers.origin(path)  # where null took it away
            raw = raw[str(step)]
        elif isinstance(raw, list) and isinstance(step, int) and step < len(raw):
            raw = raw[step]
        else:
            return None if usual else layers.origin(path[:taken])
    return layers.origin(path)


def _discreet(path: Steps, value: Any, written: str) -> Any:
    if is_secret(path) or _SECRET_NAME.search(written):
        return written if _is_reference(written) else MASK
    return masked_words(value) if path[2:] == ("upstream", "launch", "args") else value


def _written(path: Steps, origin: Origin) -> str:
    if _is_reference(origin.written):
        return origin.written
    lines = origin.written.split("\n")
    return "" if is_secret(path) else "\n".join(masked(lines, number)[0] for number in range(1, len(lines) + 1))


def _is_reference(written: str) -> bool:
    """Whether the whole of it is one, so that nothing of it is secret."""
    return is_file(written) or re.fullmatch(r"\$\{\w+(?::-)?\}", written) is not None
