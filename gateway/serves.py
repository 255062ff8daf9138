"""Serves: which endpoints each expert's servers have, as declared or as found."""

from __future__ import annotations

from collections.abc import Mapping

from gateway.requests.base import ModelRequest, Wire
from gateway.upstreams.custom import CUSTOM_ENDPOINTS
from gateway.upstreams.litellm.upstream import LITELLM_ENDPOINTS
from router.experts import Expert

ASSUMED = frozenset({"chat", "completions"})  # of a server that was not asked yet
TOKENIZE = frozenset({"tokenize"})
EMBEDDED = frozenset({"chat", "completions", "responses", "messages"})


class Serves:
    """What is declared in experts.yaml stands; for the rest `found` says what a server answered. What was found `before` of
    the same servers is known at once."""

    def __init__(self, experts: Mapping[str, Expert], before: Serves | None = None) -> None:
        self._experts = experts
        self._found: dict[str, frozenset[str]] = {}
        if before is not None:
            same = (
                n for n, spec in experts.items() if n in before._found and before._experts[n].upstream == spec.upstream
            )
            self._found = {name: before._found[name] for name in same}
        self._unable: dict[str, frozenset[str]] = {}  # by the request's endpoint, until more is found

    def of(self, expert: str) -> frozenset[str]:
        """Names of router.experts.ENDPOINTS, and `tokenize` where a server of chat is vLLM's, or like it."""
        spec = self._experts[expert]
        served = self._served(expert, spec)
        return served | TOKENIZE if spec.upstream.speaks_vllm and "chat" in served else served

    def _served(self, expert: str, spec: Expert) -> frozenset[str]:
        if spec.endpoints is not None:
            return spec.endpoints
        if spec.upstream.litellm is not None:
            return LITELLM_ENDPOINTS
        if spec.upstream.custom is not None:
            return CUSTOM_ENDPOINTS
        return self._found.get(expert, EMBEDDED if spec.upstream.embedded else ASSUMED)

    def found(self, expert: str, endpoints: frozenset[str]) -> None:
        """A server of the expert's said what it has."""
        self._found[expert] = endpoints
        self._unable.clear()

    def wire(self, expert: str, request: ModelRequest) -> Wire | None:
        """How the request is put to the expert; None where it does not serve it."""
        endpoints = self.of(expert)
        return next((wire for name, wire in request.wires.items() if name in endpoints), None)

    def unable(self, request: ModelRequest) -> frozenset[str]:
        """The experts that do not serve the request's endpoint."""
        known = self._unable.get(request.endpoint)
        if known is None:
            known = frozenset(expert for expert in self._experts if self.wire(expert, request) is None)
            self._unable[request.endpoint] = known
        return known
