"""Which replica of an expert is asked: the least busy for its weight, or the one whose cache holds the conversation."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from gateway.affinity import ranked
from gateway.replica import Replica

# What others ask of a server counts half. It is known late, and every gateway that reads it would send its requests to the
# same server until the next reading: decision 17 has the figures.
OTHERS_COUNT = 0.5
# What a request that waits in the server's own queue counts beside that, whoever's it is: the batch is full.
WAITING_EXTRA = 1.0
CACHE_NEARLY_FULL = 0.9  # from here on a vLLM server may have to evict a running request and compute it anew
# How much busier than its share of all work the replica that a conversation belongs to may be before another takes it:
# a quarter (consistent hashing with bounded loads: Mirrokni, Thorup and Zadimoghaddam 2018) and a few requests, which
# are one batch to a server and cost less than reading the whole conversation again.
MARGIN_RATIO = 1.25
MARGIN_REQUESTS = 4.0


def outstanding(replica: Replica, now: float) -> float:
    """The work at a replica's server in requests: ours in flight, for whichever expert there, and, where a reading is fresh,
    half of those of others, one more for each that waits, and up to twice as much as its KV cache fills."""
    load = replica.load
    if load is None or now >= replica.load_until:
        return float(replica.work)
    work = replica.work + OTHERS_COUNT * replica.load_others + WAITING_EXTRA * load.waiting
    over = (load.cache - CACHE_NEARLY_FULL) / (1 - CACHE_NEARLY_FULL)
    return work if over <= 0 else (1 + work) * (1 + over) - 1


class Balancer:
    """Chooses; remembers nothing but the turns that it leaves at the replicas.

    Without a key the least outstanding work for the weight comes first; among equals, turns in proportion to weight
    (stride scheduling: Waldspurger and Weihl 1995). With one, the replica that the key belongs to, unless it is busier
    than the margin allows: then the next in the key's own order that is not. One that just said it is full comes last.
    """

    def choose(
        self, replicas: Sequence[Replica], key: bytes | None = None, tried: Collection[Replica] = ()
    ) -> Replica | None:
        """Of all `replicas` of an expert, the best that may be asked, has room and was not tried; None if there is none."""
        now = replicas[0].clock()
        able = [r for r in replicas if r.may_be_asked(now) and not r.full and r not in tried]
        if len(able) < 2:
            return able[0] if able else None
        able = [r for r in able if now >= r.busy_until] or able
        work = {r: outstanding(r, now) for r in able}
        chosen = _least(able, work) if key is None else _nearest_within_margin(key, able, work)
        self._turn(replicas, able, chosen)
        return chosen

    def _turn(self, replicas: Sequence[Replica], able: Sequence[Replica], chosen: Replica) -> None:
        # One that was away has no claim on the turns that it missed.
        behind = min(r.turns for r in able)
        for replica in replicas:
            if replica.turns < behind:
                replica.turns = behind
        chosen.turns += 1 / chosen.share


def _least(able: Sequence[Replica], work: dict[Replica, float]) -> Replica:
    return min(able, key=lambda r: (work[r] / r.share, r.turns))


def _nearest_within_margin(key: bytes, able: Sequence[Replica], work: dict[Replica, float]) -> Replica:
    fair = MARGIN_RATIO * sum(work.values()) / sum(r.share for r in able)
    # There is one: somebody is no busier than the mean.
    return next(r for r in ranked(key, able) if work[r] <= fair * r.share + MARGIN_REQUESTS)
