"""Asks the router without holding up the event loop, and says what it answered in headers."""

from __future__ import annotations

import asyncio
import difflib
import logging
import math
import re
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial

from gateway.errors import BadRequestError, BusyError, InternalError, NotFoundError
from gateway.exchange import Exchange
from gateway.requests.base import ModelRequest
from gateway.serves import Serves
from router.decision import NO_OVERRIDES, Decision, Overrides, Query
from router.errors import ExtensionError, NoExpertError
from router.explaining.explain import Explainer
from router.explaining.explanation import Explanation
from router.fleet import EMPTY_FLEET, Fleet
from router.policy import POLICIES, policy_name
from router.routing import Router

log = logging.getLogger("moe_gateway")

# Each query of a batch is answered when the whole batch is, and a text costs the encoder some milliseconds.
MAX_BATCH = 16
# Being made or waiting: of up to some tenths of a second each, so that the last is still made within a second or so.
MAX_EXPLANATIONS = 4
RETRY_SECONDS = 1
POLICY, DOMAIN, MAX_COST = "x-moe-policy", "x-moe-domain", "x-moe-max-cost-usd"
# What is wrong with a request that no expert can answer: the parameter and the code that clients show.
LACKING = {
    "context_window": ("messages", "context_length_exceeded"),
    "max_cost_usd": (MAX_COST, "max_cost_exceeded"),
    "endpoint": ("model", "unsupported_endpoint"),
    "state": ("previous_response_id", "unsupported_capability"),
    "n": ("n", "unsupported_capability"),
    "logprobs": ("logprobs", "unsupported_capability"),
    "tools": ("tools", "unsupported_capability"),
    "json_schema": ("response_format", "unsupported_capability"),
}
STATELESS = (
    "No expert that could answer this keeps responses, so that previous_response_id, conversation and background mean nothing "
    "here: send the whole conversation as input. The operator declares an expert that does with capabilities: [state]."
)
_DECIMAL = re.compile(r"(\d{1,12}(\.\d{0,12})?|\.\d{1,12})(e-?\d{1,2})?", re.IGNORECASE | re.ASCII)


class Batcher:
    """One thread that works on queries, all together that queued while it was busy; nobody waits for company.

    `work` answers with a result or an exception for each query, in their order. What it raises is a fault of one of them:
    then each is worked on by itself.
    """

    def __init__(self, work: Callable[[Sequence[Query]], Sequence[Decision | Exception]]) -> None:
        self._work = work
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="router")
        self._queue: list[tuple[Query, asyncio.Future[Decision]]] = []
        self._busy = False

    async def ask(self, query: Query) -> Decision:
        """Raises what `work` answered with in place of a decision."""
        future: asyncio.Future[Decision] = asyncio.get_running_loop().create_future()
        self._queue.append((query, future))
        if not self._busy:
            self._next()
        return await future

    @property
    def idle(self) -> bool:
        return not self._busy

    def close(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)
        for _, future in self._queue:
            future.cancel()

    def _next(self) -> None:
        self._busy = False
        waiting = [(query, future) for query, future in self._queue if not future.done()]
        batch, self._queue = waiting[:MAX_BATCH], waiting[MAX_BATCH:]
        if batch:
            queries, futures = [query for query, _ in batch], [future for _, future in batch]
            working = asyncio.get_running_loop().run_in_executor(self._thread, self._answers, queries)
            working.add_done_callback(lambda done: self._done(futures, done))
            self._busy = True

    def _answers(self, queries: Sequence[Query]) -> Sequence[Decision | Exception]:
        try:
            return self._work(queries)
        except Exception as error:  # noqa: BLE001 - the boundary of a batch: one query's fault must not be the others'
            return [error] if len(queries) == 1 else [self._answers([query])[0] for query in queries]

    def _done(
        self, futures: Sequence[asyncio.Future[Decision]], done: asyncio.Future[Sequence[Decision | Exception]]
    ) -> None:
        answers: Sequence[Decision | Exception | None] = [None] * len(futures) if done.cancelled() else done.result()
        for future, answer in zip(futures, answers, strict=True):
            if future.done():
                continue  # its request was given up
            if answer is None:
                future.cancel()
            elif isinstance(answer, Exception):
                future.set_exception(answer)
            else:
                future.set_result(answer)
        self._next()


