"""Which request is being served: every log line that is written meanwhile has its ids."""

from __future__ import annotations

from contextvars import ContextVar


class Serving:
    """One request, from the moment that it is let in. `over` once it is served: what it began and did not end speaks for itself
    from then on."""

    __slots__ = ("over", "request_id", "trace_id")

    def __init__(self, request_id: str) -> None:
        self.request_id = request_id
        self.trace_id: str | None = None
        self.over = False


_SERVING: ContextVar[Serving | None] = ContextVar("serving", default=None)


def serve(request_id: str) -> Serving:
    """What is done from now on in this task, and in those that it begins, is for that request."""
    serving = Serving(request_id)
    _SERVING.set(serving)
    return serving


def traced(trace_id: str | None) -> None:
    """The trace of the request that is being served now."""
    serving = served()
    if serving is not None:
        serving.trace_id = trace_id


def served() -> Serving | None:
    """The request that is being served now."""
    serving = _SERVING.get()
    return None if serving is None or serving.over else serving
