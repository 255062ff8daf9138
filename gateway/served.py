"""Served: whether each worker has the model, or the adapter, that experts.yaml says it has."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from gateway import lora
from gateway.exchange import Outcome
from gateway.listing import Listing, base_of, differences, lacks, names, read_listing
from gateway.replica import Replica, by_server
from gateway.upstreams.base import Upstream
from router.experts import ExpertsFile
from router.upstream import Adapter

log = logging.getLogger("moe_gateway")

OK = "ok"
MAX_TRIES = 5  # in a row for a list, of a server that gives none; then one after every LONGEST_PAUSE_SECONDS
SETTLE_SECONDS = 10.0  # a start waits so long for adapters; those that take longer come later
FIRST_PAUSE_SECONDS = 5.0  # until an adapter that was refused is tried again
LONGEST_PAUSE_SECONDS = 300.0


@dataclass
class _Refused:
    """An adapter that the server would not load."""

    why: str
    pause: float
    until: float


@dataclass(eq=False)
class _Server:
    """One address. `replicas` maps those that are there to their experts; the rest is of one life of it."""

    replicas: Mapping[Replica, str]
    life: object = None
    tries: int = 0
    until: float = 0.0  # when to try again
    listing: Listing | None = None
    refused: dict[str, _Refused] = field(default_factory=dict)
    task: asyncio.Task[None] | None = None

    @property
    def first(self) -> Replica:
        return next(iter(self.replicas))

    def look_at_life(self) -> None:
        """Begin anew where the server may be another process than it was."""
        load = self.first.load
        life = (self.first.address.url, load and load.process, [replica.life for replica in self.replicas])
        if life != self.life:
            self.life, self.tries, self.until, self.listing, self.refused = life, 0, 0.0, None, {}


class Served:
    """Asks each server for its list when it is up, in each of its lives, and again while it lacks something or refuses what
    it said that it had. A replica whose server lacks its model is left out for as long. Adapters that have a path are loaded
    where they are lacking; one whose path is another than in the file `before` takes the place of what was loaded by that.

    `on_change` is called when some replica may be asked again.
    """

    def __init__(
        self,
        upstream: Upstream,
        file: ExpertsFile,
        replicas: Mapping[str, Sequence[Replica]],
        before: ExpertsFile | None = None,
        on_change: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._upstream, self._file, self._on_change, self._clock = upstream, file, on_change, clock
        experts = {
            replica: expert
            for expert, spec in file.experts.items()
            if spec.upstream.speaks_vllm
            for replica in replicas[expert]
        }
        self._servers = [_Server({replica: experts[replica] for replica in group}) for group in by_server(experts)]
        self._verdicts: dict[Replica, str] = {}
        self._told: dict[Replica, str] = {}  # of the verdicts, in the log
        self._paths_before = _paths(before) if before else {}

    def of(self, replica: Replica) -> str | None:
        """OK, or what is wrong; None of one whose server told nothing."""
        return self._verdicts.get(replica)

    def warnings(self) -> list[str]:
        """What is wrong, a line a replica."""
        return [f"{replica.name}: {verdict}" for replica, verdict in self._verdicts.items() if verdict != OK]

    def mismatched(self) -> dict[str, bool]:
        """Whether something is wrong with any replica of an expert, by expert."""
        experts = {replica: expert for server in self._servers for replica, expert in server.replicas.items()}
        found = dict.fromkeys(experts.values(), False)
        for replica, verdict in self._verdicts.items():
            found[experts[replica]] |= verdict != OK
        return found

    def refresh(self) -> None:
        """Ask those that are to be asked now. To be called after every round of probes."""
        for server in self._servers:
            if server.task is None and any(replica.up for replica in server.replicas) and server.first.address.url:
                server.look_at_life()
                if self._is_due(server):
                    server.task = asyncio.create_task(self._look_at(server))

    async def settled(self) -> None:
        """Wait for what is under way, SETTLE_SECONDS at most."""
        if tasks := [server.task for server in self._servers if server.task is not None]:
            await asyncio.wait(tasks, timeout=SETTLE_SECONDS)

    def close(self) -> None:
        for server in self._servers:
            if server.task is not None:
                server.task.cancel()

    def _is_due(self, server: _Server) -> bool:
        listing = server.listing
        if listing is None:
            return self._clock() >= server.until
        if any(self._lacks(expert, listing) for expert in server.replicas.values()):
            return True
        # One that refuses a request may have been told to unload an adapter.
        refuses = any(replica.last_outcome is Outcome.REJECTED for replica in server.replicas)
        return (listing.final and refuses) or any(self._to_load(server, listing))

    async def _look_at(self, server: _Server) -> None:
        try:
            listing = await self._listed(server)
            if listing is None:
                server.tries += 1
                if server.tries >= MAX_TRIES:
                    server.until = self._clock() + LONGEST_PAUSE_SECONDS
                if server.listing is None:
                    self._forget(server)
                return
            self._take(server, listing)
            if lacking := list(self._to_load(server, listing)):
                await asyncio.gather(*(self._load(server, adapter, in_place) for adapter, in_place in lacking))
                self._take(server, await self._listed(server) or listing)
            self._judge(server, server.listing or listing)
        except Exception:  # a look that fails must not be the last
            log.exception("a server's models could not be looked at", extra={"replica": server.first.name})
        finally:
            server.task = None

    async def _listed(self, server: _Server) -> Listing | None:
        body = await self._upstream.fetch(server.first.address, "/v1/models")
        return read_listing(body) if body else None

    def _forget(self, server: _Server) -> None:
        """What another life of it said is not true of this one."""
        for replica in server.replicas:
            replica.lacking = False
            self._verdicts.pop(replica, None)

    def _take(self, server: _Server, listing: Listing) -> None:
        server.listing, back = listing, False
        for replica, expert in server.replicas.items():
            before, replica.lacking = replica.lacking, listing.final and self._lacks(expert, listing)
            back = back or (before and not replica.lacking)
        if back:
            self._on_change()

    def _lacks(self, expert: str, listing: Listing) -> bool:
        return lacks(self._file.experts[expert], listing) is not None

    def _to_load(self, server: _Server, listing: Listing) -> Iterator[tuple[Adapter, bool]]:
        """The adapters that the server is to be told to load now, and whether in the place of one with that name."""
        seen = set()
        for expert in server.replicas.values():
            adapter = self._file.experts[expert].upstream.adapter
            if adapter is None or adapter.path is None or adapter.name in seen:
                continue
            seen.add(adapter.name)
            refused, card = server.refused.get(adapter.name), listing.cards.get(adapter.name)
            if refused is not None and self._clock() < refused.until:
                continue
            if card is None:
                yield adapter, False
            elif card.root != adapter.path and card.root in self._paths_before.get(adapter.name, ()):
                yield adapter, True

    async def _load(self, server: _Server, adapter: Adapter, in_place: bool) -> None:
        name = adapter.name
        replicas = [replica for replica in server.replicas if replica.model == name]
        if not in_place:
            self._verdicts |= dict.fromkeys(replicas, f"adapter missing: {name}; it is being loaded")
        why = await lora.load(self._upstream, server.first.address, adapter, in_place)
        if why is None:
            server.refused.pop(name, None)
            log.info("adapter loaded", extra={"replica": replicas[0].name, "adapter": name})
            return
        before = server.refused.get(name)
        pause = min(2 * before.pause, LONGEST_PAUSE_SECONDS) if before else FIRST_PAUSE_SECONDS
        server.refused[name] = _Refused(why, pause, self._clock() + pause)

    def _judge(self, server: _Server, listing: Listing) -> None:
        for replica, expert in server.replicas.items():
            verdict = self._verdicts[replica] = self._verdict(server, expert, listing)
            told, self._told[replica] = self._told.get(replica, OK), verdict
            if verdict == told:
                continue
            said = {"expert": expert, "replica": replica.name}
            if verdict == OK:
                log.info("the expert's server is as experts.yaml says", extra=said)
            else:
                level = logging.ERROR if replica.lacking else logging.WARNING
                log.log(level, "the expert's server is not as experts.yaml says", extra={**said, "why": verdict})

    def _verdict(self, server: _Server, expert: str, listing: Listing) -> str:
        spec = self._file.experts[expert]
        lacking = lacks(spec, listing)
        refused = server.refused.get(spec.upstream_model) if spec.upstream.adapter else None
        parts = [lacking] if lacking else list(differences(spec, base_of(self._file, expert), listing))
        if parts and refused is not None:
            parts.append(refused.why)
        elif lacking:
            parts.append(f"its server has {names(listing)}" + ("" if listing.final else ", and is asked all the same"))
        return "; ".join(parts) or OK


def _paths(file: ExpertsFile) -> dict[str, set[str]]:
    """By name of an adapter, where the file has it from."""
    paths: dict[str, set[str]] = {}
    for spec in file.experts.values():
        if spec.upstream.adapter is not None and spec.upstream.adapter.path is not None:
            paths.setdefault(spec.upstream.adapter.name, set()).add(spec.upstream.adapter.path)
    return paths
