"""JSON logs, one object a line. No prompt, answer, key or address is ever in one."""

from __future__ import annotations

import logging
import sys
import traceback
from typing import Any, TextIO

import msgspec

from gateway.exchange import Exchange, Outcome

log = logging.getLogger("moe_gateway")
_OWN = set(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class JsonFormatter(logging.Formatter):
    """`extra` becomes keys. Of an exception only its type and the places in the code are told: its text may quote a request."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S%z"),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
        }
        line |= {key: value for key, value in vars(record).items() if key not in _OWN}
        if record.exc_info and record.exc_info[0] is not None:
            line["error"] = record.exc_info[0].__name__
            line["at"] = [
                f"{f.filename.rpartition('/')[2]}:{f.lineno}" for f in traceback.extract_tb(record.exc_info[2])
            ]
        return msgspec.json.encode(line, enc_hook=str).decode()


def configure(stream: TextIO = sys.stderr) -> None:
    """Send the gateway's log, and the warnings of its libraries, to `stream`."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter())
    logging.getLogger().handlers = [handler]
    logging.getLogger().setLevel(logging.WARNING)
    log.setLevel(logging.INFO)


def write(exchange: Exchange) -> None:
    """The one line of a finished exchange."""
    decision, usage = exchange.decision, exchange.usage
    scores = decision.scores if decision else None
    line: dict[str, Any] = {
        "request_id": exchange.id,
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
        "error_code": exchange.error_code,
    }
    level = (
        logging.INFO if exchange.outcome in (Outcome.OK, Outcome.CLIENT_ERROR, Outcome.CANCELLED) else logging.WARNING
    )
    log.log(level, "request", extra={key: value for key, value in line.items() if value is not None})
