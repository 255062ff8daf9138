"""TurnCache: the scores of texts seen lately, so that a conversation is not classified anew at each of its turns."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict

from router.decision import Scores


class TurnCache:
    """At most `size` scores, the least lately used forgotten first. Keeps a hash of each text, never the text. Thread-safe."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._kept: OrderedDict[bytes, Scores] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, text: str) -> Scores | None:
        key = _hash(text)
        with self._lock:
            scores = self._kept.get(key)
            if scores is not None:
                self._kept.move_to_end(key)
            return scores

    def put(self, text: str, scores: Scores) -> None:
        key = _hash(text)
        with self._lock:
            self._kept[key] = scores
            self._kept.move_to_end(key)
            if len(self._kept) > self._size:
                self._kept.popitem(last=False)


def _hash(text: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