class Decider:
    """One router and the thread in which its encoder works (the encoder lets go of the interpreter's lock meanwhile).

    `fleet` tells how the experts do at the moment, `clock` the time in seconds, `serves` which endpoints the experts have.
    """

    def __init__(
        self,
        router: Router,
        fleet: Callable[[], Fleet] = lambda: EMPTY_FLEET,
        clock: Callable[[], float] = time.perf_counter,
        serves: Serves | None = None,
    ) -> None:
        self.router, self._fleet, self._clock = router, fleet, clock
        self._serves = serves or Serves(router.file.experts)
        self._batcher = Batcher(lambda queries: router.decide_many(queries, fleet()))
        self._explainer = Explainer(router)
        # One at a time, and in a thread of their own: an explanation reads a text dozens of times, and decisions must not wait.
        self._explaining = ThreadPoolExecutor(max_workers=1, thread_name_prefix="explainer")
        self._explanations = 0  # being made or waiting

    async def decide(self, query: Query) -> Decision:
        """Its `seconds` are all that this request waited for it: the queue before the encoder and the company there included.

        Raises NotFoundError for a model that is not known, BadRequestError where no expert is able, InternalError where
        another package's policy fails."""
        started = self._clock()
        decided = await self._decided(query)
        return replace(decided, seconds=self._clock() - started)

    async def decide_for(
        self, request: ModelRequest, overrides: Overrides, exchange: Exchange | None = None
    ) -> Decision:
        """Who answers a request, among the experts that serve its endpoint; `exchange` remembers what was asked. Raises as `decide`
        does, naming fields as the request does."""
        try:
            return await self._decide_for(request, overrides, exchange)
        except BadRequestError as error:
            error.param = request.names.get(error.param or "", error.param)
            raise

    async def _decide_for(self, request: ModelRequest, overrides: Overrides, exchange: Exchange | None) -> Decision:
        unable = self._serves.unable(request)
        query = replace(request.query(overrides), endpoint=request.endpoint, unable=unable)
        if exchange is not None:
            exchange.query = query
        if request.interchangeable or self.router.resolve(query.requested_model) not in POLICIES:
            return await self.decide(query)
        able = [expert for expert in self.router.file.experts if expert not in unable]
        if len({self.router.file.experts[expert].upstream_model for expert in able}) > 1:
            raise BadRequestError(
                f"The answers of different models to this are not to be compared or mixed, so that {request.endpoint} is "
                f"not routed: name a model, one of {', '.join(able)}.",
                param="model",
                code="model_required",
            )
        decision = await self.decide(replace(query, requested_model=able[0]) if able else query)
        return replace(decision, reason="only_capable")

    async def _decided(self, query: Query) -> Decision:
        """The router's decision, with its share of the router's time. Raises as `decide` does."""
        target = self.router.resolve(query.requested_model)
        if target is None:
            raise NotFoundError(self.unknown(query.requested_model), param="model", code="model_not_found")
        if target != query.requested_model:
            query = replace(query, requested_model=target)
        try:
            return self.router.quick(query, self._fleet()) or await self._batcher.ask(query)
        except NoExpertError as error:
            param, code = LACKING.get(error.lacking, ("messages", "unsupported_capability"))
            message = STATELESS if error.lacking == "state" else str(error)
            raise BadRequestError(message, param=param, code=code) from None
        except ExtensionError as error:
            raise _policy_failed(error) from None

    async def explain(self, query: Query, decision: Decision) -> Explanation:
        """Why `decide` answered `query` with `decision`. Raises BusyError where MAX_EXPLANATIONS are waited for already,
        InternalError where another package's policy fails."""
        if self._explanations >= MAX_EXPLANATIONS:
            raise BusyError("Too many explanations are being waited for; ask again in a moment.", RETRY_SECONDS)
        work = partial(self._explainer.explain, query, decision, self._fleet())
        self._explanations += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._explaining, work)
        except ExtensionError as error:
            raise _policy_failed(error) from None
        finally:
            self._explanations -= 1

    def overrides(self, headers: Mapping[bytes, bytes]) -> Overrides:
        """What the request's headers want otherwise. Raises BadRequestError naming the header and what it may say."""
        policy, domain, cost = (headers.get(name.encode()) for name in (POLICY, DOMAIN, MAX_COST))
        if policy is domain is cost is None:
            return NO_OVERRIDES
        return Overrides(
            policy=None if policy is None else self._policy(policy.decode("latin-1").strip()),
            domain=None if domain is None else self._domain(domain.decode("latin-1").strip()),
            max_cost_usd=None if cost is None else _usd(cost.decode("latin-1").strip()),
        )

    def _policy(self, said: str) -> str:
        name = policy_name(said)
        if name not in POLICIES:
            raise _refused(POLICY, said, f"one of {', '.join(n.removeprefix('auto:') for n in POLICIES)}")
        return name

    def _domain(self, said: str) -> str:
        domains = self.router.file.domain_names
        if said not in domains:
            raise _refused(DOMAIN, said, f"one of {', '.join(domains)}")
        return said

    @property
    def idle(self) -> bool:
        """Whether nobody waits for a decision or an explanation."""
        return self._batcher.idle and not self._explanations

    def close(self) -> None:
        self._batcher.close()
        self._explaining.shutdown(wait=False, cancel_futures=True)

    def models(self) -> Sequence[str]:
        """Every name that `model` may have, virtual models first."""
        return (*POLICIES, *self.router.file.experts, *self.router.file.aliases)

    def unknown(self, model: str) -> str:
        """The message for a model that is not known, with the nearest that is."""
        shown = _shown(model)
        nearest = difflib.get_close_matches(shown, self.models(), n=1, cutoff=0.5)
        hint = f" Did you mean {nearest[0]!r}?" if nearest else f" There are {', '.join(self.models())}."
        return f"The model {shown!r} does not exist here.{hint}"


