"""What the model makes of a request, whatever dialect it came in."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.fakes.model.instances import instance

REASONING = "Let me see."


@dataclass(frozen=True)
class Asked:
    """A request as the model understands it.

    `tools` maps names to the schemas of their parameters; `choice` is auto, none, required or a tool's name; `schema` is
    what the answer has to keep to; `results` are the tools' answers to the last question, `called` the tools called for it;
    `turns` counts the model's own turns; `images` holds the size of each image in bytes.
    """

    text: str
    tools: Mapping[str, Any] = field(default_factory=dict)
    choice: str = "auto"
    schema: Any = None
    results: Sequence[str] = ()
    called: Sequence[str] = ()
    turns: int = 0
    images: Sequence[int] = ()


@dataclass(frozen=True)
class Call:
    """A tool's name, and its arguments as JSON."""

    tool: str
    arguments: str


@dataclass(frozen=True)
class Thought:
    """What the model says: a text, with reasoning before it or without, or calls of tools."""

    text: str = ""
    reasoning: str = ""
    calls: Sequence[Call] = ()

    @property
    def words(self) -> list[str]:
        return pieces(self.text)

    @property
    def output_tokens(self) -> int:
        spoken = [self.text, self.reasoning, *(call.arguments for call in self.calls)]
        return sum(len(pieces(text)) for text in spoken)


def pieces(text: str, size: int = 5) -> list[str]:
    """As a stream brings them: a few characters each, which split words, numbers and escapes."""
    return [text[i : i + size] for i in range(0, len(text), size)]


def think(asked: Asked) -> Thought:
    """Calls the next tool (where it failed, the same again), keeps to the schema, answers with what the tools said, or
    repeats the question."""
    if tools := _next_tools(asked):
        arguments = (json.dumps(instance(asked.tools[tool], asked.turns), ensure_ascii=False) for tool in tools)
        return Thought(calls=[Call(tool, given) for tool, given in zip(tools, arguments, strict=True)])
    reasoning = REASONING if "think hard" in asked.text else ""
    if asked.schema is not None:
        return Thought(json.dumps(instance(asked.schema, asked.turns), ensure_ascii=False), reasoning)
    if asked.results:
        return Thought(f"The tool says: {'; '.join(asked.results)} – voilà.", reasoning)
    if asked.images:
        return Thought(f"I see images of {', '.join(map(str, asked.images))} bytes.", reasoning)
    return Thought(f"Grüße 👋, you said: {asked.text}", reasoning)


def _next_tools(asked: Asked) -> list[str]:
    if asked.choice in asked.tools:
        return [asked.choice]
    if asked.called and asked.choice != "none" and asked.results and asked.results[-1].startswith('{"error"'):
        return [asked.called[-1]]
    left = [name for name in asked.tools if name not in asked.called]
    if not left or asked.choice == "none" or (asked.results and asked.choice != "required"):
        return []
    return left if "all tools at once" in asked.text else left[:1]
