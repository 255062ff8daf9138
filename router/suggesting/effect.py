"""The file as it would be with proposed domains."""

from __future__ import annotations

from collections.abc import Sequence

from router.experts import ExpertsFile, parse_sources
from router.sources import Sources, read_sources
from router.suggesting.suggestion import Suggestion
from router.yamledit import with_entry


def pasted(text: str, suggestions: Sequence[Suggestion], name: str = "experts.yaml") -> str:
    """`text` of an experts.yaml with every proposed domain and its expert; the rest stays as it is. Raises ConfigError."""
    for one in suggestions:
        text = with_entry(text, "domains", one.domain_lines(), name)
        text = with_entry(text, "experts", one.expert_lines(), name)
    return text


def with_suggestions(sources: Sources, suggestions: Sequence[Suggestion]) -> ExpertsFile:
    """The file that `sources` would be then. Raises ConfigError."""
    return parse_sources(read_sources(sources.path, pasted(sources.text, suggestions, sources.name)))


def snippet(suggestions: Sequence[Suggestion]) -> list[str]:
    """The lines to paste: both sections with what is new in them. They are a file that extends another, less its first lines."""
    domains = [f"  {line}" for one in suggestions for line in one.domain_lines()]
    experts = [f"  {line}" for one in suggestions for line in one.expert_lines()]
    return ["domains:", *domains, "experts:", *experts]