def _policy_failed(error: ExtensionError) -> InternalError:
    # What a policy says that saw the request may quote it; where it was raised does not, nor why it could not be loaded.
    told = {"policy": error.part} if error.part else {"why": str(error)}
    log.error("a policy cannot be used", extra=told, exc_info=error.__cause__ or error)
    return InternalError("The policy that was asked for cannot be used; the gateway's log says why.")


def _shown(text: str) -> str:
    return text if len(text) <= 64 else f"{text[:64]}…"


def _refused(header: str, said: str, allowed: str) -> BadRequestError:
    message = f"The header {header} says {_shown(said)!r}; it takes {allowed}."
    return BadRequestError(message, param=header, code="invalid_header")


def _usd(said: str) -> float:
    amount = float(said) if _DECIMAL.fullmatch(said) else math.nan
    if not 0 < amount < math.inf:
        raise _refused(MAX_COST, said, "a number of US dollars above 0, such as 0.002")
    return amount


def decision_headers(exchange: Exchange) -> dict[str, str]:
    """The x-moe-* headers of what is known so far."""
    headers = {"x-request-id": exchange.id}
    decision = exchange.decision
    if decision is None:
        return headers
    expert = exchange.expert_id or decision.expert
    headers["x-moe-expert"] = expert
    if exchange.expert is not None:
        headers["x-moe-model"] = exchange.expert.upstream_model
    if decision.scores is not None:
        headers["x-moe-domain"] = decision.scores.domain
        headers["x-moe-confidence"] = f"{decision.scores.confidence:.4f}"
    headers["x-moe-reason"] = decision.reason if expert == decision.expert else "fallback"
    if decision.switched is not None and expert != decision.previous:
        headers["x-moe-switched"] = decision.switched
    headers["x-moe-stage"] = decision.stage
    headers["x-moe-route-ms"] = f"{decision.seconds * 1000:.3f}"
    headers["x-moe-attempts"] = str(len(exchange.attempts))
    if exchange.cost is not None:
        headers["x-moe-cost-usd"] = f"{exchange.cost:.8f}"
    return headers
