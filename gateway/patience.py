"""Patience: bounds one wait after the other, with one timer for all of them.

asyncio.timeout arms and disarms a timer for each wait, which costs more than most waits for a chunk. Here a timer that is armed
stays so, and looks when it fires whether the wait that it fires in has lasted too long.
"""

from __future__ import annotations

import asyncio
from types import TracebackType


class Patience:
    """`with patience(seconds):` raises TimeoutError where what is inside takes longer. For one task, and not within itself.

    To be closed, or a timer goes on being armed.
    """

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop
        self._timer: asyncio.Handle | None = None
        self._armed_for = 0.0  # uvloop's handle of what is due at once does not tell
        self._until: float | None = None
        self._task: asyncio.Task[object] | None = None
        self._cancelling = 0
        self._fired = False

    def __call__(self, seconds: float) -> Patience:
        """Seconds below 0 are 0."""
        self._loop = asyncio.get_running_loop()
        self._until = self._loop.time() + max(0.0, seconds)
        return self

    def __enter__(self) -> None:
        if self._until is None:
            raise RuntimeError("say for how long")
        self._task = asyncio.current_task()
        if self._task is None:
            raise RuntimeError("there is no task to bound")
        self._cancelling, self._fired = self._task.cancelling(), False
        if self._timer is None or self._armed_for > self._until:
            self._arm(self._until)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._until = None
        if self._fired and self._task is not None:
            self._fired = False
            # As asyncio.timeout does: the cancellation was ours, unless somebody else's came as well.
            if self._task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
                raise TimeoutError from error

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _arm(self, when: float) -> None:
        self.close()
        self._armed_for = when
        self._timer = self._loop.call_at(when, self._look)

    def _look(self) -> None:
        self._timer = None
        if self._until is None or self._task is None:
            return  # between two waits: the next one arms it
        if self._loop.time() < self._until:
            self._arm(self._until)
        elif not self._fired:
            self._fired = True
            self._task.cancel()
