"""Probe: what an expert's server says to requests as a client would make them: whether it can do what is declared of it."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gateway.upstreams.base import Address, Upstream, UpstreamError
from gateway.upstreams.sending import plain, refusal, send
from router.experts import Expert

ANSWER_SECONDS = 120.0  # for a token, of a server that may be busy
TOOL = {"type": "function", "function": {"name": "noop", "parameters": {"type": "object", "properties": {}}}}
SCHEMA = {
    "type": "json_schema",
    "json_schema": {"name": "yes", "schema": {"type": "object", "properties": {"yes": {"type": "boolean"}}}},
}
# One that cannot be kept to. A vLLM looks at a schema last of all and before it generates: it refuses this one for what it is, or
# says that it takes none.
NO_SCHEMA = {"type": "json_schema", "json_schema": {"name": "no", "schema": {"type": "no such type"}}}
_TAKES_NONE = re.compile(r"structured outputs? (are|is|requires?)\b", re.I)
PIXEL = "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="


@dataclass
class Probe:
    """An expert at an address, to be asked as a client would."""

    upstream: Upstream
    address: Address
    spec: Expert
    seconds: float

    async def without_generating(self, window: int, paths: frozenset[str]) -> list[str]:
        """What is declared and refused, of a vLLM: it looks at tools before it refuses more tokens than fit into its
        window, at a schema before it generates, and at pictures when it counts tokens."""
        problems = []
        if "tools" in self.spec.capabilities:
            body = self._chat(tools=[TOOL], max_tokens=window + 1)
            status, content = await self._answer("/chat/completions", body, self.seconds)
            message = refusal(content) or ""
            if status == 400 and "tool" in message.lower():
                problems.append(f"tools are declared and refused: {plain(message, self.address)}")
        if "json_schema" in self.spec.capabilities:
            body = self._chat(response_format=NO_SCHEMA, max_tokens=1)
            status, content = await self._answer("/chat/completions", body, self.seconds)
            message = refusal(content) or ""
            if status == 200:
                problems.append("json_schema is declared, and its server keeps to none: it took one that nothing fits")
            elif _TAKES_NONE.search(message):
                problems.append(f"json_schema is declared and refused: {plain(message, self.address)}")
        if "vision" in self.spec.capabilities and "/tokenize" in paths:
            picture = {"role": "user", "content": [{"type": "image_url", "image_url": {"url": PIXEL}}]}
            body = {"model": self.spec.upstream_model, "messages": [picture]}
            status, content = await self._answer("/../tokenize", body, self.seconds)
            message = refusal(content) or ""
            if status == 400 and "multimodal" in message.lower():
                problems.append(f"vision is declared and refused: {plain(message, self.address)}")
        return problems

    async def generate(self, problems: list[str], notes: list[str]) -> None:
        """Ask for one token of each kind that is declared; what comes of it is added to the two."""
        for what, path, body in self._requests():
            if any(problem.startswith(f"{what} ") for problem in problems):
                continue  # as was found out for nothing
            began = time.perf_counter()
            status, content = await self._answer(path, body, max(self.seconds, ANSWER_SECONDS))
            if status == 200:
                notes.append(f"{what} answered in {time.perf_counter() - began:.2f} s")
            else:
                why = refusal(content) or content.decode("utf-8", "replace")
                problems.append(f"{what} refused: {plain(why, self.address) or f'status {status}'}")

    def _requests(self) -> list[tuple[str, str, dict[str, Any]]]:
        endpoints = self.spec.endpoints
        if endpoints is None or "chat" in endpoints:
            one = [("chat", "/chat/completions", self._chat(max_tokens=1))]
            if "tools" in self.spec.capabilities:
                one.append(("tools", "/chat/completions", self._chat(max_tokens=1, tools=[TOOL])))
            if "json_schema" in self.spec.capabilities:
                one.append(("json_schema", "/chat/completions", self._chat(max_tokens=1, response_format=SCHEMA)))
            return one
        model = {"model": self.spec.upstream_model}
        if "completions" in endpoints:
            return [("completions", "/completions", {**model, "prompt": "Yes", "max_tokens": 1})]
        if "embeddings" in endpoints:
            return [("embeddings", "/embeddings", {**model, "input": "yes"})]
        return []

    def _chat(self, **more: Any) -> dict[str, Any]:
        return {"model": self.spec.upstream_model, "messages": [{"role": "user", "content": "Say yes."}], **more}

    async def _answer(self, path: str, body: Mapping[str, Any], seconds: float) -> tuple[int, bytes]:
        """Status 0 where there is none, with why in place of the content."""
        try:
            return await send(self.upstream, self.address, path, body, seconds)
        except UpstreamError as error:
            return 0, str(error).encode()
