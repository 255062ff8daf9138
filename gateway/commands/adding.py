"""An expert that is about to be added, with the domains that come with it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gateway.console import fail

if TYPE_CHECKING:
    from router.cataloguing.draft import Draft

DOMAIN = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}")
MOST_BYTES = 256 * 1024  # of a file of example prompts, which is to go into experts.yaml


@dataclass(frozen=True)
class NewDomain:
    name: str
    description: str
    examples: tuple[str, ...]


@dataclass(frozen=True)
class Addition:
    """`domains` are those that the file does not have yet."""

    draft: Draft
    domains: tuple[NewDomain, ...] = ()

    def lines(self) -> list[str]:
        """As they are to stand in the file, below the sections that they belong to."""
        domains = [line for domain in self.domains for line in _lines(domain)]
        sections = {"experts": self.draft.lines(), "domains": domains}
        return [told for name, lines in sections.items() if lines for told in (f"{name}:", *(f"  {n}" for n in lines))]

    def into(self, text: str, name: str) -> str:
        """The text of an experts file with all of it. Raises ConfigError."""
        from router.yamledit import with_entry

        text = with_entry(text, "experts", self.draft.lines(), name)
        for domain in self.domains:
            text = with_entry(text, "domains", _lines(domain), name)
        return text


def _lines(domain: NewDomain) -> list[str]:
    from router.cataloguing.draft import domain_lines

    return domain_lines(domain.name, domain.description, domain.examples)


def read_qualities(said: Sequence[str]) -> dict[str, float | None]:
    """From `legal` or `legal=0.9` each; None where no quality is named. Raises ValueError on another thing."""
    found: dict[str, float | None] = {}
    for word in (part.strip() for one in said for part in one.split(",")):
        name, separator, figure = word.partition("=")
        try:
            quality = float(figure) if separator else None
        except ValueError:
            quality = -1.0
        if not DOMAIN.fullmatch(name) or (quality is not None and not 0 <= quality <= 1):
            what = "NAME or NAME=QUALITY, a name of a-z, 0-9, '_' and '-' and a quality from 0 to 1, such as legal=0.9"
            raise ValueError(f"{what}, not {word[:80]!r}")
        found[name] = quality
    return found


def read_examples(path: Path) -> list[str]:
    """Example prompts: a file of JSON lines with `prompt`, or of text with one a line; each of them once.

    Leaves with status 1 where it cannot be read.
    """
    from router.textfiles import UnreadableError, read_text

    try:
        lines = read_text(path, MOST_BYTES).splitlines()
    except UnreadableError as error:
        place = f":{error.place[0]}:{error.place[1]}" if error.place else ""
        fail(f"--examples: {path}{place} {error}")
    prompts = [_prompt(line, path, n) for n, line in enumerate(lines, 1)] if path.suffix == ".jsonl" else lines
    found = list(dict.fromkeys(filter(None, map(str.strip, prompts))))
    if not found:
        fail(f"--examples: there is no prompt in {path}")
    return found


def _prompt(line: str, path: Path, number: int) -> str:
    if not line.strip():
        return ""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        row = None
    if not isinstance(row, Mapping) or not isinstance(row.get("prompt"), str):
        fail(f'--examples: {path}:{number}: not an object with a prompt, such as {{"prompt": "…"}}')
    return str(row["prompt"])
