"""What a launched vLLM does: requests that run and wait, tokens a second, since when it has nothing to do."""

from __future__ import annotations

import math
import re
from collections import deque

from gateway.load import read_load

WINDOW_SECONDS = 10.0  # that tokens are counted over
_COUNTER = re.compile(
    rb"^(vllm:generation_tokens_total|vllm:request_success_total)(?:\{[^\n]*\})?[ \t]+([^\s]+)", re.MULTILINE
)


class Figures:
    """The readings of one worker since it became ready at `now`, in seconds of the clock that is given."""

    def __init__(self, now: float) -> None:
        self.running = self.waiting = 0
        self.began = self.idle_since = now
        self._ended: float | None = None
        self._tokens: deque[tuple[float, float]] = deque()

    @property
    def busy(self) -> bool:
        return self.running + self.waiting > 0

    @property
    def tokens_per_second(self) -> float:
        """Over the last WINDOW_SECONDS or so."""
        if len(self._tokens) < 2:
            return 0.0
        (began, before), (ended, after) = self._tokens[0], self._tokens[-1]
        return max(0.0, after - before) / (ended - began)

    def read(self, exposition: bytes, now: float) -> bool:
        """Take in what GET /metrics says. Whether that is a vLLM's."""
        load = read_load(exposition)
        if load is None:
            return False
        self.running, self.waiting = int(load.running), int(load.waiting)
        tokens, ended = _sums(exposition)
        if self.busy or ended != self._ended:
            self.idle_since = now
        self._ended = ended
        if not self._tokens or now > self._tokens[-1][0]:
            self._tokens.append((now, tokens))
        while len(self._tokens) > 2 and self._tokens[1][0] <= now - WINDOW_SECONDS:
            self._tokens.popleft()
        return True


def _sums(exposition: bytes) -> tuple[float, float]:
    """Tokens that were generated, and requests that ended."""
    sums = {b"vllm:generation_tokens_total": 0.0, b"vllm:request_success_total": 0.0}
    for name, value in _COUNTER.findall(exposition):
        try:
            number = float(value)
        except ValueError:
            continue
        sums[name] += number if math.isfinite(number) else 0.0
    return sums[b"vllm:generation_tokens_total"], sums[b"vllm:request_success_total"]
