"""The log: a line a finished request, and one for whatever an operator should know. No prompt, answer, key or address is in one."""

from __future__ import annotations

import logging
import os
import sys
import threading
from typing import Any, TextIO

from gateway.exchange import Exchange, Outcome
from gateway.logs.context import serve, traced
from gateway.logs.lines import OURS, ConsoleLines, JsonLines, Lines
from gateway.logs.writer import Writer, into
from gateway.settings import LogFormat, LogLevel

__all__ = ["configure", "serve", "traced", "write"]

log = logging.getLogger(OURS)
CALM = (Outcome.OK, Outcome.CLIENT_ERROR, Outcome.CANCELLED)


def configure(
    level: LogLevel = LogLevel.INFO,
    style: LogFormat = LogFormat.AUTO,
    process: int | str | None = None,
    stream: TextIO | None = None,
) -> None:
    """Send the gateway's log, and the warnings of its libraries, to `stream`, which is standard error. `process` names this one
    where there are several. What would end on standard error beside the log, with all that an exception quotes, goes there too.
    """
    stream = stream or sys.stderr
    terminal = stream.isatty()
    lines: Lines = JsonLines(process)
    if style is LogFormat.CONSOLE or (style is LogFormat.AUTO and terminal):
        lines = ConsoleLines(process, terminal and not os.environ.get("NO_COLOR"))
    root = logging.getLogger()
    root.handlers = [Writer(lines, into(stream))]
    chosen = getattr(logging, level.upper())
    log.setLevel(chosen)
    root.setLevel(chosen if level is LogLevel.DEBUG else max(chosen, logging.WARNING))
    logging.captureWarnings(True)
    sys.excepthook = _on_exception
    sys.unraisablehook = lambda failed: _fell("an object could not be cleaned up", failed.exc_value)
    threading.excepthook = lambda failed: _fell("a thread failed", failed.exc_value)


def _on_exception(kind: type[BaseException], error: BaseException, trace: Any) -> None:
    if isinstance(error, KeyboardInterrupt):
        sys.__excepthook__(kind, error, trace)
    else:
        _fell("the process failed", error)


def _fell(what: str, error: BaseException | None) -> None:
    log.critical(what, exc_info=error)


def write(exchange: Exchange) -> None:
    """The one line of a finished exchange."""
    decision, usage, charge = exchange.decision, exchange.usage, exchange.charge
    scores = decision.scores if decision else None
    line: dict[str, Any] = {
        "request_id": exchange.id,
        "trace_id": exchange.trace_id,
        "caller": exchange.caller,
        "endpoint": exchange.endpoint,
        "status": exchange.status,
        "outcome": exchange.outcome,
        "seconds": round(exchange.seconds, 4),
        "stream": exchange.stream,
        "expert": exchange.expert_id,
        "domain": scores.domain if scores else None,
        "confidence": round(scores.confidence, 3) if scores else None,
        "reason": decision.reason if decision else None,
        "attempts": [f"{a.replica}:{a.outcome}" for a in exchange.attempts],
        "ttft": round(exchange.first_token - exchange.started, 4) if exchange.first_token and exchange.stream else None,
        "input_tokens": usage.input + usage.cached_input if usage else None,
        "output_tokens": usage.output if usage else None,
        "cost_usd": exchange.cost,
        "estimated_usd": charge.estimated,
        "energy_wh": charge.energy_wh,
        "gco2e": charge.gco2e,
        "error_code": exchange.error_code,
    }
    level = logging.INFO if exchange.outcome in CALM else logging.WARNING
    log.log(level, "request", extra={key: value for key, value in line.items() if value is not None})
