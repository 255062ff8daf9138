"""Asks the router without holding up the event loop, and says what it answered in headers."""

from __future__ import annotations

import asyncio
import difflib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from gateway.errors import BadRequestError, NotFoundError
from gateway.exchange import Exchange
from router.decision import Decision, Query
from router.errors import NoExpertError
from router.experts import VIRTUAL_MODELS
from router.routing import Router


class Decider:
    """One router and the thread in which its encoder works (the encoder lets go of the interpreter's lock meanwhile)."""

    def __init__(self, router: Router) -> None:
        self.router = router
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="router")

    async def decide(self, query: Query) -> Decision:
        """Raises NotFoundError for a model that is not known, BadRequestError where no expert is able."""
        target = self.router.resolve(query.requested_model)
        if target is None:
            raise NotFoundError(self.unknown(query.requested_model), param="model", code="model_not_found")
        query = replace(query, requested_model=target)
        if decision := self.router.quick(query):
            return decision
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, self.router.decide, query)
        except NoExpertError as error:
            code = "context_length_exceeded" if error.lacking == "context_window" else "unsupported_capability"
            raise BadRequestError(str(error), param="messages", code=code) from None

    def close(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)

    def models(self) -> Sequence[str]:
        """Every name that `model` may have, virtual models first."""
        return (*VIRTUAL_MODELS, *self.router.file.experts, *self.router.file.aliases)

    def unknown(self, model: str) -> str:
        """The message for a model that is not known, with the nearest that is."""
        shown = model if len(model) <= 64 else f"{model[:64]}…"
        nearest = difflib.get_close_matches(shown, self.models(), n=1, cutoff=0.5)
        hint = f" Did you mean {nearest[0]!r}?" if nearest else f" There are {', '.join(self.models())}."
        return f"The model {shown!r} does not exist here.{hint}"


def decision_headers(exchange: Exchange) -> dict[str, str]:
    """The x-moe-* headers of what is known so far."""
    headers = {"x-request-id": exchange.id}
    decision = exchange.decision
    if decision is None:
        return headers
    expert = exchange.expert_id or decision.expert
    headers["x-moe-expert"] = expert
    if exchange.expert is not None:
        headers["x-moe-model"] = exchange.expert.model
    if decision.scores is not None:
        headers["x-moe-domain"] = decision.scores.domain
        headers["x-moe-confidence"] = f"{decision.scores.confidence:.4f}"
    headers["x-moe-reason"] = decision.reason if expert == decision.expert else "fallback"
    headers["x-moe-stage"] = decision.stage
    headers["x-moe-route-ms"] = f"{decision.seconds * 1000:.3f}"
    headers["x-moe-attempts"] = str(len(exchange.attempts))
    if exchange.cost is not None:
        headers["x-moe-cost-usd"] = f"{exchange.cost:.8f}"
    return headers
