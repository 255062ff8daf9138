"""Affinity: what brings a request back to the replica whose prefix cache holds its beginning, with no state to share.

Weighted rendezvous hashing: Thaler and Ravishankar 1998, "Using Name-Based Mappings to Increase Hit Rates"; weights by the
logarithm of Schindelhauer and Schomaker 2005, "Weighted Distributed Hash Tables". Every gateway ranks the replicas of a key
alike, and when one comes or goes only the keys that are its own move.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from hashlib import blake2b
from typing import Literal

from gateway.replica import Replica


def affinity_key(
    affinity: Literal["prefix", "session", "none"], session: str | None, opening: bytes | None
) -> bytes | None:
    """What a request is known by, None where any replica is as good as another.

    `session` is the name that the client gave the conversation; `opening` are the bytes that all of its turns begin with:
    the messages up to and with the first of the user. A named session goes before them; `session` alone never reads them.
    """
    if affinity == "none":
        return None
    if session:
        return blake2b(session.encode("utf-8", "surrogatepass"), digest_size=16, person=b"session").digest()
    if affinity == "prefix" and opening:
        return blake2b(opening, digest_size=16, person=b"prefix").digest()
    return None


def ranked(key: bytes, replicas: Iterable[Replica]) -> list[Replica]:
    """The replicas, the one that `key` belongs to first, then who inherits it."""
    return sorted(replicas, key=lambda replica: _distance(key, replica))


def _distance(key: bytes, replica: Replica) -> float:
    """Exponentially distributed with the replica's share as its rate: so each is nearest for its share of all keys."""
    drawn = int.from_bytes(blake2b(key + replica.identity, digest_size=8).digest(), "big") >> 11
    return -math.log((drawn + 0.5) / 2**53) / replica.share
