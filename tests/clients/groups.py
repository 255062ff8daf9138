"""The groups of clients: each runs as one process, in the environment that its pins need."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
OPENAI = ("openai_chat", "openai_endpoints", "openai_errors")


def environment() -> Path:
    """Where `make clients` put the environments."""
    return Path(os.environ.get("MOE_GATEWAY_CLIENTS", ROOT / ".venv-clients"))


@dataclass(frozen=True)
class Group:
    """`modules` lie in python/ or node/; `packages` are those whose versions the README tells."""

    name: str
    modules: tuple[str, ...]
    packages: tuple[str, ...]

    @property
    def folder(self) -> Path:
        return HERE / ("node" if self.name == "node" else "python")

    def python(self) -> Path:
        return Path(sys.executable) if self.name == "ours" else environment() / self.name / "bin" / "python"

    def command(self) -> list[str]:
        if self.name == "node":
            return [str(environment() / "newest" / "bin" / "node"), str(self.folder / "main.mjs"), *self.modules]
        return [str(self.python()), "-m", "tests.clients.python.checks", *self.modules]

    def checks(self) -> Iterator[str]:
        """The names of the checks, read from the sources: the clients themselves are not importable here."""
        suffix, pattern = (
            (".mjs", r'^check\("([^"]+)"') if self.name == "node" else (".py", r"^(?:async )?def check_(\w+)")
        )
        for module in self.modules:
            text = (self.folder / f"{module}{suffix}").read_text("utf-8")
            yield from (f"{module}: {name.replace('_', ' ')}" for name in re.findall(pattern, text, re.MULTILINE))


_ALL = (
    Group(
        "newest",
        (*OPENAI, "anthropic_client", "langchain_client", "pydantic_ai_client"),
        ("openai", "anthropic", "langchain-openai", "pydantic-ai-slim"),
    ),
    Group("ours", (*OPENAI, "litellm_client"), ("openai", "litellm")),
    Group("instructor", ("instructor_client",), ("instructor", "openai")),
    Group("node", ("openai", "ai_sdk"), ("openai", "ai", "@ai-sdk/openai", "@ai-sdk/openai-compatible")),
)
GROUPS: Mapping[str, Group] = {group.name: group for group in _ALL}
